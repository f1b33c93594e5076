"""How long a call may take, how often it is tried, and how long to wait between two tries."""

from __future__ import annotations

import random

from django_tiktok_business.exceptions import (
    ConnectionNotMadeError,
    RateLimitError,
    RetryableError,
    ServerError,
)

__all__ = [
    "LONGEST_PAUSE_SECONDS",
    "NEVER",
    "ON_ANSWER_OR_NOT_REACHED",
    "READ",
    "SECONDS_TO_SAVE",
    "WRITE",
    "backoff_seconds",
    "longest_try_seconds",
    "shortest_claim_seconds",
]

# What a call is repeated on, by what TikTok may have done with it.
READ = (RetryableError,)  # it changes nothing
WRITE = (ConnectionNotMadeError, RateLimitError)  # TikTok cannot have acted on it
ON_ANSWER_OR_NOT_REACHED = (*WRITE, ServerError)
NEVER = ()

BACKOFF_SECONDS = 0.25  # least pause before the second try; doubles with each, plus jitter
LONGEST_PAUSE_SECONDS = 10.0  # before a try; who would have to wait longer comes back later
SECONDS_TO_SAVE = 5.0  # what is left of a claim for saving the answer, at least


def longest_try_seconds(timeout: float) -> float:
    """How long one request may take: to connect, to wait for an answer, and to read its body.

    Each within ``timeout``, and the body within twice that should it trickle in.
    """
    return 4 * timeout


def shortest_claim_seconds(*, timeout: float, max_attempts: int) -> float:
    """What a claim has to last, so that no refresh outlives it: tries, pauses and the saving.

    Room for all the tries, or for a single one whose answer trickles in; a try after which the two
    could add up is not begun (see `OAuth.refresh`).
    """
    with_all_tries = max_attempts * (timeout + LONGEST_PAUSE_SECONDS)
    with_the_longest_try = LONGEST_PAUSE_SECONDS + longest_try_seconds(timeout)
    return max(with_all_tries, with_the_longest_try) + SECONDS_TO_SAVE


def backoff_seconds(attempt: int, retry_after: float | None = None) -> float:
    """Seconds to wait before the next try; ``retry_after`` is what TikTok asks for."""
    # Jitter, so that workers that failed together do not come back together.
    backoff: float = BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(1, 2)  # noqa: S311 -- no secret
    return max(min(backoff, LONGEST_PAUSE_SECONDS), retry_after or 0.0)
