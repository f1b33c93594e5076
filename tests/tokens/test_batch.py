"""Refresh many accounts: answers in flight are saved, even when something goes wrong here."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import DataError, OperationalError, connection, connections, transaction
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import RefreshResult
from django_tiktok_business.simulator import Simulator
from tests.support.batches import ACCOUNTS, are_live, claimed_rows
from tests.support.factories import connect
from tests.support.simulator import (
    meanwhile,
    next_statement,
    override_tiktok,
    running_simulator,
    wait_for_savers,
)

REFRESH = "/tt_user/oauth2/refresh_token/"
DAY_SECONDS = 86_460  # and a minute, because the database's clock may differ a little


@pytest.mark.django_db
@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_f14_callback_that_always_raises_loses_no_answer_in_flight(
    error: type[BaseException],
) -> None:
    def complain(result: RefreshResult) -> None:
        raise error(result.open_id)

    with running_simulator(rotate="always", old_refresh_valid="no") as simulator:
        for name in ACCOUNTS:
            connect(simulator, name)
        simulator.configure(latency_seconds=1)  # so that all are in flight at once
        with (
            override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS),
            pytest.raises(error),
        ):
            services.refresh_due_accounts(
                concurrency=len(ACCOUNTS), requests_per_minute=0, on_result=complain
            )
        assert simulator.count("/refresh_token/") == len(ACCOUNTS)
        for account in BusinessAccount.objects.all():
            assert simulator.live_tokens(account.open_id) == (
                account.access_token,
                account.refresh_token,
            )


@pytest.mark.django_db
def test_answer_is_saved_at_once_and_not_when_the_pause_is_over() -> None:
    """A process that is killed during a pause must not lose answers that arrived before it."""
    with running_simulator(latency_seconds=0.2) as simulator:
        for name in ACCOUNTS[:3]:
            connect(simulator, name)
        calls_by_then: list[int] = []

        def note(result: RefreshResult) -> None:
            calls_by_then.append(simulator.count("/refresh_token/"))

        with override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS):
            services.refresh_due_accounts(concurrency=2, requests_per_minute=30, on_result=note)
    # The first two may follow each other closely, the third comes two seconds after the second.
    assert calls_by_then[1:] == [2, 3]


@pytest.mark.django_db
def test_pause_ends_when_the_run_has_to_stop() -> None:
    stop = threading.Event()
    with running_simulator() as simulator, override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS):
        for name in ACCOUNTS:
            connect(simulator, name)
        started = time.monotonic()
        report = services.refresh_due_accounts(
            requests_per_minute=20, stop=stop, on_result=lambda result: stop.set()
        )
    # The first call comes within three seconds, four would take more than nine.
    assert time.monotonic() - started < 8
    assert (report.refreshed, report.stopped) == (1, "interrupted")


@pytest.mark.django_db
def test_run_that_is_stopped_before_it_begins_tries_nothing() -> None:
    stop = threading.Event()
    stop.set()
    with running_simulator() as simulator, override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS):
        connect(simulator)
        report = services.refresh_due_accounts(stop=stop)
        assert (simulator.calls, report.stopped) == ([], "interrupted")


@pytest.mark.django_db
def test_wrong_setting_stops_the_run_and_leaves_no_claim_behind() -> None:
    with running_simulator() as simulator:
        for name in ACCOUNTS:
            connect(simulator, name)
        keys = {"REFRESH_WITHIN_SECONDS": DAY_SECONDS, "SESSION_FACTORY_PATH": "nowhere.at_all"}
        with override_tiktok(**keys), pytest.raises(ImportError):
            services.refresh_due_accounts()
        assert not BusinessAccount.objects.exclude(claim_id="").exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql", "mysql")
def test_f14_locked_row_does_not_hold_up_the_others() -> None:
    is_locked, may_end = threading.Event(), threading.Event()

    def hold(account: BusinessAccount) -> None:
        with transaction.atomic():
            BusinessAccount.objects.filter(pk=account.pk).update(bio="locked")
            is_locked.set()
            assert may_end.wait(timeout=60)
        connections.close_all()

    with running_simulator(rotate="always", old_refresh_valid="no") as simulator:
        accounts = [connect(simulator, name) for name in ACCOUNTS]
        other = threading.Thread(target=hold, args=[accounts[0]])
        other.start()
        assert is_locked.wait(timeout=60)
        try:
            with override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS):
                report = services.refresh_due_accounts(requests_per_minute=0)
        finally:
            may_end.set()
            other.join()
        (failure,) = report.failures
        assert (report.refreshed, report.retry_later) == (3, 1)
        assert (failure.pk, failure.outcome) == (accounts[0].pk, "retry_later")
        assert "locked the account" in failure.message
        for account in BusinessAccount.objects.all():
            pair = (account.access_token, account.refresh_token)
            assert simulator.live_tokens(account.open_id) == pair


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql", "mysql")
def test_connection_that_the_server_closes_is_not_taken_for_a_locked_row() -> None:
    """The run reconnects and goes on; no account is reported as busy."""
    whoami, cut = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
        "mysql": ("SELECT CONNECTION_ID()", "KILL %s"),
    }[connection.vendor]

    def cut_from_elsewhere(number: int) -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute(cut, [number])
        connections.close_all()

    def note(result: RefreshResult) -> None:
        with connection.cursor() as cursor:
            cursor.execute(whoami)
            thread = threading.Thread(target=cut_from_elsewhere, args=cursor.fetchone())
        thread.start()
        thread.join()

    with running_simulator() as simulator:
        for name in ACCOUNTS:
            connect(simulator, name)
        try:
            with override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS):
                report = services.refresh_due_accounts(concurrency=1, on_result=note)
        finally:
            connection.close()
    assert (report.refreshed, report.failures) == (4, [])


@pytest.mark.django_db(transaction=True)
def test_account_that_failed_is_left_alone_until_its_next_attempt(paced: Simulator) -> None:
    paced.fail_next("code", code=50000, path=REFRESH)
    assert services.refresh_due_accounts(concurrency=1).retry_later == 1
    failed = BusinessAccount.objects.get(consecutive_failures=1)

    report = services.refresh_due_accounts()
    assert (report.refreshed, report.backing_off, report.stopped) == (0, 1, None)
    assert not report.all_refreshed
    assert paced.count(REFRESH) == 4

    BusinessAccount.objects.update(next_attempt_at=timezone.now() - timedelta(minutes=1))
    report = services.refresh_due_accounts()
    assert (report.refreshed, report.backing_off) == (1, 0)
    assert report.all_refreshed
    failed.refresh_from_db()
    assert (failed.next_attempt_at, failed.consecutive_failures) == (None, 0)


@pytest.mark.django_db(transaction=True)
def test_account_that_is_backing_off_is_refreshed_on_request(paced: Simulator) -> None:
    later = timezone.now() + timedelta(hours=1)
    BusinessAccount.objects.update(next_attempt_at=later, access_token_expires_at=timezone.now())
    by_hand, in_need, *others = BusinessAccount.objects.order_by("pk")
    assert services.refresh_due_accounts().backing_off == 4
    services.refresh_account(by_hand)
    services.get_access_token(in_need)
    assert paced.count(REFRESH) == 2
    report = services.refresh_due_accounts(accounts=others, ignore_backoff=True)
    assert (report.refreshed, report.backing_off) == (2, 0)
    assert are_live(paced)
    assert not BusinessAccount.objects.exclude(next_attempt_at=None).exists()


@pytest.mark.django_db(transaction=True)
def test_interrupt_of_a_call_loses_no_other_answer() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with running_simulator(latency_seconds=0.2) as simulator:
        for name in ACCOUNTS:
            connect(simulator, name)
        meanwhile(interrupt)
        with (
            override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS),
            pytest.raises(KeyboardInterrupt),
        ):
            services.refresh_due_accounts(concurrency=len(ACCOUNTS))
        assert BusinessAccount.objects.filter(credentials_version=1).count() == 3
        assert simulator.count(REFRESH) == 4
        assert claimed_rows() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("statement", ["UPDATE", "SELECT"])
def test_database_that_goes_away_in_the_middle_is_waited_for(
    paced: Simulator, statement: str
) -> None:
    lost = OperationalError("server closed the connection unexpectedly")
    done: list[RefreshResult] = []
    with next_statement(statement, lost) as lose:

        def note(result: RefreshResult) -> None:
            done.append(result)
            if len(done) == 1:
                lose()

        report = services.refresh_due_accounts(concurrency=1, on_result=note)
    assert (report.refreshed, report.stopped) == (4, None)
    assert are_live(paced)
    assert claimed_rows() == 0


@pytest.mark.django_db(transaction=True)
def test_database_that_never_answers_is_reported_before_any_call(
    paced: Simulator,
) -> None:
    with next_statement("SELECT", OperationalError("no route to host")) as lose:
        lose()
        with pytest.raises(OperationalError):
            services.refresh_due_accounts()
    assert paced.calls == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fault", [KeyboardInterrupt(), DataError("a fault of this moment")])
def test_f08_answer_that_is_not_saved_at_once_is_raised_and_saved_later(
    paced: Simulator, fault: BaseException
) -> None:
    paced.configure(latency_seconds=0.2)  # so that all are in flight at once
    with next_statement("UPDATE", fault) as fail:
        meanwhile(fail)
        with pytest.raises(type(fault)):
            services.refresh_due_accounts(concurrency=4)
    wait_for_savers()
    assert paced.count(REFRESH) == 4
    assert are_live(paced)
    assert claimed_rows() == 0


@pytest.mark.django_db(transaction=True)
def test_thread_that_cannot_be_started_loses_no_answer_and_leaves_no_claim(
    paced: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has no memory or no processes left."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def fail_the_second_time(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    paced.configure(latency_seconds=0.2)
    monkeypatch.setattr(threading.Thread, "start", fail_the_second_time)
    with pytest.raises(RuntimeError, match="start new thread"):
        services.refresh_due_accounts(concurrency=4)
    monkeypatch.undo()
    assert 1 <= paced.count(REFRESH) <= 2
    assert claimed_rows() == 0
    assert services.refresh_due_accounts().stopped is None
    assert are_live(paced)


@pytest.mark.django_db(transaction=True)
def test_call_that_waited_too_long_for_its_claim_is_made_under_a_new_one(
    paced: Simulator,
) -> None:
    # Two threads, and a third call that waits for one of them longer than its claim allows.
    paced.configure(latency_seconds=1.3)
    with override_tiktok(CLAIM_SECONDS=30, MAX_ATTEMPTS=1):
        report = services.refresh_due_accounts(concurrency=2)
    assert (report.refreshed, report.skipped, report.stopped) == (4, 0, None)
    assert paced.count(REFRESH) == 4
    assert are_live(paced)
    assert claimed_rows() == 0
