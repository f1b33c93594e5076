"""What counts as an outage of TikTok, and when the circuit breaker opens."""

from __future__ import annotations

import pytest

from django_tiktok_business.api.outage import Breaker, is_outage
from django_tiktok_business.exceptions import (
    APIError,
    ConnectionFailedError,
    ConnectionNotMadeError,
    InvalidResponseError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)

OUTAGE = ServerError("TikTok's server failed.")


@pytest.mark.parametrize(
    "answer", [OUTAGE, ConnectionFailedError("x"), ConnectionNotMadeError("x")], ids=repr
)
def test_failures_of_servers_and_connections_are_outages(answer: object) -> None:
    assert is_outage(answer)


@pytest.mark.parametrize(
    "answer",
    [None, {}, APIError("x"), RateLimitError("x"), InvalidResponseError("x"), TimeoutError("x")],
    ids=repr,
)
def test_other_answers_and_errors_are_no_outages(answer: object) -> None:
    assert not is_outage(answer)


def test_breaker_opens_at_the_threshold() -> None:
    breaker = Breaker(3)
    states = []
    for _ in range(4):
        states.append(breaker.is_open)
        breaker.record(OUTAGE)
    assert states == [False, False, False, True]


@pytest.mark.parametrize("answer", [None, PermissionDeniedError("x"), RateLimitError("x")])
def test_anything_else_starts_the_count_again(answer: object) -> None:
    breaker = Breaker(2)
    for each in (OUTAGE, answer, OUTAGE):
        breaker.record(each)
        assert not breaker.is_open
    breaker.record(OUTAGE)
    assert breaker.is_open


def test_breaker_counts_further_errors_on_request() -> None:
    breaker = Breaker(2, also=(RateLimitError,))
    breaker.record(RateLimitError("x"))
    breaker.record(OUTAGE)
    assert breaker.is_open
