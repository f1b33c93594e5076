"""The events of an account: what is recorded, how much is kept, and that failures do no harm."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import events, services, signals
from django_tiktok_business.exceptions import (
    AppConfigurationError,
    ReauthorizationRequired,
    RetryableError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount, ConnectionEvent
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import meanwhile, override_tiktok, running_simulator
from tests.support.simulator_calls import REDIRECT_URI
from tests.support.visits import come_back, failing, value_in

Kind = ConnectionEvent.Kind
REFRESH = "/tt_user/oauth2/refresh_token/"
EVENTS = "tiktok_business_connectionevent"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator


def recorded(account: BusinessAccount) -> list[tuple[str, int]]:
    """The kinds and counts of the account's events, the oldest first."""
    return list(account.events.order_by("pk").values_list("kind", "count"))


def consent(simulator: Simulator, user: Any, scope: str) -> BusinessAccount:
    url = (
        "https://www.tiktok.com/v2/auth/authorize?client_key=7000000000000000001"
        f"&scope={scope}&response_type=code&redirect_uri={REDIRECT_URI}&state=x"
    )
    code = value_in(come_back(simulator, url), "code")
    return services.connect_account(user, code=code, redirect_uri=REDIRECT_URI)


def fail(account: BusinessAccount, simulator: Simulator, code: int = 50000) -> None:
    simulator.fail_next("code", code=code, message="System error", path=REFRESH)
    with pytest.raises(TikTokBusinessError):
        services.refresh_account(account)


def test_connecting_refreshing_and_disconnecting_are_recorded(simulator: Simulator) -> None:
    user = make_user()
    account = consent(simulator, user, "user.info.basic,video.list")
    services.refresh_account(account)
    services.refresh_account(account)
    consent(simulator, user, "user.info.basic,video.list")
    consent(simulator, user, "user.info.basic,user.info.stats")
    services.disconnect_account(BusinessAccount.objects.get())
    assert recorded(account) == [
        ("connected", 1),
        ("refreshed", 2),
        ("reconnected", 2),
        ("scopes_changed", 1),
        ("disconnected", 1),
    ]
    event = account.events.get(kind=Kind.SCOPES_CHANGED)
    assert (event.scopes_added, event.scopes_removed) == (["user.info.stats"], ["video.list"])
    refreshed = account.events.get(kind=Kind.REFRESHED)
    assert refreshed.at < refreshed.last_at
    assert str(refreshed) == "refreshed"


def test_failures_are_recorded_with_code_message_and_request_id(simulator: Simulator) -> None:
    account = connect(simulator)
    fail(account, simulator)
    fail(account, simulator)
    fail(account, simulator, 60001)
    services.refresh_account(account)
    fail(account, simulator)
    assert recorded(account) == [("failed", 2), ("failed", 1), ("refreshed", 1), ("failed", 1)]
    account.refresh_from_db()
    event = account.events.latest("pk")
    assert (event.code, event.message) == (50000, "System error")
    assert event.request_id == account.last_error_request_id != ""


