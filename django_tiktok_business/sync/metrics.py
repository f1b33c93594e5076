"""Fetch an account's daily metrics and audience from TikTok once a day, and store them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, timedelta
from typing import Any

from django.db import connections
from django.utils import timezone

from django_tiktok_business.api.client import Caller
from django_tiktok_business.api.profile import METRIC_FIELDS, AccountMetrics, BusinessProfile
from django_tiktok_business.exceptions import PermissionDeniedError
from django_tiktok_business.models import BusinessAccount, DailyMetrics

SCOPE = "user.insights"
LOOK_BACK_DAYS = 60  # the most that TikTok allows

# TikTok changes a day's metrics for up to 48 hours after it ends, so fetch the last days again.
UNSETTLED_DAYS = 3


def is_due(account: BusinessAccount) -> bool:
    """Whether the metrics are granted and have not been fetched today (in UTC)."""
    synced_at = account.metrics_synced_at
    return SCOPE in account.granted_scopes and (synced_at is None or _day(synced_at) < _today())


def fetch(account: BusinessAccount, caller: Caller) -> AccountMetrics:
    """Fetch the days that are not final yet. Does not touch the database.

    Returns no metrics when TikTok refuses: Analytics are turned off in the account holder's app, or
    the account is new (observed, see PermissionDeniedError). Tomorrow is soon enough to try again.
    """
    last_day = _today() - timedelta(days=1)
    first_day = _today() - timedelta(days=LOOK_BACK_DAYS)
    if account.metrics_synced_at is not None:
        first_unsettled = _day(account.metrics_synced_at) - timedelta(days=1 + UNSETTLED_DAYS)
        first_day = max(first_day, first_unsettled)
    fields = [name for name, scope in METRIC_FIELDS.items() if scope in account.granted_scopes]
    try:
        return BusinessProfile(caller, account.open_id).metrics(fields, first_day, last_day)
    except PermissionDeniedError:
        return AccountMetrics(days={}, audience={})


def store(account: BusinessAccount, metrics: AccountMetrics, using: str) -> None:
    """Store what `fetch` returned; what TikTok left out does not overwrite stored values."""
    store_days(account, metrics.days, using)
    changes: dict[str, Any] = {"metrics_synced_at": timezone.now()}
    if metrics.audience:
        known = account.audience if isinstance(account.audience, dict) else {}
        changes["audience"] = {**known, **metrics.audience}
    BusinessAccount.objects.using(using).filter(pk=account.pk).update(**changes)
    account.set_stored(**changes)


def store_days(
    account: BusinessAccount, days: Mapping[date, Mapping[str, Any]], using: str
) -> None:
    """Insert or update the rows of these days, with the given columns only."""
    by_columns: dict[frozenset[str], list[DailyMetrics]] = defaultdict(list)
    for day, metrics in days.items():
        row = DailyMetrics(account_id=account.pk, date=day, **metrics)
        by_columns[frozenset(metrics)].append(row)
    has_target = connections[using].features.supports_update_conflicts_with_target
    for columns, rows in by_columns.items():
        DailyMetrics.objects.using(using).bulk_create(
            rows,
            update_conflicts=True,
            update_fields=sorted(columns),
            unique_fields=["account", "date"] if has_target else None,
        )


def _today() -> date:
    return _day(timezone.now())


def _day(instant: Any) -> date:
    """The day in UTC, as TikTok counts days; a naive time is in the project's time zone."""
    aware = instant if timezone.is_aware(instant) else timezone.make_aware(instant)
    day: date = aware.astimezone(UTC).date()
    return day
