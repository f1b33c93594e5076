"""One thread of a process refreshes an account; the others wait and share its result."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import (
    AccountBusyError,
    ReauthorizationRequired,
    RetryableError,
    ServerError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import refresh, single_flight
from tests.support.accounts import pair, stored
from tests.support.factories import connect
from tests.support.processes import wait_until
from tests.support.simulator import override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_threads_that_wait_share_a_failure_instead_of_repeating_it() -> None:
    with (
        running_simulator(latency_seconds=0.5) as simulator,
        override_tiktok(MAX_ATTEMPTS=1),
    ):
        account = connect(simulator)
        simulator.fail_next("code", code=50000, path=REFRESH, times=None)
        outcomes = in_threads(5, lambda: error_of(stored(account)))
        assert simulator.count(REFRESH) == 1
        assert outcomes == ["ServerError"] * 5


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.REAUTHORIZATION_REQUIRED])
def test_threads_that_wait_share_a_success_instead_of_repeating_it(status: str) -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.5) as simulator,
        override_tiktok(MAX_ATTEMPTS=1),
    ):
        account = connect(simulator, status=status)
        refreshed = in_threads(5, lambda: services.refresh_account(stored(account)))
        assert simulator.count(REFRESH) == 1
        live = simulator.live_tokens(account.open_id)
        assert [pair(row) for row in refreshed] == [live] * 5
        assert {row.status for row in refreshed} == {Status.ACTIVE}


def test_threads_that_wait_share_a_rejection_of_an_account_that_was_rejected_before() -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.5) as simulator,
        override_tiktok(MAX_ATTEMPTS=1),
    ):
        account = connect(simulator, status=Status.REAUTHORIZATION_REQUIRED)
        simulator.revoke_grant(account.open_id)

        def work() -> str:
            with pytest.raises(ReauthorizationRequired) as caught:
                services.refresh_account(stored(account))
            return type(caught.value).__name__

        in_threads(4, work)
        assert simulator.count(REFRESH) == 1


@pytest.mark.parametrize("latency", [0.0, 0.3])
def test_f01_f20_many_threads_share_one_refresh(latency: float) -> None:
    with running_simulator(strict=True, latency_seconds=latency) as simulator:
        account = connect(simulator, access_token_expires_at=timezone.now())
        tokens = in_threads(12, lambda: services.get_access_token(stored(account)))
        assert simulator.count(REFRESH) == 1
        live = simulator.live_tokens(account.open_id)
        assert live is not None
        assert set(tokens) == {live[0]}


def error_of(account: BusinessAccount) -> str:
    with pytest.raises(RetryableError) as caught:
        services.refresh_account(account)
    return type(caught.value).__name__


def in_threads(count: int, work: Any) -> list[Any]:
    """Run ``work`` in threads that begin together, each with its own database connection."""
    barrier = threading.Barrier(count)

    def run() -> Any:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=30)
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(run) for _ in range(count)]]


def under_way() -> int:
    return len(single_flight.shared_refreshes.under_way)


def under_way_and_locks() -> int:
    """The number of refreshes under way, and one more while the lock is held."""
    return under_way() + single_flight.shared_refreshes.lock.locked()


@contextmanager
def leading(work: Callable[[], object]) -> Iterator[list[Any]]:
    """Run ``work`` in another thread; yields a list of what it returned or raised."""
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(work())
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            outcomes.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: under_way() == 1)
        yield outcomes
    finally:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_thread_that_waits_for_another_takes_no_query_and_shares_the_row() -> None:
    with running_simulator(strict=True, latency_seconds=0.6) as simulator:
        account = connect(simulator)
        follower = stored(account)
        with leading(lambda: services.refresh_account(account)) as led:
            wait_until(lambda: simulator.count(REFRESH) == 1)
            with CaptureQueriesContext(connection) as queries:
                services.refresh_account(follower)
        assert len(queries) == 0
        assert led == [account]
        assert simulator.count(REFRESH) == 1
        assert pair(follower) == pair(account) == simulator.live_tokens(account.open_id)
        assert under_way() == 0


def test_thread_that_waits_for_another_shares_a_copy_of_its_error() -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.6) as simulator,
        override_tiktok(MAX_ATTEMPTS=1),
    ):
        account = connect(simulator)
        follower = stored(account)
        simulator.fail_next("code", code=50000, path=REFRESH)
        with (
            leading(lambda: services.refresh_account(account)) as led,
            pytest.raises(ServerError) as caught,
        ):
            services.refresh_account(follower)
        (error,) = led
        assert type(error) is ServerError
        assert caught.value is not error, "a traceback belongs to one thread"
        assert (caught.value.code, caught.value.request_id) == (error.code, error.request_id)
        assert simulator.count(REFRESH) == 1
        assert stored(account).consecutive_failures == 1


def test_row_may_be_fresh_enough_for_one_caller_only(
    simulator: Simulator,
) -> None:
    """A caller that needs a token for longer than the first one refreshes it by itself."""
    in_an_hour = timezone.now() + timedelta(hours=1)
    account = connect(simulator, access_token_expires_at=in_an_hour)
    follower = stored(account)
    follower.access_token_expires_at = timezone.now()
    may_look = threading.Event()

    def is_fresh_enough(row: BusinessAccount) -> bool:
        assert may_look.wait(timeout=30)
        return row.is_access_token_valid_for(timedelta(minutes=5))

    with leading(
        lambda: refresh.refresh_once(account.pk, "default", is_fresh_enough=is_fresh_enough)
    ) as led:
        timer = threading.Timer(0.3, may_look.set)
        timer.start()
        token = services.get_access_token(follower, min_validity_seconds=7200)
        timer.join()
    assert pair(led[0]) == pair(account) != pair(follower)
    assert simulator.count(REFRESH) == 1
    live = simulator.live_tokens(account.open_id)
    assert live is not None
    assert token == live[0]


def test_error_that_is_fresh_enough_raises_is_not_shared(simulator: Simulator) -> None:
    account = connect(simulator, status=Status.REAUTHORIZATION_REQUIRED)
    follower = stored(account)
    may_look = threading.Event()

    def is_fresh_enough(row: BusinessAccount) -> bool:
        assert may_look.wait(timeout=30)
        raise ReauthorizationRequired("Not for me.")

    with leading(
        lambda: refresh.refresh_once(account.pk, "default", is_fresh_enough=is_fresh_enough)
    ) as led:
        timer = threading.Timer(0.3, may_look.set)
        timer.start()
        services.refresh_account(follower)  # to see whether TikTok accepts it after all
        timer.join()
    assert [str(error) for error in led] == ["Not for me."]
    assert stored(account).status == Status.ACTIVE
    assert simulator.count(REFRESH) == 1


def test_thread_that_ended_without_a_result_lets_the_next_one_try(simulator: Simulator) -> None:
    account = connect(simulator)
    follower = stored(account)
    may_look = threading.Event()

    def end_without_a_result() -> None:
        shared = single_flight.SharedRefresh()  # ends before it has read the row
        single_flight.shared_refreshes.under_way["default", account.pk] = shared
        assert may_look.wait(timeout=30)
        del single_flight.shared_refreshes.under_way["default", account.pk]
        shared.done.set()
        assert shared.result(lambda row: True) is None

    with leading(end_without_a_result) as led:
        timer = threading.Timer(0.3, may_look.set)
        timer.start()
        services.refresh_account(follower)
        timer.join()
    assert led == [None]
    assert simulator.count(REFRESH) == 1
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_waiting_for_another_thread_is_bounded_by_the_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refresh, "LOCK_PATIENCE_SECONDS", 0)
    with running_simulator(strict=True, latency_seconds=3) as simulator:
        account = connect(simulator)
        follower = stored(account)
        with leading(lambda: services.refresh_account(account)) as led:
            wait_until(lambda: simulator.count(REFRESH) == 1)
            with (
                override_tiktok(CLAIM_SECONDS=1),
                pytest.raises(AccountBusyError, match="Another thread holds the account"),
            ):
                services.refresh_account(follower)
        assert led == [account]
        assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_receiver_that_refreshes_the_account_does_not_wait_for_itself(
    simulator: Simulator,
) -> None:
    """It runs inside the refresh of its own thread, which would never end."""
    account = connect(simulator)
    tokens: list[str] = []

    def receiver(account: BusinessAccount, **kwargs: Any) -> None:
        assert under_way() == 1
        signals.tokens_refreshed.disconnect(receiver)
        services.refresh_account(account)
        tokens.append(services.get_access_token(account))

    signals.tokens_refreshed.connect(receiver)
    try:
        services.refresh_account(account)
    finally:
        signals.tokens_refreshed.disconnect(receiver)
    assert simulator.count(REFRESH) == 2
    live = simulator.live_tokens(account.open_id)
    assert live is not None
    assert tokens == [live[0]]
    assert pair(stored(account)) == live
    assert under_way() == 0


def test_child_process_has_none_of_its_parent_s_refreshes() -> None:
    """No thread there would ever end them or release their lock."""
    with (
        running_simulator(strict=True, latency_seconds=0.6) as simulator,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        account = connect(simulator)
        with leading(lambda: services.refresh_account(account)):
            wait_until(lambda: simulator.count(REFRESH) == 1)
            with single_flight.shared_refreshes.lock:
                child = os.fork() or os._exit(under_way_and_locks())
                assert under_way_and_locks() == 2
            _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
