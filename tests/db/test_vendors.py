"""Locked rows and failing databases, as each vendor reports them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection, connections, transaction

from django_tiktok_business import services
from django_tiktok_business.db import writes
from django_tiktok_business.db.vendors import (
    describe_error,
    is_autocommit,
    is_conflict,
    lock_errors_as_busy,
)
from django_tiktok_business.exceptions import AccountBusyError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.expired import REFRESH, expired, stored_pair
from tests.support.simulator import running_simulator


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
            cursor.execute("SET statement_timeout = '200ms'")  # so that the first claim fails
        services.get_access_token(account)
    finally:
        connection.close()
        thread.join()
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("postgresql")
def test_workers_wait_for_each_other_under_serializable_isolation() -> None:
    # Imported here, because it needs the driver.
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
def test_error_that_is_no_lock_conflict_is_raised_unchanged() -> None:
    def fill_the_disk() -> None:
        raise OperationalError("no space left on device")

    with transaction.atomic(), pytest.raises(OperationalError, match="no space left"):
        writes.commit_independently(fill_the_disk, "default")


class DriverError(Exception):
    """A driver's own exception, which Django wraps."""


def wrapped(*args: object, **attributes: object) -> OperationalError:
    cause = DriverError(*args)
    vars(cause).update(attributes)
    error = OperationalError("row: act.canary")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        wrapped(sqlstate="55P03"),
        wrapped(pgcode="40P01"),
        wrapped(1205, "Lock wait timeout exceeded"),
        wrapped(1213, "Deadlock found"),
        wrapped(sqlite_errorname="SQLITE_BUSY"),
    ],
    ids=["psycopg 3", "psycopg 2", "wait", "deadlock", "sqlite"],
)
def test_conflict_is_recognised_by_the_drivers_code(error: OperationalError) -> None:
    assert is_conflict(error)
    assert describe_error(error) == "The database failed (OperationalError)"


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (wrapped(sqlstate="25006"), "The database is read-only"),
        (wrapped(1290, "--read-only"), "The database is read-only"),
        (wrapped(sqlite_errorname="SQLITE_READONLY"), "The database is read-only"),
        (wrapped(pgcode="53100"), "The database is full"),
        (wrapped(1114, "The table is full"), "The database is full"),
        (wrapped(sqlite_errorname="SQLITE_FULL"), "The database is full"),
        (wrapped(), "The database failed (OperationalError)"),
        (OperationalError("row: act.canary"), "The database failed (OperationalError)"),
    ],
)
def test_other_errors_are_described_without_their_text(
    error: OperationalError, description: str
) -> None:
    assert not is_conflict(error)
    assert describe_error(error) == description


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases("sqlite")
def test_conflict_inside_the_block_is_a_busy_account() -> None:
    def locked(*statement: object) -> None:
        raise wrapped(sqlite_errorname="SQLITE_LOCKED")

    with (
        connection.execute_wrapper(locked),
        pytest.raises(AccountBusyError, match="locked the account"),
        lock_errors_as_busy("default"),
    ):
        BusinessAccount.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_other_errors_inside_the_block_are_raised_unchanged() -> None:
    with pytest.raises(OperationalError, match="canary"), lock_errors_as_busy("default"):
        raise wrapped()


@pytest.mark.django_db(transaction=True)
def test_autocommit_is_off_inside_a_transaction() -> None:
    assert is_autocommit(connection)
    with transaction.atomic():
        assert not is_autocommit(connection)
