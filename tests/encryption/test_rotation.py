"""``manage.py rotate_encryption_keys``: every token under the first key, and none lost."""

from __future__ import annotations

import os
import signal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_tiktok_business import services
from django_tiktok_business.encryption import cipher, rotation
from django_tiktok_business.exceptions import DecryptionError
from django_tiktok_business.models import BusinessAccount
from tests.support.engine import environment, start
from tests.support.factories import connect, make_account
from tests.support.simulator import meanwhile, next_statement, override_tiktok, running_simulator

OLD = "old-key-old-key-old-key-old-key-0123456789"
NEW = "new-key-new-key-new-key-new-key-0123456789"
LOST = "lost-key-lost-key-lost-key-lost-key-01234"
OLD_ID, NEW_ID, LOST_ID = map(cipher.key_id, (OLD, NEW, LOST))
TOKENS = ("access_token", "refresh_token")

pytestmark = pytest.mark.django_db(transaction=True)


def keys(*secrets: str) -> Any:
    return override_tiktok(ENCRYPTION_KEYS=list(secrets))


def make(number: int = 0, **overrides: Any) -> BusinessAccount:
    return make_account(
        open_id=f"account_{number}",
        access_token=f"act.access-{number}",
        refresh_token=f"rft.refresh-{number}",
        **overrides,
    )


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


def stored() -> dict[str, str]:
    """What stands in both columns, read with plain SQL, by open id."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT open_id, access_token, refresh_token FROM tiktok_business_businessaccount"
        )
        return {open_id: f"{access} {refresh}" for open_id, access, refresh in cursor.fetchall()}


def rotate(*arguments: str) -> tuple[int, list[str]]:
    """The command's exit status and the lines that it prints."""
    stdout = StringIO()
    status = 0
    try:
        call_command("rotate_encryption_keys", *arguments, stdout=stdout)
    except CommandError as error:
        status = error.returncode
    return status, stdout.getvalue().splitlines()


def assert_tokens(number: int) -> None:
    account = BusinessAccount.objects.get(open_id=f"account_{number}")
    assert account.access_token == f"act.access-{number}"
    assert account.refresh_token == f"rft.refresh-{number}"


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


def test_dry_run_counts_and_changes_nothing() -> None:
    with keys(OLD):
        make(0)
    with keys(NEW, OLD):
        make(1)
        before = stored()
        assert rotate("--dry-run") == (
            1,
            [
                *sorted([f"key {NEW_ID} (the first): rows=1", f"key {OLD_ID}: rows=1"]),
                "would_rotate=1 current=1 unreadable=0 busy=0",
            ],
        )
    assert stored() == before


def test_f28_unreadable_tokens_are_reported_and_left_alone() -> None:
    with keys(LOST):
        make(0)
    with keys(OLD):
        make(1)
        half = make(2)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tiktok_business_businessaccount SET access_token = %s WHERE id = %s",
            ["act.plaintext-canary", half.pk],
        )
    before = stored()
    with keys(NEW, OLD):
        status, lines = rotate()
        assert status == 1
        assert lines[-1] == "rotated=1 current=0 unreadable=2 busy=0"
        assert f"key {LOST_ID}: rows=1" in lines
        assert f"key {NEW_ID} (the first): rows=2" in lines
        assert "no key's format: rows=1" in lines
        told = [line for line in lines if line.startswith("unreadable ")]
        assert [line.split(":")[0] for line in told] == [
            "unreadable account_0",
            "unreadable account_0",
            "unreadable account_2",
        ]
        assert f"it is encrypted under key {LOST_ID}, which is not configured" in told[0]
        assert "canary" not in str(lines)
        half.refresh_from_db()
        assert half.refresh_token == "rft.refresh-2", "the other token is re-encrypted"
        with pytest.raises(DecryptionError):
            str(half.access_token)
    assert stored()["account_0"] == before["account_0"]
    assert stored()["account_2"].startswith("act.plaintext-canary ")


def test_disconnected_accounts_have_nothing_to_rotate() -> None:
    with keys(OLD):
        make_account(access_token="", refresh_token="", status=BusinessAccount.Status.REVOKED)
    with keys(NEW):
        assert rotate() == (0, ["rotated=0 current=1 unreadable=0 busy=0"])
    assert stored() == {"_000TestOpenId0001": " "}


class Interfering:
    """Calls something before each UPDATE of the accounts, as often as told."""

    def __init__(self, event: Any, times: int = 1) -> None:
        self.event = event
        self.times = times

    def __call__(self, execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE") and self.times:
            self.times -= 1
            times, self.times = self.times, 0  # its own statements are not meant
            self.event()
            self.times = times
        return execute(sql, *arguments)


def store_another_pair() -> None:
    """As a worker does that does not know the new key yet."""
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


def test_row_that_is_deleted_meanwhile_is_nobodys_trouble() -> None:
    with keys(OLD):
        make()
    with (
        keys(NEW, OLD),
        connection.execute_wrapper(Interfering(BusinessAccount.objects.all().delete)),
    ):
        assert rotate() == (0, ["rotated=0 current=1 unreadable=0 busy=0"])


def test_refresh_in_flight_saves_its_answer_all_the_same() -> None:
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


def test_database_that_fails_ends_the_run_with_a_word_of_its_own() -> None:
    with next_statement("SELECT", OperationalError("row: act.canary")) as fail:
        fail()
        with pytest.raises(
            CommandError, match=r"^The database failed \(OperationalError\)\. "
        ) as e:
            call_command("rotate_encryption_keys")
    assert e.value.returncode == 2
    assert "canary" not in str(e.value)


def test_wrong_setting_is_named() -> None:
    with (
        override_tiktok(ENCRYPTION_KEYS="one text"),
        pytest.raises(CommandError, match="ENCRYPTION_KEYS") as e,
    ):
        call_command("rotate_encryption_keys")
    assert e.value.returncode == 1


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


def test_two_at_once_lose_nothing() -> None:
    with keys(OLD):
        for number in range(100):
            make(number)
    connection.close()
    env = environment("http://127.0.0.1:9", ENCRYPTION_KEYS=[NEW, OLD])
    commands = [
        start("-m", "django", "rotate_encryption_keys", "--verbosity", "0", env=env)
        for _ in range(2)
    ]
    ends = [command.communicate(timeout=120) for command in commands]
    # A row that one of them is writing may be busy to the other, on a machine that is.
    assert {command.returncode for command in commands} <= {0, 1}, ends
    with keys(NEW, OLD):
        last = rotate("--verbosity", "0")[1][0]
    lines = [*(out for out, _ in ends), last]
    assert sum(int(line.split("rotated=")[1].split()[0]) for line in lines) == 100
    with keys(NEW):
        for number in range(100):
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


def test_project_without_autocommit_has_everything_committed() -> None:
    with keys(OLD):
        make()
    connection.set_autocommit(False)
    try:
        with keys(NEW, OLD):
            assert rotate("--verbosity", "0") == (0, ["rotated=1 current=0 unreadable=0 busy=0"])
        connection.close()
        assert NEW_ID in str(stored())
    finally:
        connection.close()


def test_inside_a_transaction_it_is_refused() -> None:
    with keys(NEW), transaction.atomic():
        with pytest.raises(transaction.TransactionManagementError, match="inside a transaction"):
            rotation.rotate_encryption_keys(BusinessAccount)
        assert rotate()[0] == 2


def test_missing_secret_key_is_named(settings: Any) -> None:
    settings.SECRET_KEY = ""
    with keys(), pytest.raises(CommandError, match="SECRET_KEY") as e:
        call_command("rotate_encryption_keys")
    assert e.value.returncode == 1
