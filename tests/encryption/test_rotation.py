"""Re-encrypt all tokens under the first key: none is lost, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from django.db import InterfaceError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_tiktok_business import services
from django_tiktok_business.encryption import rotation
from django_tiktok_business.models import BusinessAccount
from tests.support.engine import environment, start
from tests.support.factories import connect, make_account
from tests.support.rotation import (
    NEW,
    NEW_ID,
    OLD,
    OLD_ID,
    assert_tokens,
    keys,
    make,
    rotate,
    stored,
)
from tests.support.simulator import meanwhile, next_statement, running_simulator

TOKENS = ("access_token", "refresh_token")

pytestmark = pytest.mark.django_db(transaction=True)


def make_many(count: int) -> None:
    rows = [
        BusinessAccount(
            app_id="7000000000000000001",
            open_id=f"account_{number}",
            access_token=f"act.access-{number}",
            refresh_token=f"rft.refresh-{number}",
        )
        for number in range(count)
    ]
    with keys(OLD):
        BusinessAccount.objects.bulk_create(rows)


def test_f28_all_rows_are_readable_with_the_new_key_alone() -> None:
    with keys(OLD):
        for number in range(3):
            make(number, app_id="another app" if number == 2 else "7000000000000000001")
    with keys(NEW, OLD):
        make(3)
        assert rotate() == (
            0,
            [f"key {NEW_ID} (the first): rows=4", "rotated=3 current=1 unreadable=0 busy=0"],
        )
    assert OLD_ID not in str(stored())
    with keys(NEW):
        for number in range(4):
            assert_tokens(number)


def test_second_run_writes_nothing() -> None:
    with keys(OLD):
        make()
    with keys(NEW, OLD):
        rotate()
        before = stored()
        with CaptureQueriesContext(connection) as queries:
            assert rotate("--verbosity", "0") == (0, ["rotated=0 current=1 unreadable=0 busy=0"])
    assert stored() == before
    assert [query["sql"] for query in queries if query["sql"].startswith("UPDATE")] == []


def test_nothing_but_the_ciphertext_changes() -> None:
    with keys(OLD):
        account = make(claim_id="somebody's")
        before = dict[str, Any](BusinessAccount.objects.values().get())
    with keys(NEW, OLD):
        rotate()
        after = dict[str, Any](BusinessAccount.objects.values().get())
    assert {name for name in before if after[name] != before[name]} == set(TOKENS)
    assert account.pk == after["id"]


def test_disconnected_accounts_have_nothing_to_rotate() -> None:
    with keys(OLD):
        make_account(access_token="", refresh_token="", status=BusinessAccount.Status.REVOKED)
    with keys(NEW):
        assert rotate() == (0, ["rotated=0 current=1 unreadable=0 busy=0"])
    assert stored() == {"_000TestOpenId0001": " "}


class Interfering:
    """Calls something before the next UPDATEs of the accounts, ``times`` times."""

    def __init__(self, event: Any, times: int = 1) -> None:
        self.event = event
        self.times = times

    def __call__(self, execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE") and self.times:
            self.times -= 1
            times, self.times = self.times, 0  # not for its own statements
            self.event()
            self.times = times
        return execute(sql, *arguments)


def store_another_pair() -> None:
    """What a worker does that does not know the new key yet."""
    with keys(OLD):
        account = BusinessAccount.objects.get()
        account.access_token = "act.newer"
        account.save(update_fields=["access_token"])


def test_token_that_changed_meanwhile_is_not_overwritten() -> None:
    with keys(OLD):
        make()
    with keys(NEW, OLD), connection.execute_wrapper(Interfering(store_another_pair)):
        assert rotate("--verbosity", "0") == (0, ["rotated=1 current=0 unreadable=0 busy=0"])
    with keys(NEW):
        account = BusinessAccount.objects.get()
        assert account.access_token == "act.newer"
        assert account.refresh_token == "rft.refresh-0"


def test_row_that_changes_all_the_time_is_busy() -> None:
    with keys(OLD):
        make()
    interfering = Interfering(store_another_pair, times=rotation.TRIES)
    with keys(NEW, OLD), connection.execute_wrapper(interfering):
        status, lines = rotate()
    assert (status, lines) == (
        1,
        [f"key {OLD_ID}: rows=1", "rotated=0 current=0 unreadable=0 busy=1"],
    )


def test_row_that_is_deleted_meanwhile_counts_as_current() -> None:
    with keys(OLD):
        make()
    with (
        keys(NEW, OLD),
        connection.execute_wrapper(Interfering(BusinessAccount.objects.all().delete)),
    ):
        assert rotate() == (0, ["rotated=0 current=1 unreadable=0 busy=0"])


def test_refresh_in_flight_still_saves_its_answer() -> None:
    with running_simulator(strict=True) as tiktok, keys(OLD):
        account = connect(tiktok)
        with keys(NEW, OLD):
            meanwhile(rotate)
            services.refresh_account(account)
        with keys(NEW):
            row = BusinessAccount.objects.get()
            assert (row.access_token, row.refresh_token) == tiktok.live_tokens(row.open_id)
            assert row.status == BusinessAccount.Status.ACTIVE


@pytest.mark.databases("postgresql", "mysql")
def test_row_that_a_transaction_has_locked_is_busy() -> None:
    with keys(OLD):
        locked = make(0)
        make(1)
    holder = connection.copy()
    try:
        holder.set_autocommit(False)
        with holder.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM tiktok_business_businessaccount WHERE id = %s FOR UPDATE",
                [locked.pk],
            )
        with keys(NEW, OLD):
            status, lines = rotate("--verbosity", "0")
        assert (status, lines) == (1, ["rotated=1 current=0 unreadable=0 busy=1"])
    finally:
        holder.rollback()
        holder.close()
    with keys(NEW, OLD):
        assert rotate("--verbosity", "0") == (0, ["rotated=1 current=1 unreadable=0 busy=0"])


def test_many_rows_are_read_in_pages() -> None:
    count = rotation.PAGE_ROWS + 10
    start_of_page = f"SELECT {connection.ops.quote_name(BusinessAccount._meta.db_table)}"
    make_many(count)
    with keys(NEW, OLD), CaptureQueriesContext(connection) as queries:
        status, lines = rotate("--verbosity", "0")
    assert (status, lines) == (0, [f"rotated={count} current=0 unreadable=0 busy=0"])
    assert sum(query["sql"].startswith(start_of_page) for query in queries) == 3, "one is empty"
    with keys(NEW):
        for number in range(count):
            assert_tokens(number)


def test_interrupt_leaves_rows_whole_and_the_next_run_goes_on() -> None:
    with keys(OLD):
        for number in range(4):
            make(number)
    with keys(NEW, OLD):
        with next_statement("UPDATE", KeyboardInterrupt()) as interrupt:
            rotated = []

            def once() -> None:
                rotated.append(1)
                if len(rotated) == 2:
                    interrupt()

            with pytest.raises(KeyboardInterrupt):
                rotation.rotate_encryption_keys(BusinessAccount, on_row=once)
        assert str(stored()).count(NEW_ID) == 4, "two rows, two tokens each"
        for number in range(4):
            assert_tokens(number)
        with next_statement("UPDATE", KeyboardInterrupt()) as interrupt:
            interrupt()
            assert rotate() == (130, [])
        assert rotate("--verbosity", "0") == (0, ["rotated=2 current=2 unreadable=0 busy=0"])


def test_lost_connection_is_waited_for() -> None:
    with keys(OLD):
        make()
    with keys(NEW, OLD), next_statement("UPDATE", InterfaceError("gone")) as lose:
        lose()
        assert rotate("--verbosity", "0") == (0, ["rotated=1 current=0 unreadable=0 busy=0"])


def test_kill_leaves_every_token_readable() -> None:
    count = 300
    make_many(count)
    connection.close()
    program = (
        "import django, sys; django.setup();"
        "from django_tiktok_business.encryption.rotation import rotate_encryption_keys;"
        "from django_tiktok_business.models import BusinessAccount;"
        "rotate_encryption_keys(BusinessAccount,"
        "  on_row=lambda: (sys.stdout.write('.'), sys.stdout.flush()))"
    )
    env = environment("http://127.0.0.1:9", ENCRYPTION_KEYS=[NEW, OLD])
    with start("-c", program, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.read(count // 3) == "." * (count // 3)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with keys(NEW, OLD):
        under_new = sum(NEW_ID in text for text in stored().values())
        assert under_new >= count // 3
        for number in range(count):
            assert_tokens(number)
        assert rotate()[0] == 0
    with keys(NEW):
        for number in range(count):
            assert_tokens(number)


def test_steps_from_secret_key_to_own_keys(settings: Any) -> None:
    before = settings.SECRET_KEY
    with keys():
        make(0)
    settings.SECRET_KEY = OLD
    settings.SECRET_KEY_FALLBACKS = [before]
    with keys():
        make(1)
    with keys(NEW, OLD, before):
        assert rotate("--verbosity", "0") == (0, ["rotated=2 current=0 unreadable=0 busy=0"])
    with keys(NEW):
        assert_tokens(0)
        assert_tokens(1)
        assert rotate("--dry-run", "--verbosity", "0") == (
            0,
            ["would_rotate=0 current=2 unreadable=0 busy=0"],
        )


def test_restored_backup_needs_the_old_key_once_more() -> None:
    with keys(OLD):
        make()
    with keys(NEW):
        assert rotate("--verbosity", "0")[0] == 1
        assert OLD_ID in str(stored())
    with keys(NEW, OLD):
        assert rotate("--verbosity", "0")[0] == 0
    with keys(NEW):
        assert_tokens(0)


def test_inside_a_transaction_it_is_refused() -> None:
    with keys(NEW), transaction.atomic():
        with pytest.raises(transaction.TransactionManagementError, match="inside a transaction"):
            rotation.rotate_encryption_keys(BusinessAccount)
        assert rotate()[0] == 2
