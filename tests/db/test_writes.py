"""What TikTok has issued survives the caller's rollback and a database that is away for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import (
    DatabaseError,
    InterfaceError,
    InternalError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.test import TestCase
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.db import writes
from django_tiktok_business.exceptions import AccountBusyError, AccountGoneError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect
from tests.support.simulator import (
    meanwhile,
    next_statement,
    override_tiktok,
    running_simulator,
    wait_for_savers,
)

REFRESH = "/tt_user/oauth2/refresh_token/"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator


class TimeLimitError(Exception):
    """What a task queue raises wherever its worker happens to be."""


def expired(simulator: Simulator) -> BusinessAccount:
    return connect(simulator, access_token_expires_at=timezone.now() - timedelta(hours=1))


def stored_pair(account: BusinessAccount) -> tuple[str, str]:
    row = BusinessAccount.objects.get(pk=account.pk)
    return row.access_token, row.refresh_token


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("writes_first", [False, True])
def test_f15_pair_survives_the_rollback_of_the_caller(
    simulator: Simulator, writes_first: bool
) -> None:
    account = expired(simulator)
    other = connect(simulator, "account_2")
    with transaction.atomic():
        if writes_first:
            BusinessAccount.objects.filter(pk=other.pk).update(bio="rolled back")
        assert BusinessAccount.objects.get(pk=account.pk) == account
        token = services.get_access_token(account)
        transaction.set_rollback(True)
    wait_for_savers()

    live = simulator.live_tokens(account.open_id)
    assert live is not None
    assert token == live[0]
    assert stored_pair(account) == live == (account.access_token, account.refresh_token)
    assert BusinessAccount.objects.get(pk=other.pk).bio == ""
    assert simulator.count(REFRESH) == 1


@pytest.mark.django_db(transaction=True)
def test_f15_pair_survives_the_commit_of_the_caller(simulator: Simulator) -> None:
    account = expired(simulator)
    with transaction.atomic():
        services.get_access_token(account)
        BusinessAccount.objects.filter(pk=account.pk).update(bio="committed")
    wait_for_savers()
    row = BusinessAccount.objects.get(pk=account.pk)
    assert row.bio == "committed"
    assert stored_pair(account) == simulator.live_tokens(account.open_id)
    assert (row.credentials_version, row.claim_id) == (1, "")


@pytest.mark.django_db(transaction=True)
def test_f15_pair_survives_the_rollback_of_a_savepoint(simulator: Simulator) -> None:
    account = expired(simulator)
    with transaction.atomic(), transaction.atomic():
        services.get_access_token(account)
        transaction.set_rollback(True)
    wait_for_savers()
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
def test_f15_pair_survives_the_rollback_of_a_caller_without_autocommit(
    simulator: Simulator,
) -> None:
    account = expired(simulator)
    transaction.set_autocommit(False)
    try:
        services.get_access_token(account)
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    wait_for_savers()
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql", "mysql")
def test_f15_pair_survives_settings_without_autocommit(simulator: Simulator) -> None:
    account = expired(simulator)
    connection.close()
    connection.settings_dict["AUTOCOMMIT"] = False
    try:
        services.get_access_token(account)
        connection.rollback()
    finally:
        connection.settings_dict["AUTOCOMMIT"] = True
        connection.close()
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
def test_f15_batch_survives_the_rollback_of_the_caller(simulator: Simulator) -> None:
    accounts = [
        connect(simulator, f"account_{number}", access_token_expires_at=timezone.now())
        for number in range(3)
    ]
    with transaction.atomic():
        report = services.refresh_due_accounts()
        transaction.set_rollback(True)
    wait_for_savers()
    assert report.refreshed == 3
    for account in accounts:
        assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql", "mysql")
def test_f15_batch_commits_each_pair_while_the_caller_s_transaction_is_open(
    simulator: Simulator,
) -> None:
    account = expired(simulator)
    seen: list[bool] = []

    def look(result: services.RefreshResult) -> None:
        connections["default"].close()  # whatever was not committed is gone
        seen.append(stored_pair(account) == simulator.live_tokens(account.open_id))

    with transaction.atomic():
        services.refresh_due_accounts(on_result=look)
    assert seen == [True]


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql", "mysql")
def test_row_that_the_caller_has_locked_is_an_error_and_no_deadlock(simulator: Simulator) -> None:
    account = expired(simulator)
    with transaction.atomic():
        BusinessAccount.objects.filter(pk=account.pk).update(bio="locked")
        with pytest.raises(AccountBusyError, match="locked the account"):
            services.get_access_token(account)
    assert simulator.count(REFRESH) == 0
    services.get_access_token(account)
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql", "mysql")
def test_row_that_the_caller_has_not_committed_yet_is_an_error(simulator: Simulator) -> None:
    with transaction.atomic():
        account = expired(simulator)
        with pytest.raises(AccountGoneError, match="not committed yet"):
            services.get_access_token(account)
    assert simulator.count(REFRESH) == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("sqlite")
def test_saver_waits_for_a_transaction_that_stays_open(simulator: Simulator) -> None:
    account = expired(simulator)
    with transaction.atomic():
        services.get_access_token(account)
        time.sleep(1)
        transaction.set_rollback(True)
    wait_for_savers()
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), TimeLimitError()])
def test_f08_answer_that_arrived_survives_an_interrupted_save(
    simulator: Simulator, error: BaseException
) -> None:
    """Ctrl-C, or the time limit of a worker, at the moment of the UPDATE."""
    account = expired(simulator)
    with next_statement("UPDATE", error) as interrupt:
        meanwhile(interrupt)
        with pytest.raises(type(error)):
            services.get_access_token(account)
    wait_for_savers()
    assert stored_pair(account) == simulator.live_tokens(account.open_id)
    assert BusinessAccount.objects.get().claim_id == ""


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("sqlite")
def test_f08_answer_that_cannot_be_saved_at_once_is_saved_later(simulator: Simulator) -> None:
    account = expired(simulator)
    with (
        next_statement("UPDATE", OperationalError("disk I/O error")) as fail,
        transaction.atomic(),
    ):
        meanwhile(fail)
        with pytest.raises(AccountBusyError, match="goes on trying"):
            services.get_access_token(account)
    wait_for_savers()
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


class InsideATestCaseTests(TestCase):
    """Projects' own tests run in a transaction that nobody else can see into."""

    def test_refresh_works_on_the_connection_of_the_test(self) -> None:
        with running_simulator() as simulator, transaction.atomic():
            account = expired(simulator)
            services.get_access_token(account)
            assert stored_pair(account) == simulator.live_tokens(account.open_id)

    def test_save_that_fails_leaves_no_thread_behind(self) -> None:
        with (
            running_simulator() as simulator,
            next_statement("UPDATE", OperationalError()) as fail,
        ):
            account = expired(simulator)
            meanwhile(fail)
            with pytest.raises(AccountBusyError):
                services.get_access_token(account)
        assert not [thread for thread in threading.enumerate() if "tiktok" in thread.name]


