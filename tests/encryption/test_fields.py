"""The encrypted column: what reaches the database, and what comes back."""

from __future__ import annotations

import copy
from typing import Any

import django
import pytest
from django.db import IntegrityError, connection, models, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.models import Max
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.views.debug import ExceptionReporter

from django_tiktok_business.encryption import cipher
from django_tiktok_business.exceptions import DecryptionError
from django_tiktok_business.fields import (
    EncryptedModel,
    EncryptedTextField,
)
from django_tiktok_business.models import BusinessAccount
from tests.support.encrypted_rows import (
    ACCESS,
    ASSIGNED,
    IDENTITY,
    KEY,
    OTHER_KEY,
    REFRESH,
    ROTATED,
    TOKENS,
    account_with_tokens,
    encrypted,
    refused,
    reloaded,
    rotate,
    rows,
    store,
    stored,
    wrong_key,
)
from tests.support.factories import make_account

pytestmark = pytest.mark.django_db


def test_f38_column_holds_ciphertext_that_names_its_key() -> None:
    account = account_with_tokens()
    for column, token in (("access_token", ACCESS), ("refresh_token", REFRESH)):
        text = stored(account, column)
        assert text.startswith(f"ttb1:{cipher.key_id(KEY)}:gAAAA")
        assert token not in text
    assert stored(account) != stored(account, "refresh_token")
    assert reloaded(account).access_token == ACCESS
    assert reloaded(account).refresh_token == REFRESH


def test_f33_neither_plaintext_nor_key_is_in_any_query() -> None:
    with CaptureQueriesContext(connection) as queries:
        account = account_with_tokens()
        account.access_token = ASSIGNED
        account.save()
        rotate(account)
        account.refresh_from_db()
        assert account.access_token == ROTATED
    log = str(queries.captured_queries)
    assert "UPDATE" in log
    assert not [hidden for hidden in (*TOKENS, KEY) if hidden in log]


def test_column_is_of_type_text() -> None:
    field = encrypted("access_token")
    assert field.get_internal_type() == "TextField"
    long = "x" * 5000
    assert reloaded(make_account(access_token=long)).access_token == long


@pytest.mark.parametrize("text", ["", None])
def test_f27_empty_text_and_none_stay_distinct(note: type[models.Model], text: str | None) -> None:
    written = note._default_manager.create(text=text)
    read = note._default_manager.get(pk=written.pk)
    for instance in (written, read, copy_without_pickling(read)):
        assert instance.text == text  # type: ignore[attr-defined]
        assert (instance.text is None) == (text is None)  # type: ignore[attr-defined]
    assert note._default_manager.filter(text__isnull=True).count() == (text is None)
    assert note._default_manager.values_list("text", flat=True).get() == text
    note._default_manager.update(text="" if text is None else None)
    read.refresh_from_db()
    assert (read.text is None) == (text is not None)  # type: ignore[attr-defined]


def copy_without_pickling(instance: models.Model) -> models.Model:
    """The class of these instances is local to a test, so it cannot be pickled."""
    return copy.deepcopy(instance)


def test_nullable_field_that_is_not_bound_works(note: type[models.Model]) -> None:
    one, two = (note._default_manager.create(text=ACCESS, title=title) for title in "ab")
    two.refresh_from_db()
    assert str(two) == "b"
    assert two.text == ACCESS  # type: ignore[attr-defined]
    one.text = None  # type: ignore[attr-defined]
    one.save()
    assert set(note._default_manager.filter(text__isnull=True)) == {one}


def test_none_in_a_column_that_takes_none_is_refused_by_the_database() -> None:
    account = account_with_tokens()
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.update(access_token=None)
    assert reloaded(account).access_token == ACCESS


def test_f25_text_of_the_other_column_does_not_decrypt() -> None:
    account = account_with_tokens()
    store(account, "access_token", stored(account, "refresh_token"))
    account.refresh_from_db()
    with pytest.raises(DecryptionError, match="copied from another row or column"):
        _ = account.access_token
    assert account.refresh_token == REFRESH


