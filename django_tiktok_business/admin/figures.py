"""Count what the overview shows, in one query for any number of accounts."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from django_tiktok_business import cache
from django_tiktok_business.conf import conf
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet
from django_tiktok_business.models.health import (
    health_in_database,
    overdue_condition,
    warning_period,
)

# Counting 100,000 accounts takes longer than the rest of the page. From this many accounts on, the
# figures are cached for a moment, and the page says so. The list itself is never cached.
MANY_ACCOUNTS = 10_000
KEPT_SECONDS = 15


@dataclass(frozen=True)
class Figures:
    """Totals over all accounts that the list may show."""

    counts: dict[str, int] = field(default_factory=dict)  # by `Health`
    overdue: int = 0
    next_expiry: datetime | None = None
    last_refresh: datetime | None = None
    next_consent_end: datetime | None = None
    calls_today: int = 0

    @classmethod
    def cached(cls, accounts: BusinessAccountQuerySet) -> Figures:
        """Count the accounts, or return a recent count where there are many accounts."""
        key = _cache_key(accounts)
        kept = cache.cached(lambda store: store.get(key), otherwise=None)
        if isinstance(kept, dict):
            # Another version of this package may have written it, or anybody else with the cache.
            with suppress(AttributeError, TypeError, ValueError):
                return cls.from_json(kept)
        figures = cls.count(accounts)
        if figures.kept_seconds:
            values, seconds = figures.as_json(), figures.kept_seconds
            cache.cached(lambda store: store.set(key, values, seconds), otherwise=None)
        return figures

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON values, which every cache can store."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Figures:
        """The figures that `as_json` returned; raises an error for any other value."""
        values: dict[str, Any] = {
            name: datetime.fromisoformat(value) if isinstance(value, str) else value
            for name, value in kept.items()
        }
        figures = cls(**values)
        numbers = (*figures.counts.values(), figures.overdue, figures.calls_today)
        instants: tuple[Any, ...] = (
            figures.next_expiry,
            figures.last_refresh,
            figures.next_consent_end,
        )
        if not all(type(number) is int for number in numbers) or not all(
            instant is None or (isinstance(instant, datetime) and instant.tzinfo)
            for instant in instants
        ):
            raise TypeError("The cached value has other types than as_json() returns.")
        return figures

    @classmethod
    def count(cls, accounts: BusinessAccountQuerySet) -> Figures:
        """Count in the database: one pass over the accounts, with a result row for each health.

        TikTok counts calls by UTC day and does not report how many are left. A counter of our own
        would add a cache access to every call, which the rate limiter must not depend on. So
        ``calls_today`` is a lower bound from the rows: one call for each account refreshed or
        connected today and one for each profile synced.
        """
        query = accounts.query
        # A project's admin may have added these; they would change the groups.
        if query.annotations or query.distinct:
            rows = BusinessAccount.objects.using(accounts.db)
            accounts = rows.filter(pk__in=accounts.order_by().values("pk"))
        now = timezone.now()
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        app_id = conf.usable("APP_ID", fallback="")
        active = Q(status=BusinessAccount.Status.ACTIVE)
        groups: list[Any] = list(
            accounts.order_by()
            .values(health=health_in_database())
            .annotate(
                accounts=Count("pk"),
                overdue=Count("pk", filter=overdue_condition(app_id)),
                next_expiry=Min(
                    "access_token_expires_at",
                    filter=active & Q(access_token_expires_at__gt=now, app_id=app_id),
                ),
                last_refresh=Max("last_refreshed_at"),
                next_consent_end=Min(
                    "refresh_token_expires_at", filter=active & Q(refresh_token_expires_at__gt=now)
                ),
                refreshed=Count("pk", filter=Q(last_refreshed_at__gte=midnight)),
                synced=Count("pk", filter=Q(profile_synced_at__gte=midnight)),
            )
        )

        def instants(name: str) -> list[datetime]:
            return [group[name] for group in groups if group[name] is not None]

        return cls(
            counts={group["health"]: group["accounts"] for group in groups},
            overdue=sum(group["overdue"] for group in groups),
            next_expiry=min(instants("next_expiry"), default=None),
            last_refresh=max(instants("last_refresh"), default=None),
            next_consent_end=min(instants("next_consent_end"), default=None),
            calls_today=sum(group["refreshed"] + group["synced"] for group in groups),
        )

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def kept_seconds(self) -> int:
        return KEPT_SECONDS if self.total >= MANY_ACCOUNTS else 0


def _cache_key(accounts: BusinessAccountQuerySet) -> str:
    """A key of its own for each selection of accounts, database and relevant setting."""
    try:
        sql = str(accounts.order_by().without_tokens().query)
    except EmptyResultSet:
        sql = ""
    database = connections[accounts.db].settings_dict["NAME"]
    app_id = conf.usable("APP_ID", fallback="")
    parts = f"{accounts.db} {database} {warning_period()} {app_id} {sql}"
    return f"tiktok_business:overview:1:{hashlib.sha256(parts.encode()).hexdigest()}"
