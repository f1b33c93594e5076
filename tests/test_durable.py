"""What TikTok has issued survives the caller's rollback and a database that is away for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test import TestCase
from django.utils import timezone

from django_tiktok_business import durable, services
from django_tiktok_business.exceptions import AccountBusyError, AccountGoneError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.factories import connect
from tests.utils import meanwhile, override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator


def expired(simulator: Simulator) -> BusinessAccount:
    return connect(simulator, access_token_expires_at=timezone.now() - timedelta(hours=1))


def stored_pair(account: BusinessAccount) -> tuple[str, str]:
    row = BusinessAccount.objects.get(pk=account.pk)
    return row.access_token, row.refresh_token


def wait_for_savers() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("tiktok_business"):
            thread.join(timeout=30)
            assert not thread.is_alive()


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


class InsideATestCaseTests(TestCase):
    """Projects' own tests run in a transaction that nobody else can see into."""

    def test_refresh_works_on_the_connection_of_the_test(self) -> None:
        with running_simulator() as simulator, transaction.atomic():
            account = expired(simulator)
            services.get_access_token(account)
            assert stored_pair(account) == simulator.live_tokens(account.open_id)


class Away:
    """A write to a database that comes back after some tries."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self.failures:
            raise OperationalError("the database is away")
        return "written"


@pytest.mark.django_db(transaction=True)
def test_answer_is_kept_in_memory_while_the_database_is_away() -> None:
    write = Away(failures=3)
    connection.ensure_connection()
    assert durable.persisted(write, "default") == "written"
    assert write.tries == 4


@pytest.mark.django_db(transaction=True)
def test_save_after_a_rollback_is_tried_until_the_lock_is_free() -> None:
    write = Away(failures=2)
    durable.save_after_rollback(write, "default")
    wait_for_savers()
    assert write.tries == 3


@pytest.mark.django_db(transaction=True)
def test_save_that_is_given_up_is_told(caplog: pytest.LogCaptureFixture) -> None:
    durable.save_after_rollback(Away(failures=1000), "default", patience_seconds=0.2)
    wait_for_savers()
    assert "SQLite stayed locked" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_broken_transaction_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    write = Away(failures=1)
    with transaction.atomic(), pytest.raises(OperationalError):
        durable.persisted(write, "default")
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