@pytest.mark.parametrize("other", [{"open_id": "_000Other"}, {"app_id": "7000000000000000002"}])
def test_f25_text_of_another_row_does_not_decrypt(other: dict[str, str]) -> None:
    account = account_with_tokens()
    stranger = account_with_tokens(**other)
    store(account, "access_token", stored(stranger))
    account.refresh_from_db()
    with pytest.raises(DecryptionError, match="copied from another row or column"):
        _ = account.access_token


def test_f25_identities_that_join_alike_have_different_keys() -> None:
    one = make_account(app_id='7","x', open_id="y", access_token=ACCESS)
    two = make_account(app_id="7", open_id='x","y', access_token=ACCESS)
    store(two, "access_token", stored(one))
    two.refresh_from_db()
    with pytest.raises(DecryptionError):
        _ = two.access_token


def test_identity_given_as_a_number_reads_back() -> None:
    account = account_with_tokens(app_id=7000000000000000001)
    assert account.access_token == ACCESS
    assert reloaded(account).access_token == ACCESS


@pytest.mark.parametrize("missing", ["app_id", "open_id"])
def test_token_without_its_identity_is_refused(missing: str) -> None:
    with refused("Set app_id and open_id before access_token"):
        rows.create(**{**IDENTITY, missing: "", "access_token": ACCESS})
    assert not rows.exists()


def test_text_in_a_row_without_identity_is_unreadable() -> None:
    account = account_with_tokens()
    rows.update(open_id="")
    account.refresh_from_db()
    with pytest.raises(
        DecryptionError, match=r"Set app_id and open_id before access_token.*row\.$"
    ):
        _ = account.access_token


def test_purpose_is_a_literal_that_survives_renames(transactional_db: None) -> None:
    account = account_with_tokens()
    with isolate_apps("django_tiktok_business"):

        class Renamed(EncryptedModel):
            app_id = models.TextField()
            open_id = models.TextField()
            first_token = EncryptedTextField(
                purpose="tiktok_business.BusinessAccount.access_token",
                bound_to=("app_id", "open_id"),
                db_column="access_token",
            )

            class Meta:
                app_label = "tiktok_business"
                db_table = "tiktok_business_businessaccount"

            def __str__(self) -> str:
                return self.open_id

    renamed = Renamed._default_manager.get(open_id=account.open_id)
    assert str(renamed) == account.open_id
    assert renamed.first_token == ACCESS


def test_field_deconstructs_to_what_it_was_made_of() -> None:
    field = encrypted("access_token")
    name, path, args, kwargs = field.deconstruct()
    assert (name, path, list(args)) == (
        "access_token",
        "django_tiktok_business.fields.EncryptedTextField",
        [],
    )
    assert kwargs["purpose"] == "tiktok_business.BusinessAccount.access_token"
    assert kwargs["bound_to"] == ("app_id", "open_id")
    assert "editable" not in kwargs
    clone = field.clone()
    assert isinstance(clone, EncryptedTextField)
    assert clone.deconstruct()[1:] == (path, args, kwargs)
    assert clone.editable is False


def test_data_migrations_read_and_write_tokens() -> None:
    account = account_with_tokens()
    loader = MigrationLoader(connection)
    state = loader.project_state(("tiktok_business", "0001_initial"))
    historical = state.apps.get_model("tiktok_business", "BusinessAccount")
    row = historical.objects.get(pk=account.pk)
    assert row.access_token == ACCESS
    row.access_token = ASSIGNED
    row.save()
    assert reloaded(account).access_token == ASSIGNED
    assert reloaded(account).refresh_token == REFRESH


def test_values_are_opaque_and_masked() -> None:
    account = account_with_tokens()
    with wrong_key():
        row: Any = rows.values("pk", "access_token", "refresh_token").get()
        listed: Any = rows.values_list("access_token", flat=True).get()
    assert not isinstance(listed, str)
    assert row["access_token"] == listed
    assert hash(row["access_token"]) == hash(listed)
    assert row["access_token"] != row["refresh_token"]
    assert row["access_token"] != stored(account)
    assert repr(row["access_token"]) == str(listed) == "<encrypted>"
    assert rows.aggregate(last=Max("access_token"))["last"] == listed
    assert make_account(open_id="blank", access_token="").pk
    assert rows.filter(open_id="blank").values_list("access_token", flat=True).get() == ""


