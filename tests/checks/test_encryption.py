"""System checks on encryption keys and on the tokens stored under them."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.core.checks import CheckMessage, Tags, run_checks
from django.core.checks import Warning as CheckWarning
from django.core.management import call_command
from django.db import ProgrammingError, connection
from django.test.utils import CaptureQueriesContext

from django_tiktok_business.checks import encryption
from django_tiktok_business.encryption import cipher
from django_tiktok_business.models import BusinessAccount
from tests.support.checks import (
    DJANGO_KEY,
    GOOD_CASE,
    KEY,
    OLD_DJANGO_KEY,
    OTHER_KEY,
    Case,
    reported,
)
from tests.support.factories import make_account
from tests.support.simulator import override_tiktok

NEW_KEY_HINT = (
    'Print a new key with: python -c "import secrets; print(secrets.token_urlsafe(48))". '
    "Put it first in TIKTOK_BUSINESS['ENCRYPTION_KEYS'], and keep {} after it for as long as "
    "stored tokens are encrypted with it."
)
SHORT = "is shorter than 32 characters"
GUESSABLE = "is easy to guess: it repeats itself or uses few different characters"
SHARED = "is also in SECRET_KEY or SECRET_KEY_FALLBACKS: neither can be replaced on its own"
REPEATED = "repeats an earlier key"


def weak_key(name: str, keys: list[str], *faults: tuple[int, str, str], **django: Any) -> Case:
    return Case(
        name,
        [
            CheckWarning(
                f"TIKTOK_BUSINESS['ENCRYPTION_KEYS'][{index}] {problem}.",
                hint="Remove it." if number == "W008" else NEW_KEY_HINT.format("this one"),
                id=f"tiktok_business.{number}",
            )
            for index, problem, number in faults
        ],
        keys={"ENCRYPTION_KEYS": keys},
        django=django,
    )


CASES = [
    Case(
        "no encryption key",
        [
            CheckWarning(
                "TIKTOK_BUSINESS['ENCRYPTION_KEYS'] is empty, so tokens are encrypted with "
                "SECRET_KEY. Once SECRET_KEY is replaced and its old value is removed from "
                "SECRET_KEY_FALLBACKS, no stored token can be decrypted and every account has to "
                "be connected again.",
                hint=NEW_KEY_HINT.format("the current SECRET_KEY (and SECRET_KEY_FALLBACKS)"),
                id="tiktok_business.W004",
            )
        ],
        without="ENCRYPTION_KEYS",
    ),
    weak_key("short key", [KEY[:31]], (0, SHORT, "W005")),
    weak_key("second key short", [KEY, "secret"], (1, SHORT, "W005")),
    weak_key("key of one character", ["a" * 64], (0, GUESSABLE, "W006")),
    weak_key("key of one word repeated", ["correcthorse" * 5], (0, GUESSABLE, "W006")),
    weak_key("key of a word cut off", [("change-me-" * 4)[:-1]], (0, GUESSABLE, "W006")),
    weak_key("key of few characters", ["abacabadabacabaaabbccddabcdabcda"], (0, GUESSABLE, "W006")),
    weak_key("key of Django", [DJANGO_KEY], (0, SHARED, "W007")),
    weak_key("old key of Django", [KEY, OLD_DJANGO_KEY], (1, SHARED, "W007")),
    weak_key(
        "short key of Django",
        ["django-insecure"],
        (0, SHARED, "W007"),
        (0, SHORT, "W005"),
        SECRET_KEY="django-insecure",
    ),
    weak_key("key twice", [KEY, OTHER_KEY, KEY], (2, REPEATED, "W008")),
    weak_key("short key twice", ["short", "short"], (0, SHORT, "W005"), (1, REPEATED, "W008")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fault_is_reported_and_nothing_else(case: Case) -> None:
    with case.configured():
        assert reported(deploy=case.deploy) == case.expected


def test_f30_key_of_django_is_reported_without_secret_key_crash() -> None:
    with GOOD_CASE.configured(SECRET_KEY=""):
        assert reported() == []


def test_f30_checks_about_keys_are_security_checks() -> None:
    case = next(case for case in CASES if case.name == "key of Django")
    with case.configured():
        found = run_checks(tags=[Tags.security])
    assert case.expected[0] in found


# Stored tokens

OLD = "old-key-old-key-old-key-old-key-0123456789"
NEW = "new-key-new-key-new-key-new-key-0123456789"


def keys(*secrets: str) -> Any:
    return override_tiktok(ENCRYPTION_KEYS=list(secrets))


def check(databases: list[str] | None) -> list[CheckMessage]:
    messages = checks.run_checks(databases=databases)
    return [message for message in messages if message.id in ("tiktok_business.W014", W015.id)]


W015 = CheckWarning(
    "1 of 2 sampled TikTok Business accounts have tokens encrypted with another key than the first "
    "of ENCRYPTION_KEYS, in database 'default'.",
    hint="Run manage.py rotate_encryption_keys; then the old keys can be removed.",
    id="tiktok_business.W015",
)


@pytest.mark.django_db
def test_rows_under_the_first_key_are_fine() -> None:
    make_account()
    make_account(open_id="disconnected", access_token="", refresh_token="")
    assert check(["default"]) == []


@pytest.mark.django_db
def test_rows_under_an_old_key_are_reported_until_they_are_rotated() -> None:
    with keys(OLD):
        make_account(open_id="old")
    with keys(NEW, OLD):
        make_account(open_id="new")
        assert check(["default"]) == [W015]
        call_command("rotate_encryption_keys", "--verbosity", "0")
        assert check(["default"]) == []


@pytest.mark.django_db
def test_f28_unreadable_rows_are_reported() -> None:
    with keys(OLD):
        make_account(open_id="old")
    with keys(NEW):
        make_account(open_id="new")
        (message,) = check(["default"])
    assert message == CheckWarning(
        "1 of 2 sampled TikTok Business accounts have tokens that no configured key decrypts, such "
        "as old in database 'default'.",
        hint="Add the missing key to ENCRYPTION_KEYS, after the first, or have the accounts "
        "connected again. manage.py rotate_encryption_keys --dry-run lists them all.",
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
    assert message.msg.startswith(
        "2 of 100 sampled TikTok Business accounts have tokens encrypted with"
    )


@pytest.mark.django_db
def test_database_that_is_not_named_is_not_queried() -> None:
    # Django's checks on JSON fields find this out once in a process, with a query on SQLite.
    assert connection.features.supports_json_field
    with keys(OLD):
        make_account()
    with keys(NEW), CaptureQueriesContext(connection) as queries:
        assert check(None) == []
    assert len(queries) == 0


@pytest.mark.django_db
def test_wrong_keys_are_only_reported_by_the_checks_on_the_settings() -> None:
    with override_tiktok(ENCRYPTION_KEYS="one text"):
        messages = checks.run_checks(databases=["default"])
    ids = [message.id for message in messages if (message.id or "").startswith("tiktok_business")]
    assert ids == ["tiktok_business.E004"]


class ElsewhereRouter:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "tiktok_business" else None


@pytest.mark.django_db
def test_database_without_the_accounts_is_left_alone(settings: Any) -> None:
    with keys(OLD):
        make_account()
    settings.DATABASE_ROUTERS = [f"{__name__}.ElsewhereRouter"]
    with keys(NEW):
        assert check(["default"]) == []


@pytest.mark.django_db(transaction=True)
def test_missing_table_is_not_reported() -> None:
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
def test_message_shows_no_token_and_no_key() -> None:
    with keys(OLD):
        make_account(access_token="act.canary", refresh_token="rft.canary")
    with keys(NEW):
        texts = str(check(["default"]))
    assert "W014" in texts
    assert "canary" not in texts
    assert OLD not in texts
    assert NEW not in texts
    assert cipher.PREFIX not in texts


@pytest.mark.django_db(transaction=True)
def test_table_that_cannot_be_read_is_a_warning() -> None:
    def deny(execute: Any, sql: str, *arguments: Any) -> Any:
        if "access_token" in sql:
            raise ProgrammingError("act.canary")
        return execute(sql, *arguments)

    with connection.execute_wrapper(deny):
        messages = checks.run_checks(databases=["default"])
    (message,) = [message for message in messages if message.id == "tiktok_business.W016"]
    assert message.msg == (
        "The tokens in database 'default' could not be checked (ProgrammingError)."
    )
