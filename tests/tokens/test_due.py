"""Which accounts are due, page by page: their order, the queries, and rows that change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.tokens import due as due_module
from django_tiktok_business.tokens.due import Due
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import meanwhile, override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
WITHIN = timedelta(hours=6)
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due_module, "PAGE_ROWS", 4)


def account(number: int, minutes: float | None, **overrides: Any) -> BusinessAccount:
    """An account whose token expires in so many minutes, or at an unknown time."""
    expires_at = None if minutes is None else timezone.now() + timedelta(minutes=minutes)
    return make_account(
        open_id=f"account {number}", access_token_expires_at=expires_at, **overrides
    )


def now_due(**options: Any) -> Due:
    return Due.now(BusinessAccount.objects.all(), WITHIN, **options)


def walk(due: Due) -> Iterator[list[int]]:
    pages = due.pages()
    while page := pages.next():
        yield [row.pk for row in page]
    assert pages.next() == [], "no page follows the last one"


def pks(*accounts: BusinessAccount) -> list[int]:
    return [account.pk for account in accounts]


def test_unknown_expiries_come_first_then_the_most_urgent() -> None:
    later, soon, unknown, past, other_unknown = (
        account(1, 300),
        account(2, 10),
        account(3, None),
        account(4, -600),
        account(5, None),
    )
    account(6, 361)  # not due yet
    assert list(walk(now_due())) == [pks(unknown, other_unknown), pks(past, soon, later)]


def test_page_holds_what_a_claim_needs_to_be_reported() -> None:
    row = account(1, 10)
    assert [due[:2] for due in now_due().pages().next()] == [(row.pk, "account 1")]


def test_each_page_is_one_query_however_many_rows_there_are() -> None:
    for number in range(11):
        account(number, number)
    for number in range(11, 20):
        account(number, None)
    due = now_due()
    with CaptureQueriesContext(connection) as queries:
        sizes = [len(page) for page in walk(due)]
    assert sizes == [4, 4, 1, 4, 4, 3]
    # One for each page, and one for each of the three kinds to find that there are no more.
    assert len(queries) == 6 + 3
    assert all(query["sql"].endswith("LIMIT 4") for query in queries)


def test_ties_that_span_pages_are_neither_lost_nor_repeated() -> None:
    instant = timezone.now() + timedelta(minutes=5)
    tied = [account(number, None) for number in range(11)]
    BusinessAccount.objects.update(access_token_expires_at=instant)
    sooner, later = account(90, 1), account(91, 9)
    found = [pk for page in walk(now_due()) for pk in page]
    assert found == pks(sooner, *tied, later)


def test_page_can_be_asked_for_again_when_the_database_failed() -> None:
    rows = [account(number, number) for number in range(6)]
    pages = now_due().pages()
    first = pages.next()

    def fail(run: Any, sql: str, *arguments: Any) -> Any:
        raise ZeroDivisionError

    with connection.execute_wrapper(fail), pytest.raises(ZeroDivisionError):
        pages.next()
    assert [row.pk for row in first + pages.next()] == pks(*rows)


def test_rows_that_change_between_pages_shift_nothing() -> None:
    rows = [account(number, number) for number in range(8)]
    pages = now_due().pages()
    assert [row.pk for row in pages.next()] == pks(*rows[:4])
    # The first page is refreshed and its last row deleted; one row is added before and one behind.
    fresh = timezone.now() + timedelta(hours=24)
    BusinessAccount.objects.filter(pk__in=pks(*rows[:3])).update(
        access_token_expires_at=fresh, last_refreshed_at=timezone.now()
    )
    rows[3].delete()
    account(80, -60)
    behind = account(81, 60)
    rejected, refreshed = rows[5], rows[6]
    BusinessAccount.objects.filter(pk=rejected.pk).update(status=Status.REAUTHORIZATION_REQUIRED)
    BusinessAccount.objects.filter(pk=refreshed.pk).update(last_refreshed_at=timezone.now())
    assert [row.pk for row in pages.next()] == pks(rows[4], rows[7], behind)
    assert pages.next() == []


def test_only_active_accounts_that_were_not_refreshed_since_are_due() -> None:
    good = account(1, 10, last_refreshed_at=timezone.now() - timedelta(seconds=30))
    account(2, 10, status=Status.REVOKED)
    account(3, 10, status=Status.REAUTHORIZATION_REQUIRED)
    account(4, None, last_refreshed_at=timezone.now() + timedelta(minutes=1))
    for days in (6 / 24, 36500):  # however long it is, no account comes twice
        due = Due.now(BusinessAccount.objects.all(), timedelta(days=days))
        assert list(walk(due)) == [[good.pk]]
        assert BusinessAccount.objects.filter(due.condition).get() == good


def test_account_that_was_refreshed_in_the_future_is_due() -> None:
    by_a_wrong_clock = account(1, 10, last_refreshed_at=timezone.now() + timedelta(days=3))
    account(2, 10, last_refreshed_at=timezone.now() + timedelta(minutes=3))
    assert list(walk(now_due())) == [pks(by_a_wrong_clock)]


def test_accounts_that_are_backing_off_are_counted_and_not_due() -> None:
    now = timezone.now()
    over = account(1, 10)
    waiting, unknown = account(2, 10), account(3, None)
    fresh, rejected = account(4, 600), account(5, 10, status=Status.REAUTHORIZATION_REQUIRED)
    BusinessAccount.objects.filter(pk=over.pk).update(next_attempt_at=now - timedelta(seconds=1))
    others = BusinessAccount.objects.filter(pk__in=pks(waiting, unknown, fresh, rejected))
    others.update(next_attempt_at=now + timedelta(minutes=1))

    due = now_due()
    assert list(walk(due)) == [[over.pk]]
    assert due.backing_off() == 2
    assert BusinessAccount.objects.filter(due.condition).get() == over

    by_hand = now_due(ignores_backoff=True)
    assert list(walk(by_hand)) == [[unknown.pk], [over.pk, waiting.pk]]
    assert by_hand.backing_off() == 0
    assert set(BusinessAccount.objects.filter(by_hand.condition)) == {over, waiting, unknown}


# As a whole


def test_run_reads_the_next_page_when_it_gets_there() -> None:
    """A run holds one page, and does not read rows that it does not try."""
    with running_simulator() as simulator, override_tiktok(REFRESH_WITHIN_SECONDS=90_000):
        for number in range(12):
            connect(simulator, f"account_{number}")
        pages_by_then: list[int] = []

        def note(result: services.RefreshResult) -> None:
            pages_by_then.append(sum(query["sql"].endswith("LIMIT 4") for query in queries))

        with CaptureQueriesContext(connection) as queries:
            report = services.refresh_due_accounts(concurrency=1, on_result=note)
    assert report.refreshed == 12
    # The first query finds no unknown expiry; the next row is read while one is in flight.
    assert pages_by_then[:3] == [2, 2, 2]
    assert pages_by_then[4:7] == [3, 3, 3]
    assert max(pages_by_then) <= 5


def test_limit_ends_the_reading_too() -> None:
    with running_simulator() as simulator, override_tiktok(REFRESH_WITHIN_SECONDS=90_000):
        for number in range(12):
            connect(simulator, f"account_{number}")
        with CaptureQueriesContext(connection) as queries:
            report = services.refresh_due_accounts(limit=3)
        assert report.refreshed == 3
        assert simulator.count(REFRESH) == 3
        assert sum(query["sql"].endswith("LIMIT 4") for query in queries) == 2


def test_number_of_queries_for_each_account_does_not_grow() -> None:
    with running_simulator() as simulator:

        def queries_for(first: int, count: int) -> int:
            for number in range(first, first + count):
                connect(simulator, f"account_{number}", access_token_expires_at=timezone.now())
            with CaptureQueriesContext(connection) as queries:
                report = services.refresh_due_accounts(concurrency=1)
            assert report.refreshed == count
            return len(queries)

        four, forty = queries_for(0, 4), queries_for(100, 40)
    assert forty <= 10 * four


def test_account_that_another_worker_has_refreshed_is_left_out() -> None:
    with running_simulator(strict=True) as simulator:
        accounts = [
            connect(simulator, f"account_{number}", access_token_expires_at=timezone.now())
            for number in range(6)
        ]
        # The last is on the second page, the one before it on the first.
        meanwhile(lambda: services.refresh_account(accounts[5]))
        report = services.refresh_due_accounts(concurrency=1)
        assert (report.refreshed, report.skipped) == (5, 0)
        assert simulator.count(REFRESH) == 6


@pytest.mark.parametrize(
    "narrow",
    [
        lambda rows: rows.filter(owner__groups__name="first").distinct(),
        lambda rows: rows.filter(owner__groups__name__in=["first", "second"]),
        lambda rows: rows.filter(owner__username="ada").select_related("owner"),
        lambda rows: rows.filter(owner__username="ada")[:9],
        lambda rows: rows.filter(owner__username="ada").order_by("-pk"),
        lambda rows: rows.filter(owner__username="ada").reverse(),
        lambda rows: rows.filter(owner__username="ada").only("pk"),
        lambda rows: rows.filter(owner__username="ada").values("bio"),
        lambda rows: rows.exclude(owner=None).union(rows.none()),
    ],
    ids=[
        "distinct",
        "doubled",
        "join",
        "slice",
        "ordered",
        "reversed",
        "deferred",
        "values",
        "union",
    ],
)
def test_querysets_of_any_kind_can_be_given(narrow: Any) -> None:
    with running_simulator(strict=True) as simulator:
        owner = make_user()
        owner.groups.add(*(Group.objects.create(name=name) for name in ("first", "second")))
        for number in range(9):
            expires_at = timezone.now() + timedelta(minutes=number)
            connect(simulator, f"account_{number}", owner=owner, access_token_expires_at=expires_at)
        other = connect(simulator, "other", access_token_expires_at=timezone.now())
        report = services.refresh_due_accounts(
            accounts=narrow(BusinessAccount.objects.all()), sync_profiles=True
        )
        assert (report.refreshed, report.skipped) == (9, 0)
        assert simulator.count(REFRESH) == 9
        synced = BusinessAccount.objects.filter(profile_synced_at__isnull=False)
        assert synced.count() == 9
        assert other not in synced


def test_limit_counts_accounts_and_not_the_rows_of_a_join() -> None:
    with running_simulator() as simulator:
        owner = make_user()
        owner.groups.add(*(Group.objects.create(name=name) for name in ("first", "second")))
        for number in range(4):
            connect(
                simulator,
                f"account_{number}",
                owner=owner,
                access_token_expires_at=timezone.now(),
            )
        chosen = BusinessAccount.objects.filter(owner__groups__name__in=["first", "second"])
        report = services.refresh_due_accounts(accounts=chosen, limit=3)
    assert (report.refreshed, report.skipped) == (3, 0)
