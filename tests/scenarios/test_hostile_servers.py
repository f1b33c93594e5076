"""Answers that need a real connection: endless, compressed and trickling ones."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from datetime import timedelta

import pytest
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.exceptions import (
    ConnectionFailedError,
    InvalidResponseError,
    TikTokBusinessError,
)
from tests.support import servers
from tests.support.factories import make_account
from tests.support.simulator import override_tiktok

pytestmark = [pytest.mark.django_db, pytest.mark.databases("sqlite"), pytest.mark.once]

MEGABYTE = 1024 * 1024
# 2 MB of body, the growing buffer below it, its copy, and the parsed JSON.
PEAK_BYTES = 60 * MEGABYTE
TEN_MEGABYTES = servers.envelope(message=" " * 10 * MEGABYTE)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PACKED = ["Content-Encoding: gzip"]


def refresh_with(answering: servers.Answering) -> tuple[TikTokBusinessError, int, float]:
    """Refresh an account; return its error, its peak memory, and the seconds it took."""
    account = make_account(access_token_expires_at=timezone.now() - timedelta(hours=1))
    with (
        servers.serving(answering) as server,
        override_tiktok(
            API_BASE_URL=server.base_url,
            SESSION_FACTORY_PATH=None,
            REQUEST_TIMEOUT_SECONDS=1,
            MAX_ATTEMPTS=1,
        ),
    ):
        tracemalloc.start()
        started = time.monotonic()
        try:
            with pytest.raises(TikTokBusinessError) as caught:
                services.refresh_account(account)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    account.refresh_from_db()
    assert account.status == account.Status.ACTIVE
    assert account.refresh_token == "rft.test-refresh-token"
    return caught.value, peak, time.monotonic() - started


@pytest.mark.parametrize(
    "answer",
    [
        servers.http(TEN_MEGABYTES),
        HEAD + b"\r\n" + TEN_MEGABYTES,
        servers.http(gzip.compress(b" " * 100 * MEGABYTE), headers=PACKED),
        servers.http(b"[" * 2 * (MEGABYTE - 1)),
        servers.http(b"[" + b"{}," * (2 * MEGABYTE // 3 - 2) + b"{}]"),
    ],
    ids=["10 MB", "without a length", "100 MB packed", "deep", "many objects"],
)
def test_large_answer_is_refused_in_bounded_memory(answer: bytes) -> None:
    error, peak, _ = refresh_with(servers.send_and_close(answer))
    assert isinstance(error, InvalidResponseError)
    assert peak < PEAK_BYTES


def test_answer_that_trickles_in_ends_in_time() -> None:
    dripping = servers.drip(HEAD + b"Content-Length: 100000\r\n\r\n{", b" ", 0.02)
    error, _, seconds = refresh_with(dripping)
    assert isinstance(error, ConnectionFailedError)
    assert seconds < 10  # twice the time-out; the rest is for a busy machine


@pytest.mark.parametrize("kind", ["text/html", "image/png", "text/plain; charset=undefined", ""])
def test_answer_of_a_wrong_type_is_read_all_the_same(kind: str) -> None:
    answer = servers.http(servers.envelope(40107), headers=[f"Content-Type: {kind}"])
    account = make_account(access_token_expires_at=None)
    with (
        servers.serving(servers.send(answer)) as server,
        override_tiktok(API_BASE_URL=server.base_url, SESSION_FACTORY_PATH=None),
        pytest.raises(TikTokBusinessError),
    ):
        services.refresh_account(account)
    account.refresh_from_db()
    assert account.status == account.Status.REAUTHORIZATION_REQUIRED
