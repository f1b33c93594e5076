"""Claim an account's row, so that one worker at a time renews its tokens.

A claim is one conditional UPDATE that writes a random id and an expiry. A worker that dies frees
its rows by time. The database's clock decides, so the clocks of the machines do not matter.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Q, Value

from django_tiktok_business.api.retry import (
    LONGEST_PAUSE_SECONDS,
    SECONDS_TO_SAVE,
    longest_try_seconds,
)
from django_tiktok_business.conf import conf
from django_tiktok_business.db.clock import DatabaseNow
from django_tiktok_business.db.vendors import lock_errors_as_busy, lock_timeout
from django_tiktok_business.db.writes import retry_while_unavailable, store_answer
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.columns import NO_CLAIM

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


__all__ = [
    "TAKEN_OVER",
    "ClaimTimes",
    "claim",
    "claim_is_free",
    "new_claim_id",
    "release",
    "reload",
    "store_update",
]

TAKEN_OVER = "taken-over-"  # how the id of a claim begins that was somebody else's until it expired


def store_update(update: Callable[[], int], using: str) -> int:
    def write() -> int:
        with lock_timeout(using):  # others' answers wait behind this one
            return update()

    return store_answer(write, using)


def release(account: BusinessAccount, using: str, **changes: Any) -> None:
    """Give the claim back, if it is still ours."""
    row = BusinessAccount.objects.using(using).filter(pk=account.pk, claim_id=account.claim_id)
    store_update(lambda: row.update(**changes, **NO_CLAIM), using)


def reload(account: BusinessAccount, using: str) -> bool:
    """Bring the instance up to date; False when the row was deleted meanwhile."""
    try:
        retry_while_unavailable(lambda: account.refresh_from_db(using=using), using)
    except BusinessAccount.DoesNotExist:
        return False
    return True


def claim_is_free() -> Q:
    return Q(claim_expires_at__isnull=True) | Q(claim_expires_at__lte=DatabaseNow())


def new_claim_id() -> str:
    return uuid.uuid4().hex


def claim(
    pks: Collection[int],
    using: str,
    *,
    claim_id: str | None = None,
    condition: Q | None = None,
) -> list[BusinessAccount]:
    """Claim those of the rows that are free (and meet ``condition``), and read them afresh.

    Left out is what another worker holds, and what is disconnected. Raises `AccountBusyError` when
    a transaction has locked one of the rows. Then, and when the connection broke, some may be
    claimed all the same: to be repeated with the same ``claim_id``.
    """
    claim_id = claim_id or new_claim_id()
    taken_over_id = f"{TAKEN_OVER}{claim_id[len(TAKEN_OVER) :]}"
    expiry = DatabaseNow() + Value(timedelta(seconds=conf.CLAIM_SECONDS))
    rows = BusinessAccount.objects.using(using).filter(
        condition or Q(), pk__in=pks, app_id=conf.APP_ID
    )
    rows = rows.exclude(status=BusinessAccount.Status.REVOKED)
    with lock_errors_as_busy(using):
        unclaimed = rows.filter(claim_expires_at__isnull=True)
        claimed = unclaimed.update(claim_id=claim_id, claim_expires_at=expiry)
        if claimed < len(pks):
            abandoned = rows.filter(claim_expires_at__lte=DatabaseNow())
            abandoned.update(claim_id=taken_over_id, claim_expires_at=expiry)
    return list(
        BusinessAccount.objects.using(using).filter(
            pk__in=pks, claim_id__in=(claim_id, taken_over_id)
        )
    )


@dataclass(frozen=True)
class ClaimTimes:
    """When calls under a claim may be made, on the monotonic clock, so that none outlives it."""

    begin_by: float
    end_by: float

    @classmethod
    def now(cls) -> ClaimTimes:
        """Of a claim that is about to be made."""
        made_at = time.monotonic()
        end_by = made_at + conf.CLAIM_SECONDS - SECONDS_TO_SAVE
        longest = LONGEST_PAUSE_SECONDS + longest_try_seconds(conf.REQUEST_TIMEOUT_SECONDS)
        # At once is always soon enough: a claim for which it is not is refused by the checks.
        return cls(max(end_by - longest, made_at + 1), end_by)
