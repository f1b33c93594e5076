"""Tell an outage of TikTok from a failure of one account."""

from __future__ import annotations

from django_tiktok_business.exceptions import ConnectionFailedError, ServerError


def is_outage(answer: object) -> bool:
    """Whether a call ended in a failure of TikTok's servers, or of the connection to them."""
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
        """Count an outage; anything else that a call ended in starts the count again."""
        counts = is_outage(answer) or isinstance(answer, self._also)
        self._outages = self._outages + 1 if counts else 0
