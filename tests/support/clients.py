"""Clients for the tests of `api`: their tokens, the calls they make, and the errors they raise."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.api.profile import BusinessProfile
from django_tiktok_business.api.rate_limit import RateLimiter
from django_tiktok_business.exceptions import TikTokBusinessError
from tests.support import servers
from tests.support.simulator_calls import API, APP_ID, APP_SECRET, REDIRECT_URI

ACCESS_TOKEN = "act.client-test-a1b2c3!4711.e1"
REFRESH_TOKEN = "rft.client-test-z9y8x7!4712.e1"

GRANT = {
    "access_token": ACCESS_TOKEN,
    "refresh_token": REFRESH_TOKEN,
    "expires_in": 86400,
    "refresh_token_expires_in": 31536000,
    "open_id": "_000ClientTest",
    "scope": "user.info.basic",
}

GRANTED = servers.http(servers.envelope(data=GRANT))

CALLS: dict[str, Callable[[TikTokClient], Any]] = {
    "exchange": lambda client: OAuth(client).exchange_code("a*0!1", redirect_uri=REDIRECT_URI),
    "refresh": lambda client: OAuth(client).refresh(REFRESH_TOKEN),
    "revoke": lambda client: OAuth(client).revoke(ACCESS_TOKEN),
    "token_info": lambda client: OAuth(client).token_info(ACCESS_TOKEN),
    "profile": lambda client: BusinessProfile(client.authorized(ACCESS_TOKEN), "_0 &1").profile(
        ["username"]
    ),
    "get": lambda client: client.authorized(ACCESS_TOKEN).request("GET", "/business/get/"),
    "post": lambda client: client.authorized(ACCESS_TOKEN).request(
        "POST", "business/comment/create/", body={"text": "Danke ö"}
    ),
}


def no_limiter() -> RateLimiter:
    """A limiter without a limit, which shares its pauses with no other."""
    return RateLimiter(0, app_id=uuid.uuid4().hex, cache_alias="default")


@contextmanager
def client_of(
    session_factory: Callable[[], requests.Session] | None = None, **options: Any
) -> Iterator[TikTokClient]:
    """A client that never sleeps, with a limiter of its own that has no limit."""
    options = {
        "base_url": API,
        "sleep": lambda seconds: None,
        "timeout": 5,
        "limiter": no_limiter(),
        **options,
    }
    client = TikTokClient(APP_ID, APP_SECRET, session_factory=session_factory, **options)
    try:
        yield client
    finally:
        client.close()


def parsed(request: bytes) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The request line, the headers by lower-case name, and the JSON body ({} without one)."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(header.lower().split(": ", 1) for header in lines)
    names = [header.split(":")[0].lower() for header in lines]
    assert len(names) == len(set(names))
    return line, headers, json.loads(body) if body else {}


def refresh_error(client: TikTokClient) -> TikTokBusinessError:
    """What a refresh raises."""
    with pytest.raises(TikTokBusinessError) as caught:
        OAuth(client).refresh(REFRESH_TOKEN)
    return caught.value


def refresh_error_at(base_url: str, **options: Any) -> TikTokBusinessError:
    with client_of(base_url=base_url, **options) as client:
        return refresh_error(client)
