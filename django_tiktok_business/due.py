"""Which accounts are due, page by page and the most urgent first, in a flat amount of memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Q

from . import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from .models import BusinessAccountQuerySet

__all__ = ["Due", "Pages"]

LONGEST_RUN = timedelta(days=1)  # which is as long as an access token lives
PAGE_ROWS = 256  # primary keys and open ids only: what is claimed is read afresh


_UNKNOWN = Q(access_token_expires_at__isnull=True)


@dataclass(frozen=True)
class Due:
    """The accounts of ``chosen`` that one run shall refresh.

    Those whose access tokens end ``within`` that time from now, or at an unknown time, and that
    have not been refreshed since: however long ``within`` is, no account comes twice.
    """

    chosen: BusinessAccountQuerySet
    within: timedelta
    ignores_backoff: bool
    began_at: datetime

    @classmethod
    def now(
        cls, chosen: BusinessAccountQuerySet, within: timedelta, *, ignores_backoff: bool = False
    ) -> Due:
        clock.synchronize(chosen.db)
        return cls(chosen, within, ignores_backoff, clock.instant())

    @property
    def condition(self) -> Q:
        """What makes a row due, by its own columns: to be asked again while it is claimed."""
        return (_UNKNOWN | self._soon) & self._may_be_tried

    @property
    def _soon(self) -> Q:
        return Q(access_token_expires_at__lte=self.began_at + self.within)

    @property
    def _may_be_tried(self) -> Q:
        active = Q(status="active")
        untouched = (
            Q(last_refreshed_at__isnull=True)
            | Q(last_refreshed_at__lt=self.began_at)
            # Written by a clock that was wrong: nobody has refreshed it in the future.
            | Q(last_refreshed_at__gt=self.began_at + LONGEST_RUN)
        )
        waited = Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=self.began_at)
        return active & untouched if self.ignores_backoff else active & untouched & waited

    def backing_off(self) -> int:
        """How many are due and left alone, because they kept failing for passing reasons."""
        if self.ignores_backoff:
            return 0
        later = self.chosen.filter(next_attempt_at__gt=self.began_at)
        return later.due_for_refresh(self.within).count()

    def pages(self) -> Pages:
        rows = self.chosen.filter(self._may_be_tried)
        unknown = rows.filter(_UNKNOWN).order_by("pk")
        # Apart: "unknown or soon" in one condition would keep the index from being used.
        known = rows.filter(self._soon).order_by("access_token_expires_at", "pk")

        def after_unknown(last: tuple[Any, ...]) -> Q:
            return Q(pk__gt=last[0])

        def after_known(last: tuple[Any, ...]) -> Q:
            # The first condition alone would do nothing; with it an index finds the place at once.
            pk, _, expires_at = last
            return Q(access_token_expires_at__gte=expires_at) & (
                Q(access_token_expires_at__gt=expires_at) | Q(pk__gt=pk)
            )

        return Pages([(unknown, after_unknown), (known, after_known)])


class Pages:
    """(pk, open id) in pages; each continues behind the last row, however the rows have changed."""

    def __init__(
        self, parts: list[tuple[BusinessAccountQuerySet, Callable[[tuple[Any, ...]], Q]]]
    ) -> None:
        self._parts = parts
        self._last: tuple[Any, ...] | None = None

    def next(self) -> list[tuple[int, str]]:
        """The next rows, [] when there are none left. Can be repeated when the database fails."""
        while self._parts:
            rows, after = self._parts[0]
            if self._last is not None:
                rows = rows.filter(after(self._last))
            page = list(rows.values_list("pk", "open_id", "access_token_expires_at")[:PAGE_ROWS])
            if page:
                self._last = page[-1]
                return [(pk, open_id) for pk, open_id, _ in page]
            self._parts = self._parts[1:]
            self._last = None
        return []
