"""``manage.py rotate_encryption_keys``: its output, options and exit status."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from django_tiktok_business.exceptions import DecryptionError
from tests.support.engine import environment, start
from tests.support.rotation import (
    LOST,
    LOST_ID,
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
from tests.support.simulator import next_statement, override_tiktok

pytestmark = pytest.mark.django_db(transaction=True)


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
        reported = [line for line in lines if line.startswith("unreadable ")]
        assert [line.split(":")[0] for line in reported] == [
            "unreadable account_0",
            "unreadable account_0",
            "unreadable account_2",
        ]
        assert f"it is encrypted under key {LOST_ID}, which is not configured" in reported[0]
        assert "canary" not in str(lines)
        half.refresh_from_db()
        assert half.refresh_token == "rft.refresh-2", "the other token is re-encrypted"
        with pytest.raises(DecryptionError):
            str(half.access_token)
    assert stored()["account_0"] == before["account_0"]
    assert stored()["account_2"].startswith("act.plaintext-canary ")


def test_failing_database_is_one_clear_line() -> None:
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


def test_missing_secret_key_is_named(settings: Any) -> None:
    settings.SECRET_KEY = ""
    with keys(), pytest.raises(CommandError, match="SECRET_KEY") as e:
        call_command("rotate_encryption_keys")
    assert e.value.returncode == 1


def test_everything_is_committed_in_a_project_without_autocommit() -> None:
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


def test_two_runs_at_once_lose_nothing() -> None:
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
    # On a busy machine, a row that one of them is writing may be busy for the other.
    assert {command.returncode for command in commands} <= {0, 1}, ends
    with keys(NEW, OLD):
        last = rotate("--verbosity", "0")[1][0]
    lines = [*(out for out, _ in ends), last]
    assert sum(int(line.split("rotated=")[1].split()[0]) for line in lines) == 100
    with keys(NEW):
        for number in range(100):
            assert_tokens(number)
