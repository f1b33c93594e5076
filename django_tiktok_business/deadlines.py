"""How long a call to TikTok may take at most, and so how long a claim has to last."""

from __future__ import annotations

__all__ = [
    "LONGEST_PAUSE_SECONDS",
    "SECONDS_TO_SAVE",
    "longest_try_seconds",
    "shortest_claim_seconds",
]

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
    could add up is not begun (see `TikTokClient.refresh`).
    """
    with_all_tries = max_attempts * (timeout + LONGEST_PAUSE_SECONDS)
    with_the_longest_try = LONGEST_PAUSE_SECONDS + longest_try_seconds(timeout)
    return max(with_all_tries, with_the_longest_try) + SECONDS_TO_SAVE