class Away:
    """A write to a database that comes back after some tries."""

    def __init__(self, failures: int, error: type[Exception] = OperationalError) -> None:
        self.failures = failures
        self.error = error
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self.failures:
            raise self.error("the database is away")
        return "written"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [OperationalError, InterfaceError, InternalError])
def test_answer_is_kept_in_memory_while_the_database_is_away(error: type[Exception]) -> None:
    write = Away(failures=3, error=error)
    connection.ensure_connection()
    assert writes.store_answer(write, "default") == "written"
    assert write.tries == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [OperationalError, InterfaceError, DatabaseError])
def test_later_save_is_tried_until_the_lock_is_free(error: type[Exception]) -> None:
    write = Away(failures=2, error=error)
    writes.save_later(write, "default")
    wait_for_savers()
    assert write.tries == 3


@pytest.mark.django_db(transaction=True)
def test_save_that_is_given_up_is_told(caplog: pytest.LogCaptureFixture) -> None:
    writes.save_later(Away(failures=1000), "default", patience_seconds=0.2)
    wait_for_savers()
    assert "stayed locked or away" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_broken_transaction_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    write = Away(failures=1)
    with transaction.atomic(), pytest.raises(OperationalError):
        writes.store_answer(write, "default")
    assert write.tries == 1
    assert "could not be stored" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql")
