"""``manage.py check --database default``: tokens that no key opens, or that an old one does."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning
from django.core.management import call_command
from django.db import ProgrammingError, connection
from django.test.utils import CaptureQueriesContext

from django_tiktok_business.checks import encryption
from django_tiktok_business.encryption import cipher
from django_tiktok_business.models import BusinessAccount
from tests.support.factories import make_account
from tests.support.simulator import override_tiktok

OLD = "old-key-old-key-old-key-old-key-0123456789"
NEW = "new-key-new-key-new-key-new-key-0123456789"


def keys(*secrets: str) -> Any:
    return override_tiktok(ENCRYPTION_KEYS=list(secrets))


def check(databases: list[str] | None) -> list[CheckMessage]:
    messages = checks.run_checks(databases=databases)
    return [message for message in messages if message.id in ("tiktok_business.W014", W015.id)]


W015 = CheckWarning(
    "1 of 2 TikTok Business accounts looked at have tokens under another key than the first of "
    "ENCRYPTION_KEYS, in database 'default'.",
    hint="Run manage.py rotate_encryption_keys; then the old keys can be dropped.",
    id="tiktok_business.W015",
)


@pytest.mark.django_db
def test_rows_under_the_first_key_are_fine() -> None:
    make_account()
    make_account(open_id="disconnected", access_token="", refresh_token="")
    assert check(["default"]) == []


@pytest.mark.django_db
def test_rows_under_an_old_key_are_told_until_they_are_rotated() -> None:
    with keys(OLD):
        make_account(open_id="old")
    with keys(NEW, OLD):
        make_account(open_id="new")
        assert check(["default"]) == [W015]
        call_command("rotate_encryption_keys", "--verbosity", "0")
        assert check(["default"]) == []


@pytest.mark.django_db
def test_f28_unreadable_rows_are_told() -> None:
    with keys(OLD):
        make_account(open_id="old")
    with keys(NEW):
        make_account(open_id="new")
        (message,) = check(["default"])
    assert message == CheckWarning(
        "1 of 2 TikTok Business accounts looked at have tokens that no configured key opens, such "
        "as old in database 'default'.",
        hint="Put the missing key behind the first of ENCRYPTION_KEYS, or have the accounts "
        "connected again. manage.py rotate_encryption_keys --dry-run lists all of them.",
        id="tiktok_business.W014",
    )


@pytest.mark.django_db
def test_many_rows_are_sampled_at_both_ends() -> None:
    count = 3 * encryption.SAMPLE_ROWS

    def rows(numbers: range) -> list[BusinessAccount]:
        return [
            BusinessAccount(app_id="1", open_id=f"account_{number}", access_token="act.some")
            for number in numbers
        ]

    with keys(OLD):
        BusinessAccount.objects.bulk_create(rows(range(1)))
    with keys(NEW, OLD):
        BusinessAccount.objects.bulk_create(rows(range(1, count - 1)))
    with keys(OLD):
        BusinessAccount.objects.bulk_create(rows(range(count - 1, count)))
    with keys(NEW, OLD):
        (message,) = check(["default"])
    assert message.msg.startswith("2 of 100 TikTok Business accounts looked at have tokens under")


@pytest.mark.django_db
def test_no_database_is_asked_without_being_named() -> None:
    # Django's checks on JSON fields try this once in a process, by asking SQLite.
    assert connection.features.supports_json_field
    with keys(OLD):
        make_account()
    with keys(NEW), CaptureQueriesContext(connection) as queries:
        assert check(None) == []
    assert len(queries) == 0


@pytest.mark.django_db
def test_wrong_keys_are_left_to_the_checks_on_the_settings() -> None:
    with override_tiktok(ENCRYPTION_KEYS="one text"):
        messages = checks.run_checks(databases=["default"])
    ids = [message.id for message in messages if (message.id or "").startswith("tiktok_business")]
    assert ids == ["tiktok_business.E004"]


class ElsewhereRouter:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "tiktok_business" else None


@pytest.mark.django_db
def test_database_of_other_apps_is_left_alone(settings: Any) -> None:
    with keys(OLD):
        make_account()
    settings.DATABASE_ROUTERS = [f"{__name__}.ElsewhereRouter"]
    with keys(NEW):
        assert check(["default"]) == []


@pytest.mark.django_db(transaction=True)
def test_table_that_is_not_there_yet_is_no_trouble() -> None:
    with connection.schema_editor() as editor:
        editor.alter_db_table(
            BusinessAccount, BusinessAccount._meta.db_table, "tiktok_business_elsewhere"
        )
    try:
        assert check(["default"]) == []
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(
                BusinessAccount, "tiktok_business_elsewhere", BusinessAccount._meta.db_table
            )


@pytest.mark.django_db
def test_no_token_and_no_key_is_told() -> None:
    with keys(OLD):
        make_account(access_token="act.canary", refresh_token="rft.canary")
    with keys(NEW):
        told = str(check(["default"]))
    assert "W014" in told
    assert "canary" not in told
    assert OLD not in told
    assert NEW not in told
    assert cipher.PREFIX not in told


@pytest.mark.django_db(transaction=True)
def test_table_that_may_not_be_read_is_a_warning() -> None:
    def deny(execute: Any, sql: str, *arguments: Any) -> Any:
        if "access_token" in sql:
            raise ProgrammingError("act.canary")
        return execute(sql, *arguments)

    with connection.execute_wrapper(deny):
        messages = checks.run_checks(databases=["default"])
    (message,) = [message for message in messages if message.id == "tiktok_business.W016"]
    assert message.msg == (
        "The tokens in database 'default' could not be looked at (ProgrammingError)."
    )
