"""The totals in the overview: what is counted, and when the cache answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from django.contrib import admin
from django.core.cache import cache
from django.db import connection
from django.db.models import Count
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from django_tiktok_business.admin import BusinessAccountAdmin
from django_tiktok_business.admin.figures import KEPT_SECONDS, MANY_ACCOUNTS, Figures, _cache_key
from django_tiktok_business.models import BusinessAccount
from tests.support.administrators import (
    LIST,
    cells,
    words,
)
from tests.support.factories import make_user
from tests.support.overviews import make, one_of_each, overview, rows, tallies
from tests.support.simulator import override_tiktok


class OwnAccountsAdmin(BusinessAccountAdmin):
    """The admin of a project in which users see only their own accounts, with an annotation."""

    def get_queryset(self, request: Any) -> Any:
        mine = super().get_queryset(request).filter(owner=request.user)
        return mine.annotate(days=Count("daily_metrics"))


class NothingAdmin(BusinessAccountAdmin):
    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).none()


def site_of(model_admin: type[BusinessAccountAdmin]) -> Any:
    site = admin.AdminSite()
    site.register(BusinessAccount, model_admin)
    urls = ModuleType("urls")
    urls.urlpatterns = [path("admin/", site.urls)]  # type: ignore[attr-defined]
    return override_settings(ROOT_URLCONF=urls)


def calls(response: Any) -> str:
    card = overview(response).partition("Calls today, at least")[2]
    return words(card.partition("</div>")[0].partition(">")[2])


@pytest.mark.parametrize(
    ("per_minute", "calls_today", "share"),
    [
        (600, 0, "0 0 % of the 864,000 that REQUESTS_PER_MINUTE allows in a day"),
        (600, 3, "3 less than 0.1 % of the 864,000 that REQUESTS_PER_MINUTE allows in a day"),
        (1, 3, "3 0.2 % of the 1,440 that REQUESTS_PER_MINUTE allows in a day"),
        (0, 3, "3 No ceiling: REQUESTS_PER_MINUTE is 0"),
    ],
)
def test_calls_today_are_a_lower_bound_compared_with_the_rate_limit(
    root: Client, per_minute: int, calls_today: int, share: str
) -> None:
    today = timezone.now()
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    before = midnight - timedelta(seconds=1)
    make(0, last_refreshed_at=before, profile_synced_at=before)
    if calls_today:
        make(1, last_refreshed_at=today, profile_synced_at=today)
        make(2, last_refreshed_at=midnight, profile_synced_at=before)
    with override_tiktok(REQUESTS_PER_MINUTE=per_minute):
        assert calls(root.get(LIST)) == share


def test_figures_cover_only_the_accounts_of_the_admins_queryset(root: Client) -> None:
    me = root.get(LIST).wsgi_request.user
    make(1, owner=me)
    make(2, owner=make_user("eve"), status="reauthorization_required")
    with site_of(OwnAccountsAdmin):
        page = root.get(LIST)
        assert tallies(page)["?health=healthy"] == "1 healthy"
        assert tallies(page)["?health=reconnect_needed"] == "0 reconnect needed"
        assert len(cells(page, "state")) == 1
    with site_of(NothingAdmin):
        assert "No account is connected yet" in overview(root.get(LIST))


def make_many_accounts() -> int:
    """Make more than MANY_ACCOUNTS by doubling the rows in the database."""
    make(1)
    quote = connection.ops.quote_name
    fields = [field for field in BusinessAccount._meta.concrete_fields if not field.primary_key]
    names = ", ".join(quote(field.column or "") for field in fields)
    other = {"sqlite": "open_id || %s"}.get(connection.vendor, "CONCAT(open_id, %s)")
    values = names.replace(quote("open_id"), other)
    table = quote(BusinessAccount._meta.db_table)
    with connection.cursor() as cursor:
        for doubling in range(14):
            suffix = [f"-{doubling}"]
            cursor.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM {table}", suffix)
    return rows.count()


def test_figures_of_many_accounts_are_cached_for_a_moment_and_the_page_says_so(
    root: Client,
) -> None:
    many = make_many_accounts()
    assert many >= MANY_ACCOUNTS
    page = root.get(LIST)
    assert tallies(page)["?health=healthy"] == f"{many:,} healthy"
    assert f"may be {KEPT_SECONDS} seconds old" in words(overview(page))
    rows.filter(open_id="_000Number1").update(consecutive_failures=1)
    with CaptureQueriesContext(connection) as queries:
        again = root.get(LIST)
    assert tallies(again) == tallies(page)
    assert not any("GROUP BY" in entry["sql"] for entry in queries)
    # The list itself is never cached, and other settings lead to a new count.
    assert len(cells(root.get(LIST, {"health": "retrying"}), "state")) == 1
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=1):
        assert tallies(root.get(LIST))["?health=retrying"] == "1 retrying"


@pytest.mark.parametrize(
    "kept",
    [
        {"odd": 1},
        {"counts": {}, "last_refresh": "yesterday"},
        {"counts": {}, "last_refresh": 5},
        {"counts": {}, "last_refresh": "2026-11-26T06:00:00"},
        {"counts": {}, "overdue": None},
        {"counts": 5},
        {"counts": {"healthy": "x"}},
    ],
)
def test_figures_that_somebody_else_kept_are_counted_again(
    root: Client, kept: dict[str, Any]
) -> None:
    one_of_each()
    figures = Figures.count(rows.all())
    cache.set(_cache_key(rows.all()), kept)
    assert Figures.cached(rows.all()).counts == figures.counts


def test_figures_survive_a_round_trip_through_json(root: Client) -> None:
    one_of_each()
    rows.update(last_refreshed_at=timezone.now())
    figures = Figures.count(rows.all())
    assert figures.last_refresh is not None
    assert Figures.from_json(json.loads(json.dumps(figures.as_json()))) == figures


def test_figures_of_few_accounts_are_not_cached(root: Client) -> None:
    make(1)
    assert "seconds old" not in words(overview(root.get(LIST)))
    rows.update(consecutive_failures=1)
    assert tallies(root.get(LIST))["?health=retrying"] == "1 retrying"
