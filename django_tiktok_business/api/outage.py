"""Tell an outage of TikTok from the trouble of one account."""

from __future__ import annotations

from django_tiktok_business.exceptions import ConnectionFailedError, ServerError

__all__ = ["Breaker", "is_outage"]


def is_outage(answer: object) -> bool:
    """Whether a call ended with a failure of TikTok itself, or of the way there."""
    return isinstance(answer, ConnectionFailedError | ServerError)


class Breaker:
    """A circuit breaker: open after ``threshold`` outages in a row.

    ``also``: further errors that count as outages.
    """

    def __init__(self, threshold: int, *, also: tuple[type[Exception], ...] = ()) -> None:
        self._threshold = threshold
        self._also = also
        self._outages = 0

    @property
    def is_open(self) -> bool:
        return self._outages >= self._threshold

    def record(self, answer: object) -> None:
        """Count what a call ended with: an outage, or anything else, which ends the row."""
        counts = is_outage(answer) or isinstance(answer, self._also)
        self._outages = self._outages + 1 if counts else 0
