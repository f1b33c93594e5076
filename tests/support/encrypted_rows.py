"""Accounts with encrypted tokens, and what their columns hold in the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import connection, transaction
from django.test import override_settings

from django_tiktok_business.encryption.fields import EncryptedTextField
from django_tiktok_business.models import BusinessAccount
from tests.support.factories import make_account
from tests.support.simulator import override_tiktok

ACCESS = "act.fields-Aa11!4711.e1"
REFRESH = "rft.fields-Bb22!4712.e1"
ROTATED = "act.fields-rotated-Cc33!4713.e1"
ASSIGNED = "act.fields-assigned-Dd44!4714.e1"
TOKENS = (ACCESS, REFRESH, ROTATED, ASSIGNED)
KEY = "test-only-Zr8vN2kXq5TgWb9YhJ4mLc7PdFs3RuEa"  # as in the test settings
OTHER_KEY = "fields-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"
IDENTITY: dict[str, Any] = {"app_id": "7000000000000000001", "open_id": "_000TestOpenId0001"}
rows = BusinessAccount.objects
# Where the outcome depends on what is committed.
committing = pytest.mark.django_db(transaction=True)


def account_with_tokens(**overrides: Any) -> BusinessAccount:
    return make_account(**{"access_token": ACCESS, "refresh_token": REFRESH, **overrides})


def stored(account: BusinessAccount, column: str = "access_token") -> Any:
    """What the column really holds."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {column} FROM tiktok_business_businessaccount WHERE id = %s", [account.pk]
        )
        return cursor.fetchone()[0]


def store(account: BusinessAccount, column: str, text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE tiktok_business_businessaccount SET {column} = %s WHERE id = %s",
            [text, account.pk],
        )


def encrypted(name: str) -> EncryptedTextField:
    field = BusinessAccount._meta.get_field(name)
    assert isinstance(field, EncryptedTextField)
    return field


def reloaded(account: BusinessAccount) -> BusinessAccount:
    return rows.get(pk=account.pk)


def rotate(account: BusinessAccount, access_token: str = ROTATED) -> None:
    """What another worker does meanwhile."""
    ciphertext = reloaded(account).encrypt("access_token", access_token)
    assert rows.filter(pk=account.pk).update(access_token=ciphertext) == 1


@contextmanager
def refused(match: str) -> Iterator[None]:
    # In a savepoint, because Django has the transaction around a failed write rolled back.
    with pytest.raises(FieldError, match=match), transaction.atomic():
        yield


def wrong_key() -> override_settings:
    return override_tiktok(ENCRYPTION_KEYS=[OTHER_KEY])
