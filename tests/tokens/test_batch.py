"""The batch when something of its own goes wrong: answers in flight are saved first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.db import DataError, OperationalError, connection, connections, transaction
from django.dispatch import Signal
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.api import factory, rate_limit
from django_tiktok_business.exceptions import DecryptionError, ServerError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import RefreshResult
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import batch
from django_tiktok_business.tokens import claims as claims_module
from tests.support.factories import connect
from tests.support.simulator import (
    forget_ceilings,
    meanwhile,
    next_statement,
    override_tiktok,
    running_simulator,
    simulator_session,
    wait_for_savers,
)

REFRESH = "/tt_user/oauth2/refresh_token/"

ACCOUNTS = ("harbour_bakery", "bike_shop", "tea_house", "book_corner")
DAY_SECONDS = 86_460  # and a minute, for the clock of the database may be a little off


@pytest.mark.django_db
@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_f14_callback_that_always_raises_costs_no_answer_that_is_in_flight(
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
    """A process that is killed during a pause must not lose what it was told before."""
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
def test_pause_ends_when_the_run_is_to_stop() -> None:
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
def test_f14_row_that_somebody_has_locked_does_not_hold_up_the_others() -> None:
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
def test_connection_that_the_server_cuts_is_no_locked_row() -> None:
    """It is made again, and the run goes on: nobody is reported as busy."""
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


# Calls that TikTok refuses for their rate


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """TikTok with four accounts that are due, the first the most urgent; pauses are short."""
    monkeypatch.setattr(rate_limit, "FIVE_MINUTES", 0.6)
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        for minutes, name in enumerate(ACCOUNTS):
            due(simulator, name, minutes)
        yield simulator


def due(simulator: Simulator, name: str, minutes: float) -> BusinessAccount:
    expires_at = timezone.now() + timedelta(minutes=minutes)
    return connect(simulator, name, access_token_expires_at=expires_at)


def are_live(simulator: Simulator) -> bool:
    return all(
        simulator.live_tokens(account.open_id) == (account.access_token, account.refresh_token)
        for account in BusinessAccount.objects.all()
    )


def claims() -> int:
    return BusinessAccount.objects.exclude(claim_id="", claim_expires_at=None).count()


def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in BusinessAccount.objects.order_by("pk").values()]


@contextmanager
def listening(signal: Signal) -> Iterator[list[Any]]:
    """The errors that a signal of ours is sent with, by primary key."""
    heard: list[Any] = []

    def listen(account: BusinessAccount, error: Exception, **kwargs: Any) -> None:
        heard.append((account.pk, type(error)))

    signal.connect(listen)
    try:
        yield heard
    finally:
        signal.disconnect(listen)


@pytest.mark.django_db(transaction=True)
def test_f53_refused_call_pauses_the_run_and_is_made_again_after_it(paced: Simulator) -> None:
    paced.fail_next("rate_limited", path=REFRESH)
    outcomes: list[str] = []
    report = services.refresh_due_accounts(
        concurrency=1, on_result=lambda result: outcomes.append(result.outcome)
    )
    refused, again, *_ = paced.calls
    assert (refused.code, again.code) == (40100, 0)
    assert 0.6 <= again.at - refused.at < 5
    assert (report.refreshed, report.stopped, report.failures) == (4, None, [])
    assert outcomes == ["refreshed"] * 4, "each account is told of once"
    assert are_live(paced)


@pytest.mark.django_db(transaction=True)
def test_f53_refusals_of_all_that_is_in_flight_are_one_pause(paced: Simulator) -> None:
    paced.configure(latency_seconds=0.2)
    paced.fail_next("rate_limited", path=REFRESH, times=4)
    started = time.monotonic()
    report = services.refresh_due_accounts(concurrency=4)
    assert 0.6 < time.monotonic() - started < 10
    assert (report.refreshed, report.stopped) == (4, None)
    assert paced.count(REFRESH) == 8
    assert are_live(paced)


@pytest.mark.django_db(transaction=True)
def test_f53_turn_that_is_left_over_is_not_used_in_a_pause(paced: Simulator) -> None:
    first, second, *_ = BusinessAccount.objects.order_by("access_token_expires_at")
    assert (
        claims_module.claim([second.pk], "default") != []
    )  # so it needs no call, and its turn is left
    paced.fail_next("rate_limited", path=REFRESH)
    report = services.refresh_due_accounts(concurrency=2, accounts=[first, second])
    assert (report.refreshed, report.skipped, report.stopped) == (1, 1, None)
    refused, again = paced.calls
    assert again.at - refused.at >= 0.6


@pytest.mark.django_db(transaction=True)
def test_turn_that_is_left_over_is_not_used_later_than_its_time(paced: Simulator) -> None:
    """Somebody else has the next one by then, and together they would be too many."""
    first, second, *_ = BusinessAccount.objects.order_by("access_token_expires_at")
    assert (
        claims_module.claim([first.pk], "default") != []
    )  # so it needs no call, and its turn is left
    taken_at: list[float] = []

    def hold_up(result: RefreshResult) -> None:
        if result.outcome == "skipped":
            time.sleep(1.3)
            somebody_else = factory.limiter_from_settings(60)
            time.sleep(somebody_else.wait_seconds(rate_limit.WHEN_IDLE) + 0.02)
            assert somebody_else.reserve(rate_limit.WHEN_IDLE) is not None
            taken_at.append(time.time())

    report = services.refresh_due_accounts(
        accounts=[first, second], requests_per_minute=60, concurrency=1, on_result=hold_up
    )
    assert (report.refreshed, report.skipped) == (1, 1)
    (call,) = paced.calls
    assert call.at - taken_at[0] > 0.4


@pytest.mark.django_db(transaction=True)
def test_f53_run_that_is_refused_after_three_pauses_stops(paced: Simulator) -> None:
    paced.fail_next("rate_limited", path=REFRESH, times=None)
    report = services.refresh_due_accounts(concurrency=1)
    assert (report.refreshed, report.retry_later, report.stopped) == (0, 1, "rate_limited")
    assert paced.count(REFRESH) == 4
    (failure,) = report.failures
    assert (failure.outcome, failure.code) == ("retry_later", 40100)
    assert claims() == 0
    # They are all still due, the refused one too.
    assert not BusinessAccount.objects.exclude(status="active", next_attempt_at=None).exists()
    forget_ceilings()
    paced.clear_faults()
    assert services.refresh_due_accounts().refreshed == 4
    assert are_live(paced)


@pytest.mark.django_db(transaction=True)
def test_pause_that_is_longer_than_a_run_waits_stops_it_at_once(paced: Simulator) -> None:
    paced.fail_next("http_429", path=REFRESH, retry_after=900)
    started = time.monotonic()
    report = services.refresh_due_accounts(concurrency=1)
    assert time.monotonic() - started < 10
    assert (report.refreshed, report.retry_later, report.stopped) == (0, 1, "rate_limited")
    assert claims() == 0


@pytest.mark.django_db(transaction=True)
def test_run_can_be_stopped_in_a_pause(paced: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FIVE_MINUTES", 300)
    paced.fail_next("rate_limited", path=REFRESH)
    stop = threading.Event()
    timer = threading.Timer(0.4, stop.set)
    timer.start()
    report = services.refresh_due_accounts(concurrency=1, stop=stop)
    timer.join()
    assert (report.retry_later, report.stopped) == (1, "interrupted")
    assert paced.count(REFRESH) == 1
    assert claims() == 0


# TikTok is down, or only some accounts fail


OUTAGES: list[dict[str, Any]] = [
    {"fault": "connection_refused"},
    {"fault": "timeout_before"},
    {"fault": "code", "code": 50000},
    {"fault": "http_status", "http_status": 503},
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: str(outage["fault"]))
@pytest.mark.parametrize("concurrency", [1, 4])
def test_f53_outage_stops_the_run_and_changes_no_account(
    paced: Simulator, outage: dict[str, Any], concurrency: int
) -> None:
    for number in range(10):
        due(paced, f"account_{number}", 10 + number)
    before = rows()
    paced.fail_next(**outage, path=REFRESH, times=None)
    results: list[RefreshResult] = []
    with listening(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=concurrency, on_result=results.append)
    assert report.stopped == "tiktok_unavailable"
    # The fifth failure, what was in the pool at that moment, and the witness.
    assert 6 <= paced.count(REFRESH) <= 5 + concurrency + concurrency // 2
    assert report.retry_later == len(report.failures) == len(results) == paced.count(REFRESH)
    assert {result.outcome for result in results} == {"retry_later"}
    assert rows() == before, "claims and failures included"
    assert failed == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("last", [{}, {"fault": "code", "code": 40107}], ids=["success", "verdict"])
def test_f14_failures_that_something_else_follows_are_the_accounts_own(
    paced: Simulator, last: dict[str, Any]
) -> None:
    fifth = due(paced, "account_5", 5)
    accounts = list(BusinessAccount.objects.order_by("access_token_expires_at")[:4])
    paced.fail_next("code", code=50000, path=REFRESH, times=4)
    if last:
        paced.fail_next(**last, path=REFRESH)
    with listening(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=1)
    assert (report.retry_later, report.stopped) == (4, None)
    assert failed == [(account.pk, ServerError) for account in accounts]
    for account in accounts:
        account.refresh_from_db()
        assert (account.consecutive_failures, account.last_error_code) == (1, 50000)
        assert account.next_attempt_at is not None
    fifth.refresh_from_db()
    assert fifth.next_attempt_at is None
    assert claims() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_f14_accounts_that_always_fail_keep_no_other_from_being_refreshed(
    paced: Simulator, concurrency: int
) -> None:
    """The fifth failure calls a witness: the one that was refreshed most lately."""
    for number in range(4):
        due(paced, f"account_{number}", 10 + number)
    witness = due(paced, "witness", 60)
    BusinessAccount.objects.update(last_refreshed_at=timezone.now() - timedelta(days=2))
    witness.last_refreshed_at = timezone.now() - timedelta(hours=20)
    witness.save()
    paced.fail_next("code", code=50000, path=REFRESH, times=5)
    results: list[RefreshResult] = []
    report = services.refresh_due_accounts(concurrency=concurrency, on_result=results.append)
    assert (report.stopped, report.retry_later, report.refreshed) == (None, 5, 4)
    assert report.skipped == 0
    backing_off = BusinessAccount.objects.filter(next_attempt_at__isnull=False)
    assert backing_off.count() == 5
    if concurrency == 1:
        assert [result.pk for result in results].index(witness.pk) == 5
    assert claims() == 0


@pytest.mark.django_db(transaction=True)
def test_f14_witness_that_another_worker_has_is_replaced_by_another(
    paced: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        due(paced, f"account_{number}", 10 + number)
    witness = due(paced, "witness", 60)
    witness.last_refreshed_at = timezone.now() - timedelta(hours=20)
    witness.save()

    def let_another_worker_have_it() -> None:
        claims_module.claim([witness.pk], "default")

    paced.fail_next("code", code=50000, path=REFRESH, times=None)
    send_probe = batch._Batch.send_probe

    def call(run: Any) -> bool:
        is_called = send_probe(run)
        let_another_worker_have_it()
        return is_called

    monkeypatch.setattr(batch._Batch, "send_probe", call)
    report = services.refresh_due_accounts(concurrency=1)
    assert (report.stopped, report.skipped) == ("tiktok_unavailable", 1)
    assert claims() == 1


@pytest.mark.django_db(transaction=True)
def test_f14_few_failures_at_the_end_are_the_accounts_own(paced: Simulator) -> None:
    paced.fail_next("connection_refused", path=REFRESH, times=4)
    with listening(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=2)
    assert (report.retry_later, report.stopped) == (4, None)
    assert len(failed) == 4
    assert {row["consecutive_failures"] for row in rows()} == {1}
    assert claims() == 0


@pytest.mark.django_db(transaction=True)
def test_f53_refusals_for_the_rate_are_no_failures_of_an_account(
    paced: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "NEXT_SECOND", 0.1)
    paced.fail_next("rate_limited", path=REFRESH, message="App reaches the QPS limit.", times=2)
    paced.fail_next("code", code=50000, path=REFRESH)
    with listening(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=1, limit=1)
    assert report.retry_later == 1
    (row,) = BusinessAccount.objects.exclude(last_error_at=None)
    assert failed == [(row.pk, ServerError)]
    assert row.consecutive_failures == 1
    assert row.next_attempt_at is not None
    assert row.next_attempt_at - timezone.now() <= timedelta(minutes=1)


@pytest.mark.django_db(transaction=True)
def test_failures_before_an_interruption_are_written_down(paced: Simulator) -> None:
    paced.fail_next("connection_refused", path=REFRESH)
    stop = threading.Event()
    meanwhile(stop.set)  # with the answer to the second
    report = services.refresh_due_accounts(concurrency=1, stop=stop)
    assert (report.refreshed, report.retry_later, report.stopped) == (1, 1, "interrupted")
    assert sorted(row["consecutive_failures"] for row in rows()) == [0, 0, 0, 1]


@pytest.mark.django_db(transaction=True)
def test_f22_unreadable_token_neither_breaks_nor_makes_an_outage(paced: Simulator) -> None:
    """It is found out in the pool, without asking TikTok."""
    broken = BusinessAccount.objects.get(open_id=paced.open_id(ACCOUNTS[2]))
    BusinessAccount.objects.filter(pk=broken.pk).update(open_id="_moved")  # cannot be decrypted
    for number in range(6):
        due(paced, f"account_{number}", 10 + number)
    paced.fail_next("connection_refused", path=REFRESH, times=None)
    with listening(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=1)
    assert report.stopped == "tiktok_unavailable"
    assert report.undecryptable == 1
    assert report.retry_later == paced.count(REFRESH) >= 5
    assert failed == [(broken.pk, DecryptionError)]
    assert claims() == 0


@pytest.mark.django_db(transaction=True)
def test_f09_refused_credentials_stop_the_run_and_are_no_account_s_fault(paced: Simulator) -> None:
    paced.fail_next("connection_refused", path=REFRESH)
    paced.fail_next("code", code=40113, path=REFRESH, times=None)
    before = rows()
    report = services.refresh_due_accounts(concurrency=1)
    assert report.stopped == "app_credentials_rejected"
    assert report.retry_later == paced.count(REFRESH) == 2
    changed = [row["id"] for row in rows() if row not in before]
    assert changed == [before[0]["id"]], "the one that TikTok was not reached for"


# Accounts that keep failing


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
def test_account_that_waits_is_tried_when_somebody_asks_for_it(paced: Simulator) -> None:
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


# What goes wrong on this side


@pytest.mark.django_db(transaction=True)
def test_interrupt_of_a_call_costs_no_other_answer() -> None:
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
        assert claims() == 0


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
    assert claims() == 0


@pytest.mark.django_db(transaction=True)
def test_database_that_was_never_there_is_reported_before_tiktok_is_asked(
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
    assert claims() == 0


@pytest.mark.django_db(transaction=True)
def test_thread_that_cannot_be_started_costs_no_answer_and_leaves_no_claim(
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
    assert claims() == 0
    assert services.refresh_due_accounts().stopped is None
    assert are_live(paced)


@pytest.mark.django_db(transaction=True)
def test_call_that_waited_so_long_that_its_claim_may_not_last_is_made_under_a_new_one(
    paced: Simulator,
) -> None:
    # Two threads, and a third call that waits for one of them: a second is all that it has.
    paced.configure(latency_seconds=1.3)
    with override_tiktok(CLAIM_SECONDS=30, MAX_ATTEMPTS=1):
        report = services.refresh_due_accounts(concurrency=2)
    assert (report.refreshed, report.skipped, report.stopped) == (4, 0, None)
    assert paced.count(REFRESH) == 4
    assert are_live(paced)
    assert claims() == 0


def session_slow_to_grant() -> requests.Session:
    """A session factory: tokens arrive later than refusals, so that these are known first."""
    session = simulator_session()

    def dawdle(response: requests.Response, **kwargs: Any) -> None:
        time.sleep(0 if response.json()["code"] else 0.3)

    session.hooks["response"].append(dawdle)
    return session


@pytest.mark.django_db(transaction=True)
def test_f53_calls_that_wait_for_a_thread_are_not_made_in_a_pause(paced: Simulator) -> None:
    for number in range(8):
        due(paced, f"account_{number}", 10 + number)
    paced.configure(latency_seconds=0.2)
    paced.fail_next("rate_limited", path=REFRESH)
    with override_tiktok(SESSION_FACTORY_PATH="tests.tokens.test_batch.session_slow_to_grant"):
        report = services.refresh_due_accounts(concurrency=4)
    assert (report.refreshed, report.stopped) == (12, None)
    (refused,) = [call for call in paced.calls if call.code]
    later = [call.at - refused.at for call in paced.calls if call.at - refused.at > 0.15]
    assert min(later) >= 0.6
    assert are_live(paced)
