"""Which rows the queries of `BusinessAccount` find, and by which index."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F, QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount, Health
from tests.support.account_states import APP_ID, DAY, HOUR, every_state, open_ids, unsaved
from tests.support.factories import make_account

Status = BusinessAccount.Status
rows = BusinessAccount.objects
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("within", [timedelta(0), 6 * HOUR, 2 * DAY])
def test_f17_due_are_the_active_accounts_that_expire_or_may(within: timedelta) -> None:
    accounts = rows.bulk_create(every_state())
    limit = timezone.now() + within
    expected = open_ids(
        account
        for account in accounts
        if account.status == Status.ACTIVE
        and (account.access_token_expires_at is None or account.access_token_expires_at <= limit)
    )
    assert open_ids(rows.due_for_refresh(within)) == expected
    assert open_ids(rows.filter(consecutive_failures=0).due_for_refresh(within=within)) < expected


def test_f18_attention_is_needed_where_only_a_person_can_help() -> None:
    accounts = rows.bulk_create(every_state())
    soon = timezone.now() + 30 * DAY
    assert open_ids(rows.needs_attention()) == open_ids(
        account
        for account in accounts
        if account.health in (Health.RECONNECT_NEEDED, Health.EXPIRES_SOON)
        or (
            account.health == Health.RETRYING
            and account.refresh_token_expires_at is not None
            and account.refresh_token_expires_at <= soon
        )
    )


def test_accounts_that_back_off_wait_for_their_next_attempt() -> None:
    now = timezone.now()
    for name, next_attempt_at in (("new", None), ("past", now - HOUR), ("later", now + HOUR)):
        make_account(open_id=name, next_attempt_at=next_attempt_at)
    assert open_ids(rows.not_backing_off()) == {"new", "past"}


def test_active_accounts_are_those_that_are_renewed() -> None:
    accounts = rows.bulk_create(every_state())
    assert open_ids(rows.active()) == open_ids(
        account for account in accounts if account.status == Status.ACTIVE
    )


@pytest.mark.parametrize("name", ["active", "needs_attention"])
def test_queries_are_lazy(name: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        getattr(rows, name)()
        rows.due_for_refresh(HOUR)
        for health in Health:
            rows.in_health(health)
    assert len(queries) == 0


def plan(queryset: QuerySet[BusinessAccount]) -> str:
    return queryset.explain()


@pytest.fixture
def many_accounts() -> None:
    """Enough rows for PostgreSQL to prefer an index, of which a few are due or ending."""
    now = timezone.now()
    rows.bulk_create(
        unsaved(
            open_id=f"account {number}",
            status=Status.REAUTHORIZATION_REQUIRED if number % 500 == 1 else Status.ACTIVE,
            access_token_expires_at=now + (HOUR if number % 500 == 2 else 20 * HOUR),
            refresh_token_expires_at=now + (DAY if number % 500 == 3 else 300 * DAY),
            consecutive_failures=0,
            bio="Bread " * 20,
        )
        for number in range(5000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tiktok_business_businessaccount")


@pytest.mark.databases("postgresql")
@pytest.mark.usefixtures("many_accounts")
def test_due_attention_and_newest_queries_use_an_index() -> None:
    due = rows.filter(app_id=APP_ID).due_for_refresh(6 * HOUR)
    assert due.count() == rows.needs_attention().count() / 2 == 10
    for queryset, index in (
        (due, "tiktok_business_due"),
        (due.order_by("access_token_expires_at", "pk")[:100], "tiktok_business_due"),
        (rows.needs_attention(), "tiktok_business_attention"),
        (rows.in_health(Health.RECONNECT_NEEDED), "tiktok_business_attention"),
        (
            rows.order_by(F("connected_at").desc(nulls_last=True), "-pk")[:100],
            "tiktok_business_newest",
        ),
    ):
        assert index in plan(queryset)
        assert "Seq Scan" not in plan(queryset)


def test_indexes_and_constraint_are_in_the_database() -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "tiktok_business_businessaccount")
    due = ["app_id", "status", "access_token_expires_at", "id"]
    assert found["tiktok_business_due"]["columns"] == due
    assert found["tiktok_business_attention"]["columns"] == ["status", "refresh_token_expires_at"]
    assert found["tiktok_business_newest"]["columns"] == ["connected_at", "id"]
    assert found["tiktok_business_newest"]["orders"] == ["DESC", "DESC"]
    unique = found["tiktok_business_one_row_per_account"]
    assert (unique["columns"], unique["unique"]) == (["app_id", "open_id"], True)