def test_rejection_is_recorded_once(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.revoke_grant(account.open_id)
    with pytest.raises(ReauthorizationRequired):
        services.refresh_account(account)
    account.refresh_from_db()
    with pytest.raises(ReauthorizationRequired):
        services.get_access_token(account)
    event = account.events.get()
    assert (event.kind, event.code) == ("rejected", 40107)


def test_rate_limit_and_wrong_app_are_not_recorded(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    fail(account, simulator, 40113)
    fail(account, simulator, 40100)
    assert recorded(account) == []


def test_events_of_an_unreadable_token_say_why(simulator: Simulator) -> None:
    account = connect(simulator)
    with override_tiktok(ENCRYPTION_KEYS=["another-key-0123456789-0123456789-abcdef"]):
        with pytest.raises(TikTokBusinessError):
            services.refresh_account(BusinessAccount.objects.get())
        services.disconnect_account(BusinessAccount.objects.get())
    failed, ended = account.events.order_by("pk")
    assert (failed.kind, failed.code) == ("failed", None)
    assert "cannot be decrypted" in failed.message
    assert (ended.kind, "cannot be decrypted" in ended.message) == ("disconnected", True)


def test_scopes_that_a_sync_finds_changed_are_recorded(simulator: Simulator) -> None:
    account = connect(simulator, scopes=["user.info.basic", "user.info.stats", "video.gone"])
    simulator.fail_next("code", code=40001, path="/business/get/")
    services.sync_profile(account)
    services.sync_profile(account)
    event = account.events.get()
    assert event.kind == Kind.SCOPES_CHANGED
    assert event.scopes_removed == ["video.gone"]


@pytest.mark.databases("postgresql", "mysql")
def test_f13_refresh_is_recorded_although_the_caller_rolls_back(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    with transaction.atomic():
        services.refresh_account(account)
        transaction.set_rollback(True)
    assert recorded(account) == [("refreshed", 1)]


def test_change_that_is_rolled_back_is_not_recorded(simulator: Simulator) -> None:
    account = connect(simulator, scopes=["user.info.basic", "video.gone"])
    simulator.fail_next("code", code=40001, path="/business/get/")
    with transaction.atomic():
        services.sync_profile(account)
        transaction.set_rollback(True)
    assert recorded(account) == []


# How much is kept


def test_batch_records_its_events_with_few_statements(simulator: Simulator) -> None:
    for number in range(100):
        connect(simulator, f"account_{number}")
    with CaptureQueriesContext(connection) as queries:
        services.refresh_due_accounts(within=timedelta(days=2))
    assert ConnectionEvent.objects.filter(kind=Kind.REFRESHED, count=1).count() == 100
    statements = [query["sql"] for query in queries if EVENTS in query["sql"]]
    assert len(statements) <= 2 * 5, "five for the first 64 events, and five for the other 36"
    with CaptureQueriesContext(connection) as queries:
        services.refresh_due_accounts(within=timedelta(days=2))
    assert ConnectionEvent.objects.filter(kind=Kind.REFRESHED, count=2).count() == 100
    statements = [query["sql"] for query in queries if EVENTS in query["sql"]]
    assert len(statements) <= 2 * 2


def test_batch_that_fails_records_what_it_has_done(simulator: Simulator) -> None:
    account = connect(simulator)

    def complain(result: services.RefreshResult) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        services.refresh_due_accounts(within=timedelta(days=2), on_result=complain)
    assert recorded(account) == [("refreshed", 1)]


def test_several_events_of_one_account_in_one_batch() -> None:
    account = make_account()
    error = RetryableError("later")
    with events.batched("default"), events.batched("default"):
        for kind in (Kind.REFRESHED, Kind.REFRESHED, Kind.FAILED, Kind.FAILED, Kind.REFRESHED):
            events.record(account, kind, "default", error=error if kind == Kind.FAILED else None)
        assert recorded(account) == []
    assert recorded(account) == [("refreshed", 2), ("failed", 2), ("refreshed", 1)]
    with events.batched("default"):
        for _ in range(3):
            events.record(account, Kind.REFRESHED, "default")
    assert recorded(account)[-1] == ("refreshed", 4)


def test_old_events_are_deleted_when_new_ones_are_recorded() -> None:
    account, other = make_account(), make_account(open_id="other")
    for each in (account, other):
        events.record(each, Kind.CONNECTED, "default")
    ConnectionEvent.objects.update(last_at=timezone.now() - timedelta(days=91))
    events.record(account, Kind.REFRESHED, "default")
    assert recorded(account) == [("connected", 1), ("refreshed", 1)]
    events.record(account, Kind.DISCONNECTED, "default")
    assert recorded(account) == [("refreshed", 1), ("disconnected", 1)]
    assert recorded(other) == [("connected", 1)]


def test_number_of_events_of_an_account_is_bounded() -> None:
    account = make_account()
    with override_tiktok(EVENTS_KEPT_PER_ACCOUNT=3):
        for code in range(5):
            events.record(
                account, Kind.FAILED, "default", error=AppConfigurationError("", code=code)
            )
    assert list(account.events.order_by("pk").values_list("code", flat=True)) == [2, 3, 4]


def test_nothing_is_recorded_when_no_event_is_kept(simulator: Simulator) -> None:
    account = connect(simulator)
    with override_tiktok(EVENTS_KEPT_PER_ACCOUNT=0):
        services.refresh_account(account)
    assert recorded(account) == []


# Failures do no harm


def test_f02_events_that_cannot_be_written_lose_no_token(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    account = connect(simulator)
    with failing(EVENTS):
        services.refresh_account(account)
    assert "Events were not written: DataError" in caplog.text
    account.refresh_from_db()
    assert simulator.live_tokens(account.open_id) == (account.access_token, account.refresh_token)


def test_f14_batch_goes_on_without_its_events(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        connect(simulator, f"account_{number}")
    with failing(EVENTS):
        report = services.refresh_due_accounts(within=timedelta(days=2))
    assert report.refreshed == 3
    assert caplog.text.count("Events were not written") == 1


def test_wrong_setting_loses_only_the_events(simulator: Simulator) -> None:
    account = connect(simulator)
    with override_tiktok(EVENTS_KEPT_DAYS="many"):
        services.refresh_account(account)
    assert recorded(account) == []
    assert account.last_refreshed_at is not None


def test_account_that_is_deleted_loses_the_others_no_event(simulator: Simulator) -> None:
    kept, gone = connect(simulator), connect(simulator, "galaxy_gadgets")
    with events.batched("default"):
        events.record(kept, Kind.REFRESHED, "default")
        events.record(gone, Kind.REFRESHED, "default")
        BusinessAccount.objects.filter(pk=gone.pk).delete()
    assert recorded(kept) == [("refreshed", 1)]
    assert ConnectionEvent.objects.count() == 1


def test_events_go_with_their_account(simulator: Simulator) -> None:
    account = connect(simulator)
    meanwhile(lambda: None)
    services.refresh_account(account)
    account.delete()
    assert not ConnectionEvent.objects.exists()


@pytest.mark.databases("postgresql", "mysql")
def test_locked_event_is_not_waited_for_long(simulator: Simulator) -> None:
    """A locked event is waited for no longer than any other row."""
    account = connect(simulator)
    services.refresh_account(account)
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(f"SELECT id FROM {EVENTS} FOR UPDATE")
        services.refresh_account(account)
    finally:
        other.rollback()
        other.close()
    assert recorded(account) == [("refreshed", 1)]
    services.refresh_account(account)
    assert recorded(account) == [("refreshed", 2)]


def test_f34_no_event_holds_a_token(simulator: Simulator) -> None:
    account = connect(simulator)
    token = account.refresh_token
    simulator.fail_next("code", code=50000, message=f"Bad token {token}", path=REFRESH)
    with pytest.raises(RetryableError):
        services.refresh_account(account)
    assert account.events.get().message == "Bad token <secret>"


def test_events_that_others_delete_at_the_same_time_do_no_harm() -> None:
    """After they were counted, and before the oldest one to keep is read."""
    account = make_account()
    others: list[None] = []

    def forget(run: Any, sql: str, *arguments: Any) -> Any:
        result = run(sql, *arguments)
        if "HAVING" in sql and not others:
            others.append(None)
            ConnectionEvent.objects.all().delete()
        return result

    with override_tiktok(EVENTS_KEPT_PER_ACCOUNT=1):
        events.record(account, Kind.CONNECTED, "default")
        with connection.execute_wrapper(forget):
            events.record(account, Kind.DISCONNECTED, "default")
    assert others == [None]
    assert recorded(account) == []


def test_refresh_for_a_waiting_caller_is_not_recorded_but_its_failure_is(
    simulator: Simulator,
) -> None:
    account = connect(simulator, access_token_expires_at=timezone.now())
    services.get_access_token(account)
    assert recorded(account) == []
    account.access_token_expires_at = timezone.now()
    BusinessAccount.objects.update(access_token_expires_at=timezone.now())
    simulator.fail_next("code", code=50000, path=REFRESH)
    with pytest.raises(RetryableError):
        services.get_access_token(account)
    assert recorded(account) == [("failed", 1)]


def test_signal_outside_autocommit_is_sent_at_once(simulator: Simulator) -> None:
    """Where the caller manages transactions by hand, the commit cannot be observed."""
    account = connect(simulator)
    heard: list[int] = []

    def listen(account: BusinessAccount, **kwargs: Any) -> None:
        heard.append(account.pk)

    signals.account_disconnected.connect(listen)
    connection.set_autocommit(False)
    try:
        events.announce(signals.account_disconnected, account, "default", kind=None, error=None)
        assert heard == [account.pk]
    finally:
        connection.rollback()
        connection.set_autocommit(True)
        signals.account_disconnected.disconnect(listen)
