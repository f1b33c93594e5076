"""Count what the overview shows, with one query for any number of accounts."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from django_tiktok_business import cache as cache_module
from django_tiktok_business.conf import conf
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.health import (
    health_in_database,
    overdue_condition,
    warning_period,
)

if TYPE_CHECKING:
    from django_tiktok_business.models import BusinessAccountQuerySet


__all__ = ["KEPT_SECONDS", "MANY_ACCOUNTS", "Figures"]

# To count 100,000 accounts takes longer than all the rest of the page: where there are so many, the
# figures are kept for a moment, and the page says so. The list itself is always as it is.
MANY_ACCOUNTS = 10_000
KEPT_SECONDS = 15


@dataclass(frozen=True)
class Figures:
    """What the database knows about all accounts that the list may show."""

    counts: dict[str, int] = field(default_factory=dict)  # by `Health`
    overdue: int = 0
    next_expiry: datetime | None = None
    last_refresh: datetime | None = None
    next_consent_end: datetime | None = None
    calls_today: int = 0

    @classmethod
    def of(cls, accounts: BusinessAccountQuerySet) -> Figures:
        """Count, or take over what was counted a moment ago where the accounts are many."""
        key = _cache_key(accounts)
        kept = cache_module.cached(lambda cache: cache.get(key), otherwise=None)
        if isinstance(kept, dict):
            # Of another version of this package, or of who writes to the cache.
            with suppress(AttributeError, TypeError, ValueError):
                return cls.unpacked(kept)
        figures = cls.counted(accounts)
        if figures.kept_seconds:
            packed, seconds = figures.packed(), figures.kept_seconds
            cache_module.cached(lambda cache: cache.set(key, packed, seconds), otherwise=None)
        return figures

    def packed(self) -> dict[str, Any]:
        """In a form that every cache takes, also one that writes JSON."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def unpacked(cls, kept: dict[str, Any]) -> Figures:
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
            raise TypeError("Somebody else has written this.")
        return figures

    @classmethod
    def counted(cls, accounts: BusinessAccountQuerySet) -> Figures:
        """Ask the database: one pass over the accounts, which gives a row for each health.

        TikTok counts calls by days in UTC and tells nobody how many are left. A counter of our own
        would cost every call another way to the cache, which `ceiling` must not need, so what is
        told here is the least that can be read from the rows: each account that was refreshed or
        connected today was a call, and each profile that was synced.
        """
        query = accounts.query
        if query.annotations or query.distinct:  # of a project's own admin: they would be grouped
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

        def known(name: str) -> list[datetime]:
            return [group[name] for group in groups if group[name] is not None]

        return cls(
            counts={group["health"]: group["accounts"] for group in groups},
            overdue=sum(group["overdue"] for group in groups),
            next_expiry=min(known("next_expiry"), default=None),
            last_refresh=max(known("last_refresh"), default=None),
            next_consent_end=min(known("next_consent_end"), default=None),
            calls_today=sum(group["refreshed"] + group["synced"] for group in groups),
        )

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def kept_seconds(self) -> int:
        return KEPT_SECONDS if self.total >= MANY_ACCOUNTS else 0


def _cache_key(accounts: BusinessAccountQuerySet) -> str:
    """Another one for other accounts, such as those of a user alone, and for other keys."""
    try:
        asked = str(accounts.order_by().without_tokens().query)
    except EmptyResultSet:
        asked = ""
    database = connections[accounts.db].settings_dict["NAME"]
    of = f"{accounts.db} {database} {warning_period()} {conf.usable('APP_ID', fallback='')} {asked}"
    return f"tiktok_business:overview:1:{hashlib.sha256(of.encode()).hexdigest()}"