def test_values_can_be_written_back_by_update() -> None:
    account = account_with_tokens()
    snapshot = rows.values("access_token", "refresh_token").get()
    account.access_token = account.refresh_token = ""
    account.save()
    assert rows.update(**snapshot) == 1
    assert reloaded(account).access_token == ACCESS


def test_deferred_token_is_loaded_on_access_and_once() -> None:
    account_with_tokens()
    account = rows.defer("access_token").get()
    with CaptureQueriesContext(connection) as queries:
        assert [account.access_token, account.access_token] == [ACCESS, ACCESS]
    assert len(queries) == 1


def test_deleted_attribute_is_loaded_again() -> None:
    account = account_with_tokens()
    account.access_token = ASSIGNED
    del account.access_token
    assert account.access_token == ACCESS


def test_deferred_tokens_can_be_loaded_for_all_peers() -> None:
    for name in "ab":
        account_with_tokens(open_id=name, access_token=f"{ACCESS}{name}")
    queryset = rows.defer("access_token").order_by("open_id")
    has_fetch_modes = django.VERSION >= (6, 1)
    peers = list(queryset.fetch_mode(models.FETCH_PEERS) if has_fetch_modes else queryset)
    with CaptureQueriesContext(connection) as queries:
        assert [peer.access_token for peer in peers] == [f"{ACCESS}a", f"{ACCESS}b"]
    assert len(queries) == (1 if has_fetch_modes else 2)
    rotate(peers[1])
    peers[1].save()
    assert reloaded(peers[1]).access_token == ROTATED


def test_attribute_of_the_class_is_its_descriptor() -> None:
    assert BusinessAccount.access_token.field.purpose.endswith(".access_token")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, f"it is encrypted under key {cipher.key_id(KEY)}, which is not configured "),
        (f"ttb1:{cipher.key_id(OTHER_KEY)}:gAAAAABqnonsense", "the text is damaged, or was copied"),
        ("act.plain-from-another-tool", "the stored text is not in the format of an encrypted"),
        ("ttb1:", "the stored text is not in the format of an encrypted value"),
    ],
)
def test_f21_unreadable_value_raises_and_names_account_and_key(
    text: str | None, reason: str
) -> None:
    account = account_with_tokens()
    if text is not None:
        store(account, "access_token", text)
    hidden = stored(account)
    account.refresh_from_db()
    with wrong_key(), pytest.raises(DecryptionError) as caught:
        _ = account.access_token
    message = str(caught.value)
    assert message.startswith(
        f"access_token of BusinessAccount {account.pk} (app_id={account.app_id}, "
        f"open_id={account.open_id}) cannot be decrypted: {reason}"
    )
    assert hidden not in message
    assert hidden not in repr(caught.value)
    assert caught.value.__cause__ is None


def _read(account: BusinessAccount) -> str:
    token: str = account.access_token
    raise RuntimeError(f"{len(token)} characters were read")


def _debug_page(account: BusinessAccount) -> str:
    with pytest.raises((RuntimeError, DecryptionError)) as caught:
        _read(account)
    with override_settings(DEBUG=True):
        reporter = ExceptionReporter(
            RequestFactory().get("/"), caught.type, caught.value, caught.tb
        )
        return reporter.get_traceback_html() + reporter.get_traceback_text()


def test_f34_debug_page_of_code_that_reads_a_token_does_not_show_it() -> None:
    account = reloaded(account_with_tokens())
    account.refresh_token = ASSIGNED
    page = _debug_page(account)
    assert "characters were read" in page
    with wrong_key():
        unreadable = _debug_page(account)
    assert "cannot be decrypted" in unreadable
    for hidden in (*TOKENS, KEY, OTHER_KEY):
        assert hidden not in page + unreadable
