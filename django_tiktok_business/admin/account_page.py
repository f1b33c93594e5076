"""What the admin's page of one account shows beside its form.

It only reads, with two queries: the daily metrics in the charts, and the newest events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeGuard

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tiktok_business import scopes
from django_tiktok_business.conf import conf
from django_tiktok_business.models import BusinessAccount, ConnectionEvent, DailyMetrics
from django_tiktok_business.models.health import warning_period
from django_tiktok_business.presentation import format_count, time_in_full

from .charts import draw_bar, draw_columns, draw_line

CHART_DAYS = 60
EVENTS_SHOWN = 20
COUNTRIES_SHOWN = 8

# Changes are since a week ago, or since the latest day before that with a value.
WEEK_DAYS, LONGEST_WEEK_DAYS = 7, 14
_CHARTS = (
    ("followers_count", gettext_lazy("Followers")),
    ("video_views", gettext_lazy("Video views")),
    ("profile_views", gettext_lazy("Profile views")),
    ("likes", gettext_lazy("Likes")),
    ("comments", gettext_lazy("Comments")),
    ("shares", gettext_lazy("Shares")),
)
_NUMBERS = (
    ("followers_count", gettext_lazy("followers")),
    ("following_count", gettext_lazy("following")),
    ("likes_count", gettext_lazy("likes")),
    ("videos_count", gettext_lazy("videos")),
)
_GENDERS = {
    "Female": gettext_lazy("Female"),
    "Male": gettext_lazy("Male"),
    "Other": gettext_lazy("Other"),
}


@dataclass(frozen=True)
class Number:
    """A total of the account and its change within a week, "" when that is unknown."""

    name: str
    label: str
    value: str
    change: str
    is_more: bool


@dataclass(frozen=True)
class Chart:
    """A chart as SVG, and the captions beside it."""

    title: str
    picture: SafeString
    latest: str
    extent: str
    first_day: str
    last_day: str


@dataclass(frozen=True)
class AudienceShare:
    """A group of the audience, whose name is untrusted, and its share."""

    name: str
    percentage: str
    bar: SafeString


@dataclass(frozen=True)
class TokenLifetime:
    """How much of a token's lifetime is left, as a bar and in words."""

    title: str
    bar: str  # "" when the length is unknown
    words: str


@dataclass(frozen=True)
class Permission:
    scope: str
    meaning: str
    is_granted: bool


