"""Walk through many rows in pages, with no cursor or transaction open between two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.db.models import Q

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import QuerySet

__all__ = ["Pages"]

Row = TypeVar("Row")


class Pages(Generic[Row]):
    """The rows of ``parts``, one queryset after the other, in pages of at most ``size`` rows.

    Keyset paging: each page continues behind the last row, however the rows have changed meanwhile.
    Each queryset is ordered by one or two ascending columns, of which the last is unique, and its
    rows have these as attributes.
    """

    def __init__(self, *parts: QuerySet[Any, Row], size: int) -> None:
        self._parts = parts
        self._size = size
        self._last: Row | None = None

    def next(self) -> list[Row]:
        """The next rows, [] when none are left. Can be repeated when the database fails."""
        while self._parts:
            rows = self._parts[0]
            if self._last is not None:
                rows = rows.filter(_behind(self._last, *map(str, rows.query.order_by)))
            page = list(rows[: self._size])
            if page:
                self._last = page[-1]
                return page
            self._parts = self._parts[1:]
            self._last = None
        return []

    def __iter__(self) -> Iterator[Row]:
        while page := self.next():
            yield from page


def _behind(last: Any, column: str, *tie_breaker: str) -> Q:
    value = getattr(last, column)
    behind = Q(**{f"{column}__gt": value})
    if not tie_breaker:
        return behind
    # The first condition adds nothing, but with it an index finds the place at once.
    return Q(**{f"{column}__gte": value}) & (behind | _behind(last, *tie_breaker))