def test_pair_is_saved_over_a_new_connection_when_the_old_one_is_cut(
    simulator: Simulator,
) -> None:
    """The server ends our connection between TikTok's answer and the save."""
    account = expired(simulator)
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()

    def cut() -> None:
        def run(result: list[Any]) -> None:
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
                result.append(cursor.fetchone())
            connections.close_all()

        result: list[Any] = []
        thread = threading.Thread(target=run, args=[result])
        thread.start()
        thread.join()
        assert result == [(True,)]

    meanwhile(cut)
    services.get_access_token(account)
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql")
def test_pair_is_saved_when_the_server_was_read_only_for_a_moment(simulator: Simulator) -> None:
    """As the old primary is, while a standby takes over."""
    account = expired(simulator)

    def become_read_only() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")

    meanwhile(become_read_only)
    services.get_access_token(account)
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql", "mysql")
def test_patience_with_locks_is_the_projects_own_again_afterwards(simulator: Simulator) -> None:
    query = {
        "postgresql": ("SET lock_timeout = '7s'", "SHOW lock_timeout"),
        "mysql": ("SET innodb_lock_wait_timeout = 7", "SELECT @@innodb_lock_wait_timeout"),
    }
    choose, show = query[connection.vendor]
    account = expired(simulator)
    with connection.cursor() as cursor:
        cursor.execute(choose)
        services.refresh_account(account)
        cursor.execute(show)
        assert str(cursor.fetchone()[0]).startswith("7")
    connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql")
def test_claim_that_is_in_conflict_for_a_moment_is_tried_again(simulator: Simulator) -> None:
    account = expired(simulator)
    is_locked = threading.Event()

    def lock_for_a_moment() -> None:
        try:
            with transaction.atomic():
                BusinessAccount.objects.select_for_update().get(pk=account.pk)
                is_locked.set()
                time.sleep(1)
        finally:
            connections.close_all()

    thread = threading.Thread(target=lock_for_a_moment)
    thread.start()
    assert is_locked.wait(timeout=30)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '200ms'")  # so that the claim fails at once
        services.get_access_token(account)
    finally:
        connection.close()
        thread.join()
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql")
def test_workers_wait_for_each_other_under_serializable_isolation() -> None:
    # Not there where the database is another.
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    connection.settings_dict["OPTIONS"]["isolation_level"] = IsolationLevel.SERIALIZABLE
    connection.close()
    try:
        with running_simulator(strict=True, latency_seconds=0.2) as simulator:
            account = expired(simulator)
            barrier = threading.Barrier(8)

            def work() -> str:
                try:
                    row = BusinessAccount.objects.get(pk=account.pk)
                    barrier.wait(timeout=30)
                    return services.get_access_token(row)
                finally:
                    connections.close_all()

            with ThreadPoolExecutor(8) as pool:
                tokens = {future.result() for future in [pool.submit(work) for _ in range(8)]}
            assert simulator.count(REFRESH) == 1
            live = simulator.live_tokens(account.open_id)
            assert live is not None
            assert tokens == {live[0]}
    finally:
        del connection.settings_dict["OPTIONS"]["isolation_level"]
        connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql", "mysql")
def test_error_that_is_no_locked_row_is_told_as_it_is() -> None:
    def fill_the_disk() -> None:
        raise OperationalError("no space left on device")

    with transaction.atomic(), pytest.raises(OperationalError, match="no space left"):
        writes.commit_independently(fill_the_disk, "default")


@pytest.mark.django_db(transaction=True)
def test_database_that_was_away_for_too_long_is_not_waited_for_as_long_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a run that ends would wait for a minute with each answer that is in flight."""
    monkeypatch.setattr(writes, "SHORT_PATIENCE_SECONDS", 0)

    def tries(patience_seconds: float, *, is_back: bool = False) -> int:
        done = []

        def work() -> None:
            done.append("tried")
            if not is_back:
                raise OperationalError

        with suppress(OperationalError):
            writes.retry_while_unavailable(work, "default", patience_seconds=patience_seconds)
        return len(done)

    assert tries(0) == 1  # nobody waited, so nothing is known
    assert tries(0.5) > 1
    assert tries(0.5) == 1
    assert tries(0.5, is_back=True) == 1
    assert tries(0.5) > 1
    assert tries(0.5, is_back=True) == 1
