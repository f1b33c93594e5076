"""Decide what a call is repeated on, how long to pause before it, and how long it may take."""

from __future__ import annotations

import random

from django_tiktok_business.exceptions import (
    ConnectionNotMadeError,
    RateLimitError,
    RetryableError,
    ServerError,
)

# The errors that a call is repeated on.
READ = (RetryableError,)  # repeating it changes nothing
WRITE = (ConnectionNotMadeError, RateLimitError)  # TikTok cannot have acted on it
ON_ANSWER_OR_NOT_REACHED = (*WRITE, ServerError)
NEVER = ()

BACKOFF_SECONDS = 0.25  # shortest pause before the second try; doubles with each, plus jitter
LONGEST_PAUSE_SECONDS = 10.0  # before a try; a call that would have to wait longer fails
SECONDS_TO_SAVE = 5.0  # reserved at the end of a claim for saving the answer


def longest_try_seconds(timeout: float) -> float:
    """How long one request may take: to connect, to wait for an answer, and to read its body.

    Each takes at most ``timeout``; a body that trickles in takes at most twice that.
    """
    return 4 * timeout


def shortest_claim_seconds(*, timeout: float, max_attempts: int) -> float:
    """How long a claim must last so that no refresh outlives it: tries, pauses and saving.

    That is room for all the tries, or for a single one whose answer trickles in. A try does not
    begin when the two could add up (see `OAuth.refresh`).
    """
    with_all_tries = max_attempts * (timeout + LONGEST_PAUSE_SECONDS)
    with_the_longest_try = LONGEST_PAUSE_SECONDS + longest_try_seconds(timeout)
    return max(with_all_tries, with_the_longest_try) + SECONDS_TO_SAVE


def backoff_seconds(attempt: int, retry_after: float | None = None) -> float:
    """Seconds to wait before the next try; ``retry_after``: what TikTok asks for, in seconds."""
    # With jitter, so that workers that failed together do not come back together.
    backoff: float = BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(1, 2)  # noqa: S311 -- no secret
    return max(min(backoff, LONGEST_PAUSE_SECONDS), retry_after or 0.0)
