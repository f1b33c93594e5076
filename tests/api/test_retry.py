"""How long a call may take, and how long the pause before its next try is."""

from __future__ import annotations

import pytest

from django_tiktok_business.api.retry import (
    LONGEST_PAUSE_SECONDS,
    NEVER,
    ON_ANSWER_OR_NOT_REACHED,
    READ,
    WRITE,
    backoff_seconds,
    longest_try_seconds,
    shortest_claim_seconds,
)
from django_tiktok_business.exceptions import (
    APIError,
    ConnectionFailedError,
    ConnectionNotMadeError,
    InvalidResponseError,
    RateLimitError,
    ServerError,
    TikTokBusinessError,
)


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (ConnectionNotMadeError("x"), [READ, WRITE, ON_ANSWER_OR_NOT_REACHED]),
        (RateLimitError("x"), [READ, WRITE, ON_ANSWER_OR_NOT_REACHED]),
        (ServerError("x"), [READ, ON_ANSWER_OR_NOT_REACHED]),
        (ConnectionFailedError("x"), [READ]),
        (InvalidResponseError("x"), [READ]),
        (APIError("x"), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_f54_calls_are_repeated_only_on_errors_that_are_safe_for_them(
    error: TikTokBusinessError, kinds: list[tuple[type[TikTokBusinessError], ...]]
) -> None:
    every = [READ, WRITE, ON_ANSWER_OR_NOT_REACHED, NEVER]
    assert [kind for kind in every if isinstance(error, kind)] == kinds


@pytest.mark.parametrize(
    ("attempt", "least", "most"), [(1, 0.25, 0.5), (2, 0.5, 1.0), (5, 4.0, 8.0), (6, 8.0, 10.0)]
)
def test_backoff_doubles_with_jitter(attempt: int, least: float, most: float) -> None:
    pauses = {backoff_seconds(attempt) for _ in range(50)}
    assert len(pauses) > 1
    assert least <= min(pauses)
    assert max(pauses) <= most


def test_backoff_has_a_bound_that_only_tiktok_exceeds() -> None:
    assert backoff_seconds(100) == LONGEST_PAUSE_SECONDS
    assert backoff_seconds(100, retry_after=11.0) == 11.0
    assert backoff_seconds(1, retry_after=4.0) == 4.0
    assert backoff_seconds(3, retry_after=0.5) >= 1.0


def test_claim_outlasts_all_tries_and_the_slowest_one() -> None:
    assert longest_try_seconds(20) == 80
    assert shortest_claim_seconds(timeout=20, max_attempts=10) == 10 * (20 + 10) + 5
    assert shortest_claim_seconds(timeout=20, max_attempts=1) == 10 + 80 + 5
