"""Runs of ``manage.py rotate_encryption_keys``, and rows encrypted under several keys."""

from __future__ import annotations

from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command
from django.db import connection

from django_tiktok_business.encryption import cipher
from django_tiktok_business.models import BusinessAccount
from tests.support.factories import make_account
from tests.support.simulator import override_tiktok

OLD = "old-key-old-key-old-key-old-key-0123456789"
NEW = "new-key-new-key-new-key-new-key-0123456789"
LOST = "lost-key-lost-key-lost-key-lost-key-01234"
OLD_ID, NEW_ID, LOST_ID = map(cipher.key_id, (OLD, NEW, LOST))


def keys(*secrets: str) -> Any:
    return override_tiktok(ENCRYPTION_KEYS=list(secrets))


def make(number: int = 0, **overrides: Any) -> BusinessAccount:
    return make_account(
        open_id=f"account_{number}",
        access_token=f"act.access-{number}",
        refresh_token=f"rft.refresh-{number}",
        **overrides,
    )


def stored() -> dict[str, str]:
    """Both columns as the database holds them, read with plain SQL, by open id."""
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
