"""Read many rows in pages, without a cursor or transaction that stays open between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from django.db.models import Q, QuerySet

Row = TypeVar("Row")


class Pages(Generic[Row]):
    """The rows of some querysets, one queryset after the other, in pages of at most ``size`` rows.

    Keyset paging: each page continues behind the last row that was read, however rows have changed
    since. Each queryset has to be ordered by one or two ascending columns, the last one unique, and
    its rows need these columns as attributes.
    """

    def __init__(self, *querysets: QuerySet[Any, Row], size: int) -> None:
        self._querysets = querysets
        self._size = size
        self._last: Row | None = None

    def next(self) -> list[Row]:
        """The next rows, [] when none are left. After a database error, call it again."""
        while self._querysets:
            rows = self._querysets[0]
            if self._last is not None:
                rows = rows.filter(_behind(self._last, *map(str, rows.query.order_by)))
            page = list(rows[: self._size])
            if page:
                self._last = page[-1]
                return page
            self._querysets = self._querysets[1:]
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
    # The first condition is redundant, but lets an index find the place at once.
    return Q(**{f"{column}__gte": value}) & (behind | _behind(last, *tie_breaker))
