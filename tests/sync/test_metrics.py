"""Daily metrics and audience: fetched once a day and stored, without harm to anything else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.api.profile import AccountMetrics
from django_tiktok_business.models import BusinessAccount, DailyMetrics
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.sync import metrics
from tests.support.factories import connect, make_account
from tests.support.simulator import meanwhile, override_tiktok, running_simulator, simulator_session
from tests.support.visits import failing

PROFILE = "/business/get/"

pytestmark = pytest.mark.django_db(transaction=True)


urls: list[str] = []


def watched_session() -> requests.Session:
    """The session of the current simulator; records the URLs of the requests."""
    session = simulator_session()
    session.hooks["response"].append(lambda response, **kwargs: urls.append(response.request.url))
    return session


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    urls.clear()
    watched = override_tiktok(
        MAX_ATTEMPTS=1, SESSION_FACTORY_PATH="tests.sync.test_metrics.watched_session"
    )
    with running_simulator() as simulator, watched:
        yield simulator


@pytest.fixture
def account(simulator: Simulator) -> BusinessAccount:
    return connect(simulator, metrics_synced_at=None)


def days_ago(count: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=count)


def windows() -> list[tuple[str, str]]:
    """The first and last day of each request for metrics."""
    queries = [parse_qs(urlsplit(url).query) for url in urls]
    return [
        (query["start_date"][0], query["end_date"][0]) for query in queries if "start_date" in query
    ]


def days_of(account: BusinessAccount) -> dict[date, DailyMetrics]:
    return {row.date: row for row in account.daily_metrics.all()}


def test_first_sync_stores_sixty_days_and_the_totals_of_today(
    simulator: Simulator, account: BusinessAccount
) -> None:
    services.sync_profile(account)
    days = days_of(account)
    assert sorted(days) == [days_ago(count) for count in range(60, -1, -1)]
    yesterday = days[days_ago(1)]
    for name in ("followers_count", "video_views", "profile_views", "likes", "comments", "shares"):
        assert isinstance(getattr(yesterday, name), int), name
    assert yesterday.audience_activity is not None
    assert len(yesterday.audience_activity) == 24
    assert yesterday.videos_count is None
    today = days[days_ago(0)]
    assert (today.followers_count, today.videos_count) == (1532, 63)
    assert today.video_views is None
    stored = BusinessAccount.objects.get()
    assert stored.audience == account.audience
    assert stored.audience["countries"][0] == ["DE", 0.61]
    assert set(stored.audience) == {"ages", "countries", "genders"}


def test_metrics_are_fetched_once_a_day(simulator: Simulator, account: BusinessAccount) -> None:
    services.sync_profile(account)
    services.sync_profile(account)
    services.sync_profile(BusinessAccount.objects.get())
    assert windows() == [(str(days_ago(60)), str(days_ago(1)))]
    assert simulator.count(PROFILE) == 4


def test_next_day_fetches_the_unsettled_days_again(
    simulator: Simulator, account: BusinessAccount
) -> None:
    services.sync_profile(account)
    account.daily_metrics.update(likes=None)
    BusinessAccount.objects.update(metrics_synced_at=timezone.now() - timedelta(days=1))
    services.sync_profile(BusinessAccount.objects.get())
    assert windows()[1] == (str(days_ago(5)), str(days_ago(1)))
    days = days_of(account)
    assert len(days) == 61
    assert [days[days_ago(count)].likes is None for count in (6, 5, 1)] == [True, False, False]


def test_no_more_days_are_fetched_than_tiktok_keeps(
    simulator: Simulator, account: BusinessAccount
) -> None:
    account.metrics_synced_at = timezone.now() - timedelta(days=200)
    services.sync_profile(account)
    assert windows() == [(str(days_ago(60)), str(days_ago(1)))]


def test_no_metrics_are_fetched_without_the_scope(simulator: Simulator) -> None:
    granted = ["user.info.basic", "user.info.stats"]
    account = connect(simulator, metrics_synced_at=None, scopes=granted)
    services.sync_profile(account)
    assert windows() == []
    assert not DailyMetrics.objects.exists()


def test_metrics_are_fetched_without_the_scope_for_totals(
    simulator: Simulator,
) -> None:
    account = connect(simulator, metrics_synced_at=None, scopes=["user.info.basic", metrics.SCOPE])
    services.sync_profile(account)
    days = days_of(account)
    assert len(days) == 60
    assert days[days_ago(1)].followers_count is None
    assert days[days_ago(1)].video_views is not None


def test_profile_is_synced_where_analytics_are_turned_off(
    simulator: Simulator, account: BusinessAccount
) -> None:
    simulator.set_profile("harbour_bakery", analytics_enabled=False)
    services.sync_profile(account)
    services.sync_profile(account)
    assert len(windows()) == 1
    assert account.profile_synced_at is not None
    assert list(days_of(account)) == [days_ago(0)]


def test_new_account_has_fewer_days(simulator: Simulator, account: BusinessAccount) -> None:
    simulator.set_profile("harbour_bakery", created_on=str(days_ago(3)), followers_count=8)
    services.sync_profile(account)
    days = days_of(account)
    assert sorted(days) == [days_ago(count) for count in (3, 2, 1, 0)]
    assert days[days_ago(1)].audience_activity is None
    assert account.audience == {}


@pytest.mark.parametrize("fault", [{"code": 50000}, {"fault": "reset_after"}])
def test_failure_at_tiktok_leaves_the_profile_synced_and_is_retried(
    simulator: Simulator,
    account: BusinessAccount,
    caplog: pytest.LogCaptureFixture,
    fault: dict[str, Any],
) -> None:
    meanwhile(lambda: simulator.fail_next(**fault))  # after the profile was fetched
    services.sync_profile(account)
    assert "The daily metrics of" in caplog.text
    assert (account.display_name, account.metrics_synced_at) == ("Harbour Bakery", None)
    services.sync_profile(account)
    assert len(days_of(account)) == 61


def test_metrics_that_cannot_be_stored_leave_the_profile_synced(
    account: BusinessAccount, caplog: pytest.LogCaptureFixture
) -> None:
    account.scopes = [metrics.SCOPE, "user.info.basic"]  # no totals, which come with the profile
    with failing("INSERT", "tiktok_business_dailymetrics"):
        services.sync_profile(account)
    assert "The daily metrics of" in caplog.text
    assert account.profile_synced_at is not None
    assert BusinessAccount.objects.get().metrics_synced_at is None


def test_run_fetches_metrics_after_all_tokens_in_slots_of_their_own(
    simulator: Simulator, account: BusinessAccount
) -> None:
    other = connect(simulator, "galaxy_gadgets")  # its metrics were fetched today
    report = services.refresh_due_accounts(within=timedelta(days=2), sync_profiles=True)
    assert report.refreshed == 2
    assert windows() == [(str(days_ago(60)), str(days_ago(1)))]
    paths = [call.path.removeprefix("/open_api/v1.3") for call in simulator.calls]
    assert paths == ["/tt_user/oauth2/refresh_token/"] * 2 + [PROFILE] * 3
    assert len(days_of(account)) == 61
    assert list(days_of(other)) == [days_ago(0)]


def test_run_that_has_to_stop_fetches_no_metrics(
    simulator: Simulator, account: BusinessAccount
) -> None:
    stop = threading.Event()
    meanwhile(lambda: None)
    meanwhile(stop.set)
    services.refresh_due_accounts(
        within=timedelta(days=2), sync_profiles=True, stop=stop, concurrency=1
    )
    assert (simulator.count(PROFILE), windows()) == (1, [])


def test_missing_metrics_do_not_overwrite_stored_ones() -> None:
    account = make_account(audience={"ages": [["18-24", 1.0]], "genders": [["Female", 1.0]]})
    first = {days_ago(2): {"likes": 5, "shares": 1}, days_ago(1): {"likes": 7}}
    metrics.store(account, AccountMetrics(first, {}), "default")
    later = {days_ago(2): {"likes": 6}, days_ago(1): {"shares": 0}}
    metrics.store(account, AccountMetrics(later, {"ages": [["25-34", 1.0]]}), "default")
    rows = [(row.likes, row.shares) for row in account.daily_metrics.order_by("date")]
    assert rows == [(6, 1), (7, 0)]
    account.refresh_from_db()
    assert account.audience == {"ages": [["25-34", 1.0]], "genders": [["Female", 1.0]]}


@pytest.mark.parametrize("known", [None, 5, []])
def test_audience_of_another_shape_is_replaced(known: Any) -> None:
    account = make_account()
    account.audience = known
    metrics.store(account, AccountMetrics({}, {"ages": [["25-34", 1.0]]}), "default")
    assert account.audience == {"ages": [["25-34", 1.0]]}


def test_time_of_the_last_sync_may_be_naive() -> None:
    account = BusinessAccount(scopes=[metrics.SCOPE])
    account.metrics_synced_at = datetime(2026, 1, 1)  # noqa: DTZ001 -- as USE_TZ = False has it
    assert metrics.is_due(account)


def test_daily_metrics_are_named_by_their_day() -> None:
    assert str(DailyMetrics(date=date(2026, 11, 22))) == "2026-11-22"