class AccountPage:
    """What the page shows of ``account``; each panel is computed when the template asks for it."""

    def __init__(self, account: BusinessAccount) -> None:
        self.account = account
        self._today = datetime.now(UTC).date()
        first_day = self._today - timedelta(days=CHART_DAYS)
        self._days: dict[date, DailyMetrics] = {
            row.date: row for row in account.daily_metrics.filter(date__gte=first_day)
        }

    # Numbers

    def numbers(self) -> list[Number]:
        return [self._number(name, str(label)) for name, label in _NUMBERS]

    def _number(self, name: str, label: str) -> Number:
        value = getattr(self.account, name)
        before = self._a_week_ago(name)
        if value is None or before is None:
            return Number(name, label, format_count(value), "", is_more=False)
        sign = (
            "+" if value > before else "\N{MINUS SIGN}" if value < before else "\N{PLUS-MINUS SIGN}"
        )
        change = f"{sign}{format_count(abs(value - before))}"
        return Number(name, label, format_count(value), change, is_more=value > before)

    def _a_week_ago(self, name: str) -> int | None:
        for days in range(WEEK_DAYS, LONGEST_WEEK_DAYS + 1):
            row = self._days.get(self._today - timedelta(days=days))
            value: int | None = getattr(row, name, None)
            if value is not None:
                return value
        return None

    # Daily metrics

    def charts(self) -> list[Chart]:
        """A chart for each metric with at least one value."""
        charts = []
        for name, title in _CHARTS:
            points = [(day, getattr(self._days.get(day), name, None)) for day in self._span()]
            known = [value for _day, value in points if value is not None]
            if known:
                extent = f"{format_count(min(known))} \N{EN DASH} {format_count(max(known))}"
                days = [date_format(day, "SHORT_DATE_FORMAT") for day, _value in points]
                picture = draw_line(f"tiktok-{name}", title, points, format_count)
                chart = Chart(
                    str(title), picture, format_count(known[-1]), extent, days[0], days[-1]
                )
                charts.append(chart)
        return charts

    def _span(self) -> list[date]:
        """The days up to yesterday, from the first that has a row."""
        past = [day for day in self._days if day < self._today]
        count = (self._today - min(past)).days if past else 0
        return [self._today - timedelta(days=days) for days in range(count, 0, -1)]

    def table(self) -> tuple[list[str], list[tuple[str, list[str]]]]:
        """The charts as a table: headings, then date and values of each day, newest first."""
        rows = [
            (
                date_format(day, "SHORT_DATE_FORMAT"),
                [
                    format_count(getattr(self._days.get(day), name, None))
                    for name, _title in _CHARTS
                ],
            )
            for day in reversed(self._span())
        ]
        return [str(title) for _name, title in _CHARTS], rows

    # Audience

    def audience(self) -> list[tuple[str, list[AudienceShare]]]:
        groups = (
            ("countries", _("By country"), COUNTRIES_SHOWN),
            ("genders", _("By gender"), None),
            ("ages", _("By age"), None),
        )
        audience = self.account.audience if isinstance(self.account.audience, dict) else {}
        titled = [
            (title, _audience_shares(audience.get(name), most)) for name, title, most in groups
        ]
        return [(title, shares) for title, shares in titled if shares]

    def hours(self) -> SafeString | None:
        """When the audience is active, from the newest day with such data."""
        for day in sorted(self._days, reverse=True):
            counts = self._days[day].audience_activity
            if _are_counts(counts):
                title = _("Active followers by hour (UTC)")
                return draw_columns("tiktok-hours", title, counts, format_count)
        return None

    # Token lifetimes

    def lives(self) -> list[TokenLifetime]:
        account = self.account
        if account.status == account.Status.REVOKED:
            return []
        return [
            _token_lifetime(
                _("Access token"),
                account.last_refreshed_at,
                account.access_token_expires_at,
                timedelta(seconds=conf.usable("REFRESH_WITHIN_SECONDS")),
            ),
            _token_lifetime(
                _("Consent, for a year"),
                account.connected_at,
                account.refresh_token_expires_at,
                warning_period(),
            ),
        ]

    def next_refresh(self) -> str:
        account = self.account
        if account.status != account.Status.ACTIVE or account.is_of_another_app:
            return _("none planned")
        expires_at = account.access_token_expires_at
        within = timedelta(seconds=conf.usable("REFRESH_WITHIN_SECONDS"))
        attempt_at = account.next_attempt_at
        if attempt_at is not None and attempt_at > timezone.now():
            return format_html(
                _("{} at the earliest, because it keeps failing"), time_in_full(attempt_at)
            )
        is_rejected = account.rejected_at is not None
        if expires_at is None or is_rejected or expires_at <= timezone.now() + within:
            return _("with the next run of “manage.py refresh_tokens”")
        return time_in_full(expires_at - within)

    # Permissions

    def permissions(self) -> list[Permission]:
        granted, missing = self.account.granted_scopes, self.account.missing_scopes
        return [
            Permission(scope, meaning, is_granted)
            for names, is_granted in ((missing, False), (granted, True))
            for scope, meaning in zip(names, scopes.describe(names), strict=True)
        ]

    # Events

    def events(self) -> QuerySet[ConnectionEvent]:
        """The newest events."""
        return self.account.events.order_by("-last_at", "-pk")[:EVENTS_SHOWN]


def _token_lifetime(
    title: str, begin: datetime | None, end: datetime | None, margin: timedelta
) -> TokenLifetime:
    """The lifetime with a mark on its bar at ``margin`` before the end, when action is due."""
    if begin is None or end is None or end <= begin:
        return TokenLifetime(title, "", time_in_full(end))
    length = end - begin
    left = (end - timezone.now()) / length
    return TokenLifetime(title, draw_bar(left, min(margin / length, 1.0)), time_in_full(end))


def _are_counts(counts: object) -> TypeGuard[list[int]]:
    """Whether these are counts that can be drawn; the column may hold any JSON."""
    return (
        isinstance(counts, list)
        and all(type(count) is int and 0 <= count < 2**63 for count in counts)
        and any(counts)
    )


def _audience_shares(shares: object, most: int | None) -> list[AudienceShare]:
    """The first ``most`` shares without malformed ones; the column may hold any JSON."""
    if not isinstance(shares, list):
        return []
    return [
        AudienceShare(str(_GENDERS.get(name, name)), f"{share:.0%}", draw_bar(share))
        for name, share in (pair for pair in shares if isinstance(pair, list) and len(pair) == 2)
        if isinstance(name, str) and isinstance(share, float)
    ][:most]
