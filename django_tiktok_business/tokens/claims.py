"""Claim an account's row, so that only one worker at a time renews its tokens.

A claim is one conditional UPDATE that writes a random id and an expiry. The rows of a worker that
dies become free when the claim expires. The database's clock decides, so the clocks of the machines
do not matter.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q, Value

from django_tiktok_business.api.retry import (
    LONGEST_PAUSE_SECONDS,
    SECONDS_TO_SAVE,
    longest_try_seconds,
)
from django_tiktok_business.conf import conf
from django_tiktok_business.db.clock import DatabaseNow
from django_tiktok_business.db.vendors import lock_errors_as_busy
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.columns import NO_CLAIM

from .rows import store_update

TAKEN_OVER = "taken-over-"  # prefix of a claim id: the former holder let its claim expire


def claim(
    pks: Collection[int],
    using: str,
    *,
    claim_id: str | None = None,
    condition: Q | None = None,
) -> list[BusinessAccount]:
    """Claim those of the rows that are free and meet ``condition``; return them, freshly read.

    Leaves out the rows that another worker holds and those that are disconnected. Raises
    `AccountBusyError` when a transaction has locked one of the rows. After that, or after a lost
    connection, some of the rows may be claimed: repeat the call with the same ``claim_id``.
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
            expired = rows.filter(claim_expires_at__lte=DatabaseNow())
            expired.update(claim_id=taken_over_id, claim_expires_at=expiry)
    return list(
        BusinessAccount.objects.using(using).filter(
            pk__in=pks, claim_id__in=(claim_id, taken_over_id)
        )
    )


def release(account: BusinessAccount, using: str, **changes: Any) -> None:
    """Give the claim back and make the changes, if the claim is still ours."""
    row = BusinessAccount.objects.using(using).filter(pk=account.pk, claim_id=account.claim_id)
    store_update(lambda: row.update(**changes, **NO_CLAIM), using)


def claim_is_free() -> Q:
    return Q(claim_expires_at__isnull=True) | Q(claim_expires_at__lte=DatabaseNow())


def new_claim_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class ClaimTimes:
    """When calls under a claim have to begin and end, so that none outlives the claim.

    Both are on the monotonic clock.
    """

    begin_by: float
    end_by: float

    @classmethod
    def now(cls) -> ClaimTimes:
        """The times of a claim that is about to be made."""
        made_at = time.monotonic()
        end_by = made_at + conf.CLAIM_SECONDS - SECONDS_TO_SAVE
        longest = LONGEST_PAUSE_SECONDS + longest_try_seconds(conf.REQUEST_TIMEOUT_SECONDS)
        # A call that begins at once always ends in time: the checks refuse shorter claims.
        return cls(max(end_by - longest, made_at + 1), end_by)
