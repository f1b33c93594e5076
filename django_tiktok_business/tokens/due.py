"""Find the accounts that are due: the most urgent first, page by page, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from django_tiktok_business.db import clock
from django_tiktok_business.db.pages import Pages
from django_tiktok_business.models import BusinessAccountQuerySet

LONGEST_RUN = timedelta(days=1)  # the lifetime of an access token
PAGE_ROWS = 256  # only primary keys and open ids: a claim reads the whole row
_UNKNOWN = Q(access_token_expires_at__isnull=True)
_REJECTED = Q(rejected_at__isnull=False)


@dataclass(frozen=True)
class Due:
    """The accounts of ``chosen`` that one run has to refresh.

    Those whose access tokens expire ``within`` that time from now, or at an unknown time, those
    that TikTok has rejected once, and of all these only those that have not been refreshed since
    the run began: no account comes twice, however long ``within``.
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
        """What makes a row due, by its own columns; a claim checks it again."""
        return (_UNKNOWN | self._soon | _REJECTED) & self._may_be_tried

    @property
    def _soon(self) -> Q:
        return Q(access_token_expires_at__lte=self.began_at + self.within)

    @property
    def _only_rejected(self) -> Q:
        return _REJECTED & Q(access_token_expires_at__gt=self.began_at + self.within)

    @property
    def _may_be_tried(self) -> Q:
        active = Q(status="active")
        untouched = (
            Q(last_refreshed_at__isnull=True)
            | Q(last_refreshed_at__lt=self.began_at)
            # In the future: written by a clock that was wrong.
            | Q(last_refreshed_at__gt=self.began_at + LONGEST_RUN)
        )
        waited = Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=self.began_at)
        return active & untouched if self.ignores_backoff else active & untouched & waited

    def backing_off(self) -> int:
        """The number of due accounts whose next attempt, after temporary failures, is to come."""
        if self.ignores_backoff:
            return 0
        later = self.chosen.filter(next_attempt_at__gt=self.began_at)
        rejected = later.active().filter(self._only_rejected)
        return later.due_for_refresh(self.within).count() + rejected.count()

    def pages(self) -> Pages[Any]:
        """The due rows, the most urgent first: ``pk``, ``open_id`` and what they are ordered by."""
        rows = self.chosen.filter(self._may_be_tried)
        unknown = rows.filter(_UNKNOWN).order_by("pk")
        # Queries of their own: databases would not use the indexes for "unknown or soon".
        known = rows.filter(self._soon).order_by("access_token_expires_at", "pk")
        rejected = rows.filter(self._only_rejected).order_by("rejected_at", "pk")
        columns = ("pk", "open_id", "access_token_expires_at", "rejected_at")
        parts = (part.values_list(*columns, named=True) for part in (unknown, known, rejected))
        return Pages(*parts, size=PAGE_ROWS)
