"""The batch when something of its own goes wrong: answers in flight are saved first."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import Error, connection, connections, transaction

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import RefreshResult
from tests.factories import connect
from tests.utils import override_tiktok, running_simulator

ACCOUNTS = ("harbour_bakery", "bike_shop", "tea_house", "book_corner")
DAY_SECONDS = 86_400


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
        simulator.configure(latency_seconds=0.2)  # so that all are in flight at once
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
        for name in ACCOUNTS[:2]:
            connect(simulator, name)
        started = time.monotonic()
        saved_after_seconds: list[float] = []

        def note(result: RefreshResult) -> None:
            saved_after_seconds.append(time.monotonic() - started)

        with override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS):
            services.refresh_due_accounts(concurrency=2, requests_per_minute=30, on_result=note)
    first, second = saved_after_seconds
    assert first < 1.5
    assert 2 < second < 3.5, "nor is there a pause at the end"


@pytest.mark.django_db
def test_pause_ends_when_the_run_is_to_stop() -> None:
    stop = threading.Event()
    with running_simulator() as simulator, override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS):
        for name in ACCOUNTS:
            connect(simulator, name)
        started = time.monotonic()
        report = services.refresh_due_accounts(
            requests_per_minute=1, stop=stop, on_result=lambda result: stop.set()
        )
    assert time.monotonic() - started < 10
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
    """Otherwise a run without a database would report every account as busy and go on."""
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
            with override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS), pytest.raises(Error):
                services.refresh_due_accounts(concurrency=1, requests_per_minute=0, on_result=note)
        finally:
            connection.close()
    assert BusinessAccount.objects.filter(last_refreshed_at=None).count() == 3
