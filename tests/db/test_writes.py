"""TikTok's answers survive the caller's rollback and a database that is away for a while."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
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
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.db import writes
from django_tiktok_business.exceptions import AccountBusyError, AccountGoneError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.expired import REFRESH, expired, stored_pair
from tests.support.factories import connect, make_account
from tests.support.simulator import (
    meanwhile,
    next_statement,
    running_simulator,
    wait_for_savers,
)


class TimeLimitError(Exception):
    """What a task queue raises in its worker, at any point."""


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
        connections["default"].close()  # anything uncommitted is gone
        seen.append(stored_pair(account) == simulator.live_tokens(account.open_id))

    with transaction.atomic():
        services.refresh_due_accounts(on_result=look)
    assert seen == [True]


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
    """Projects' own tests run in a transaction that is never committed."""

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
def test_save_that_is_given_up_is_logged(caplog: pytest.LogCaptureFixture) -> None:
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
    """The old primary is read-only while a standby takes over."""
    account = expired(simulator)

    def become_read_only() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")

    meanwhile(become_read_only)
    services.get_access_token(account)
    assert stored_pair(account) == simulator.live_tokens(account.open_id)


@pytest.mark.django_db(transaction=True)
def test_database_that_was_away_for_too_long_is_not_waited_for_as_long_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a run that ends would wait a minute for each answer in flight."""
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

    assert tries(0) == 1  # without waiting, nothing is known
    assert tries(0.5) > 1
    assert tries(0.5) == 1
    assert tries(0.5, is_back=True) == 1
    assert tries(0.5) > 1
    assert tries(0.5, is_back=True) == 1


@pytest.mark.django_db(transaction=True)
def test_update_row_writes_where_all_values_match_and_counts_the_rows() -> None:
    account, other = make_account(), make_account(open_id="other")
    changes = {"bio": "new", "scopes": ["video.list"], "last_error_code": None}
    where = {"id": account.pk, "claim_id": ""}
    with CaptureQueriesContext(connection) as queries:
        assert writes.update_row(BusinessAccount, changes, where=where, using="default") == 1
    assert sum(query["sql"].startswith("UPDATE") for query in queries) == 1
    account.refresh_from_db()
    other.refresh_from_db()
    assert (account.bio, account.scopes, other.bio) == ("new", ["video.list"], "")
    where["claim_id"] = "somebody's"
    assert writes.update_row(BusinessAccount, changes, where=where, using="default") == 0


@pytest.mark.django_db(transaction=True)
def test_work_after_commit_waits_for_the_commit_and_not_for_a_rollback() -> None:
    done: list[str] = []
    writes.after_commit(lambda: done.append("outside"), "default")
    with transaction.atomic():
        writes.after_commit(lambda: done.append("inside"), "default")
        assert done == ["outside"]
    with transaction.atomic():
        writes.after_commit(lambda: done.append("rolled back"), "default")
        transaction.set_rollback(True)
    assert done == ["outside", "inside"]


@pytest.mark.django_db(transaction=True)
def test_only_a_transaction_of_the_caller_counts_as_one() -> None:
    assert not writes.is_in_transaction("default")
    with transaction.atomic():
        assert writes.is_in_transaction("default")
    transaction.set_autocommit(False)
    try:
        assert writes.is_in_transaction("default")
    finally:
        transaction.set_autocommit(True)
    connection.close()
    assert not writes.is_in_transaction("default"), "and it has not connected to know"
    assert connection.connection is None


@pytest.mark.django_db
def test_transaction_around_a_test_case_does_not_count() -> None:
    assert connection.in_atomic_block
    assert not writes.is_in_transaction("default")
