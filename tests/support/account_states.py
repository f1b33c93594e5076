"""Accounts in every state that decides about health and due time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.utils import timezone

from django_tiktok_business.models import BusinessAccount

APP_ID = "7000000000000000001"
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
Status = BusinessAccount.Status


def unsaved(**values: Any) -> BusinessAccount:
    return BusinessAccount(**{"app_id": APP_ID, "open_id": "_000Open", **values})


def every_state() -> Iterator[BusinessAccount]:
    """One row for each combination of what decides about health and due time."""
    now = timezone.now()
    access_ends = [None, now - DAY, now + HOUR, now + DAY]
    consent_ends = [None, now - DAY, now + 10 * DAY, now + 300 * DAY]
    combinations = itertools.product(Status, access_ends, consent_ends, [0, 1, 9])
    for number, (status, access, consent, failures) in enumerate(combinations):
        yield unsaved(
            open_id=f"account {number}",
            status=status,
            access_token_expires_at=access,
            refresh_token_expires_at=consent,
            consecutive_failures=failures,
        )


def open_ids(accounts: Any) -> set[str]:
    return {account.open_id for account in accounts}
