"""Clients and rate limiters as the settings say."""

from __future__ import annotations

import pytest
import requests

from django_tiktok_business.api.factory import client_from_settings, limiter_from_settings
from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.exceptions import ConnectionFailedError, RateLimitError, ServerError
from tests.support import servers
from tests.support.clients import GRANTED, REFRESH_TOKEN, parsed
from tests.support.simulator import override_tiktok, running_simulator

factory_calls: list[str] = []


def session_of_the_project() -> requests.Session:
    session = requests.Session()
    session.headers["X-Gateway"] = "1"
    factory_calls.append("session")
    return session


def test_client_sends_the_credentials_to_the_base_url_of_the_settings() -> None:
    factory_calls.clear()
    with (
        servers.serving(servers.send(GRANTED)) as server,
        override_tiktok(
            APP_ID="7000000000000000042",
            APP_SECRET="factory-test-secret",
            API_BASE_URL=server.base_url,
            SESSION_FACTORY_PATH="tests.api.test_factory.session_of_the_project",
        ),
    ):
        client = client_from_settings()
        assert factory_calls == []
        OAuth(client).refresh(REFRESH_TOKEN)
        OAuth(client).refresh(REFRESH_TOKEN)
        client.close()
    _, headers, body = parsed(server.requests[0])
    assert (body["client_id"], body["client_secret"]) == (
        "7000000000000000042",
        "factory-test-secret",
    )
    assert headers["x-gateway"] == "1"
    assert factory_calls == ["session"]


def test_client_without_a_session_factory_has_a_plain_session() -> None:
    with (
        servers.serving(servers.send(GRANTED)) as server,
        override_tiktok(API_BASE_URL=server.base_url, SESSION_FACTORY_PATH=None),
    ):
        client = client_from_settings()
        assert OAuth(client).refresh(REFRESH_TOKEN).open_id == "_000ClientTest"
        client.close()


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_client_tries_as_often_as_the_settings_say(max_attempts: int) -> None:
    with running_simulator() as simulator, override_tiktok(MAX_ATTEMPTS=max_attempts):
        simulator.fail_next(http_status=503, times=None)
        client = client_from_settings()
        with pytest.raises(ServerError):
            OAuth(client).refresh(REFRESH_TOKEN)
        client.close()
    assert len(simulator.calls) == max_attempts


def test_client_waits_as_long_as_the_settings_say() -> None:
    settings = override_tiktok(REQUEST_TIMEOUT_SECONDS=1, SESSION_FACTORY_PATH=None, MAX_ATTEMPTS=1)
    with servers.serving(servers.stay_silent) as server, settings:
        with override_tiktok(API_BASE_URL=server.base_url):
            client = client_from_settings()
        with pytest.raises(ConnectionFailedError, match="did not answer within 1 seconds"):
            OAuth(client).refresh(REFRESH_TOKEN)
        client.close()


def test_client_takes_slots_of_the_limiter_it_is_given() -> None:
    with running_simulator() as simulator, override_tiktok(REQUESTS_PER_MINUTE=0):
        limiter = limiter_from_settings(1)
        client = client_from_settings(limiter)
        while limiter.reserve(60.0) is not None:
            pass
        with pytest.raises(RateLimitError, match=r"^No call to TikTok is free"):
            OAuth(client).refresh(REFRESH_TOKEN)
        client.close()
    assert simulator.calls == []


def test_limiters_with_the_same_settings_are_one() -> None:
    with override_tiktok(REQUESTS_PER_MINUTE=120):
        limiter = limiter_from_settings()
        assert limiter.per_minute == 120
        assert limiter_from_settings() is limiter
        assert limiter_from_settings(0).per_minute == 0
        with override_tiktok(APP_ID="7000000000000000042"):
            other = limiter_from_settings()
        assert other is not limiter
