"""Which secrets encrypt, which decrypt, and which rows they open."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_tiktok_business.encryption import cipher
from django_tiktok_business.encryption.keys import encryption_secrets, under_known_keys
from django_tiktok_business.exceptions import ConfigurationError, DecryptionError
from tests.support.encrypted_rows import (
    ACCESS,
    KEY,
    OTHER_KEY,
    account_with_tokens,
    reloaded,
    rows,
    store,
    stored,
    wrong_key,
)
from tests.support.simulator import override_tiktok

pytestmark = pytest.mark.django_db
WITHOUT_KEYS = {"APP_ID": "7000000000000000001", "APP_SECRET": "simulator-app-secret-not-real"}


def test_encryption_secrets_are_the_keys_in_their_order() -> None:
    with override_tiktok(ENCRYPTION_KEYS=[KEY, OTHER_KEY]):
        assert list(encryption_secrets()) == [KEY, OTHER_KEY]


@pytest.mark.parametrize("keys", [KEY, 5, None, [KEY, ""], [KEY, 5], [[KEY]]])
def test_encryption_secrets_of_wrong_keys_are_an_error(keys: object) -> None:
    with (
        override_tiktok(ENCRYPTION_KEYS=keys),
        pytest.raises(ConfigurationError, match=r"TIKTOK_BUSINESS\['ENCRYPTION_KEYS'\] must be a"),
    ):
        encryption_secrets()


def test_f30_without_keys_the_secret_key_and_its_fallbacks_serve() -> None:
    with (
        override_tiktok(ENCRYPTION_KEYS=[]),
        override_settings(SECRET_KEY="present", SECRET_KEY_FALLBACKS=["past", "long past"]),
    ):
        secrets = encryption_secrets()
    assert secrets == ["present", "past", "long past"]
    assert repr(secrets) == "[<secret>, <secret>, <secret>]"


def test_f30_with_keys_the_secret_key_does_not_decrypt() -> None:
    with (
        override_tiktok(ENCRYPTION_KEYS=[KEY]),
        override_settings(SECRET_KEY="present", SECRET_KEY_FALLBACKS=["past"]),
    ):
        assert list(encryption_secrets()) == [KEY]


def test_secret_key_in_bytes_is_refused_as_encryption_key() -> None:
    with (
        override_settings(TIKTOK_BUSINESS=WITHOUT_KEYS),
        override_settings(SECRET_KEY=b"present"),
        pytest.raises(ConfigurationError) as caught,
    ):
        encryption_secrets()
    assert str(caught.value) == (
        "SECRET_KEY or one of SECRET_KEY_FALLBACKS is not a string, so tokens cannot be encrypted "
        "with it. Set TIKTOK_BUSINESS['ENCRYPTION_KEYS']."
    )


def test_empty_secret_key_is_no_encryption_key() -> None:
    with (
        override_settings(TIKTOK_BUSINESS=WITHOUT_KEYS),
        override_settings(SECRET_KEY=""),
        pytest.raises(ImproperlyConfigured, match="SECRET_KEY"),
    ):
        encryption_secrets()


def test_key_is_looked_up_on_each_access() -> None:
    account = reloaded(account_with_tokens())
    assert account.access_token == ACCESS
    with wrong_key(), pytest.raises(DecryptionError):
        _ = account.access_token
    assert account.access_token == ACCESS


def test_f28_new_key_is_put_in_front_and_old_rows_stay_readable() -> None:
    account = reloaded(account_with_tokens())
    with override_tiktok(ENCRYPTION_KEYS=[OTHER_KEY, KEY]):
        assert account.access_token == ACCESS
        account.save()
        assert cipher.key_id_of(stored(account)) == cipher.key_id(KEY)
        account.access_token = account.access_token
        account.save()
        assert cipher.key_id_of(stored(account)) == cipher.key_id(OTHER_KEY)
        assert cipher.key_id_of(stored(account, "refresh_token")) == cipher.key_id(KEY)
    with wrong_key():
        assert reloaded(account).access_token == ACCESS
        with pytest.raises(DecryptionError):
            _ = reloaded(account).refresh_token


def test_f30_without_own_keys_django_s_secrets_are_used() -> None:
    with override_tiktok(ENCRYPTION_KEYS=[]), override_settings(SECRET_KEY=OTHER_KEY):
        account = account_with_tokens()
        assert cipher.key_id_of(stored(account)) == cipher.key_id(OTHER_KEY)
    with (
        override_tiktok(ENCRYPTION_KEYS=[]),
        override_settings(SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=[OTHER_KEY]),
    ):
        assert reloaded(account).access_token == ACCESS
    with wrong_key():  # as after moving to ENCRYPTION_KEYS
        assert reloaded(account).access_token == ACCESS


@pytest.mark.parametrize("keys", [[], "not a list", [OTHER_KEY]])
def test_f29_rows_are_listed_and_saved_without_any_key(keys: Any) -> None:
    account = account_with_tokens()
    before = stored(account)
    with override_tiktok(ENCRYPTION_KEYS=keys):
        listed = rows.get()
        listed.save()
        with pytest.raises((DecryptionError, ConfigurationError)):
            _ = listed.access_token
    assert stored(account) == before


# Which rows the keys open, as far as the database can tell


def known_rows(*columns: str) -> set[str]:
    return set(rows.filter(under_known_keys(*columns)).values_list("open_id", flat=True))


def test_rows_are_under_a_known_key_or_empty() -> None:
    account_with_tokens(open_id="known")
    account_with_tokens(open_id="empty", access_token="", refresh_token="")
    with wrong_key():
        account_with_tokens(open_id="unknown")
        account_with_tokens(open_id="half", refresh_token="")
    store(account_with_tokens(open_id="plain"), "access_token", "act.plain")
    store(account_with_tokens(open_id="damaged"), "access_token", f"ttb1:{cipher.key_id(KEY)}:x")
    assert known_rows("access_token") == {"known", "empty", "damaged"}
    assert known_rows("refresh_token") == {"known", "empty", "half", "plain", "damaged"}
    assert known_rows("access_token", "refresh_token") == {"known", "empty", "damaged"}
    with override_tiktok(ENCRYPTION_KEYS=[OTHER_KEY, KEY]):
        assert known_rows("access_token", "refresh_token") == {
            *("known", "empty", "damaged", "unknown", "half"),
        }


@pytest.mark.parametrize("keys", ["not a list", [""], [5]])
def test_without_usable_keys_only_empty_rows_are_under_a_known_one(keys: object) -> None:
    account_with_tokens(open_id="known")
    account_with_tokens(open_id="empty", access_token="", refresh_token="")
    with override_tiktok(ENCRYPTION_KEYS=keys):
        assert known_rows("access_token", "refresh_token") == {"empty"}
