"""The encrypted column: what reaches the database, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import django
import pytest
from django.core import serializers
from django.core.cache import cache
from django.core.exceptions import FieldError, ValidationError
from django.core.management import call_command
from django.core.validators import MinLengthValidator
from django.db import IntegrityError, OperationalError, connection, models, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.models import Case, Exists, F, Max, OuterRef, Q, Subquery, TextField, Value, When
from django.db.models.functions import Cast, Concat, Lower
from django.forms import modelform_factory
from django.forms.models import model_to_dict
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.views.debug import ExceptionReporter

from django_tiktok_business.encryption import cipher
from django_tiktok_business.exceptions import ConfigurationError, DecryptionError
from django_tiktok_business.fields import (
    CaseSensitiveCharField,
    Ciphertext,
    EncryptedModel,
    EncryptedTextField,
    UpdateOnlyBigIntegerField,
)
from django_tiktok_business.models import BusinessAccount
from tests.support.factories import make_account, make_user
from tests.support.simulator import override_tiktok

ACCESS = "act.fields-Aa11!4711.e1"
REFRESH = "rft.fields-Bb22!4712.e1"
ROTATED = "act.fields-rotated-Cc33!4713.e1"
ASSIGNED = "act.fields-assigned-Dd44!4714.e1"
TOKENS = (ACCESS, REFRESH, ROTATED, ASSIGNED)
KEY = "test-only-Zr8vN2kXq5TgWb9YhJ4mLc7PdFs3RuEa"  # as in the test settings
OTHER_KEY = "fields-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"
IDENTITY: dict[str, Any] = {"app_id": "7000000000000000001", "open_id": "_000TestOpenId0001"}
FORMATS = ["json", "jsonl", "xml", *(["yaml"] if find_spec("yaml") else [])]

rows = BusinessAccount.objects
pytestmark = pytest.mark.django_db
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
    sealed = reloaded(account).encrypt("access_token", access_token)
    assert rows.filter(pk=account.pk).update(access_token=sealed) == 1


@contextmanager
def refused(match: str) -> Iterator[None]:
    # In a savepoint, because Django has the transaction around a failed write rolled back.
    with pytest.raises(FieldError, match=match), transaction.atomic():
        yield


def wrong_key() -> override_settings:
    return override_tiktok(ENCRYPTION_KEYS=[OTHER_KEY])


# In the database


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
    for instance in (written, read, pickle_free_copy(read)):
        assert instance.text == text  # type: ignore[attr-defined]
        assert (instance.text is None) == (text is None)  # type: ignore[attr-defined]
    assert note._default_manager.filter(text__isnull=True).count() == (text is None)
    assert note._default_manager.values_list("text", flat=True).get() == text
    note._default_manager.update(text="" if text is None else None)
    read.refresh_from_db()
    assert (read.text is None) == (text is not None)  # type: ignore[attr-defined]


def pickle_free_copy(instance: models.Model) -> models.Model:
    """The class of these instances is local to a test, so it cannot be pickled."""
    return copy.deepcopy(instance)


@pytest.fixture
def note(transactional_db: None) -> Iterator[type[models.Model]]:
    """A model with a nullable encrypted field that is not bound to its row."""
    with isolate_apps("django_tiktok_business"):

        class Note(EncryptedModel):
            text = EncryptedTextField(purpose="tests.Note.text", null=True)
            title = models.TextField(default="")

            class Meta:
                app_label = "tiktok_business"

            def __str__(self) -> str:
                return self.title

    with connection.schema_editor() as editor:
        editor.create_model(Note)
    yield Note
    with connection.schema_editor() as editor:
        editor.delete_model(Note)


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


# Bound to column and row


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


def test_bookkeeping_columns_are_plain_fields_to_migrations() -> None:
    paths = {
        name: BusinessAccount._meta.get_field(name).deconstruct()[1]  # type: ignore[union-attr]
        for name in ("claim_id", "claim_expires_at", "credentials_version")
    }
    assert paths == {
        "claim_id": "django.db.models.CharField",
        "claim_expires_at": "django.db.models.DateTimeField",
        "credentials_version": "django.db.models.BigIntegerField",
    }
    assert UpdateOnlyBigIntegerField().clone().__class__ is UpdateOnlyBigIntegerField


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


# Decrypted on access alone


def forms_of_an_instance(account: BusinessAccount) -> dict[str, Callable[[], BusinessAccount]]:
    """Each way in which an instance moves without its token being read."""

    def reload() -> BusinessAccount:
        account.refresh_from_db()
        return account

    def validate() -> BusinessAccount:
        account.full_clean()
        return account

    def save() -> BusinessAccount:
        account.save()
        return account

    def through_the_cache() -> BusinessAccount:
        cache.set("account", account)
        cached: BusinessAccount = cache.get("account")
        return cached

    return {
        "get": lambda: rows.get(pk=account.pk),
        "list": lambda: next(iter(rows.all())),
        "iterator": lambda: next(rows.iterator()),
        "in_bulk": lambda: rows.in_bulk([account.pk])[account.pk],
        "raw": lambda: rows.raw("SELECT * FROM tiktok_business_businessaccount")[0],
        "defer": lambda: rows.defer("access_token").get(),
        "only": lambda: rows.only("username").get(),
        "only_token": lambda: rows.only("access_token").get(),
        "select_related": lambda: rows.select_related("owner").get(),
        "refresh_from_db": reload,
        "full_clean": validate,
        "save": save,
        "copy": lambda: copy.copy(account),
        "deepcopy": lambda: copy.deepcopy(account),
        "pickle": lambda: pickle.loads(pickle.dumps(account)),
        "cache": through_the_cache,
        "asynchronous": lambda: asyncio.run(in_a_coroutine(account)),
    }


async def in_a_coroutine(account: BusinessAccount) -> BusinessAccount:
    return copy.copy(account)


@pytest.mark.parametrize("form", forms_of_an_instance(BusinessAccount()))
def test_f22_nothing_but_reading_the_attribute_takes_a_key(form: str) -> None:
    account = reloaded(account_with_tokens(display_name="Harbour Bakery"))
    before = stored(account), stored(account, "refresh_token")
    with wrong_key():
        moved = forms_of_an_instance(account)[form]()
        assert moved.pk == account.pk
        assert moved.display_name == "Harbour Bakery"
        with pytest.raises(DecryptionError):
            _ = moved.access_token
        moved.save()
    assert (stored(account), stored(account, "refresh_token")) == before
    assert moved.access_token == ACCESS
    assert moved.refresh_token == REFRESH
    assert repr(moved.access_token) == "<secret>"


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


def test_key_is_looked_up_on_each_access() -> None:
    account = reloaded(account_with_tokens())
    assert account.access_token == ACCESS
    with wrong_key(), pytest.raises(DecryptionError):
        _ = account.access_token
    assert account.access_token == ACCESS


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


# Unreadable


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


def test_f34_debug_page_of_whoever_reads_a_token_does_not_show_it() -> None:
    account = reloaded(account_with_tokens())
    account.refresh_token = ASSIGNED
    page = _debug_page(account)
    assert "characters were read" in page
    with wrong_key():
        unreadable = _debug_page(account)
    assert "cannot be decrypted" in unreadable
    for hidden in (*TOKENS, KEY, OTHER_KEY):
        assert hidden not in page + unreadable


@pytest.mark.parametrize("alien", ["ttb1:00000000:gAAAAABqalien", "act.plain-from-another-tool"])
def test_f28_unreadable_value_is_never_overwritten_by_saving(alien: str) -> None:
    account = account_with_tokens()
    store(account, "access_token", alien)

    def saves() -> Iterator[None]:
        row = reloaded(account)
        row.display_name = "One"
        row.save()
        yield
        row.full_clean()
        row.save()
        yield
        row.save(update_fields=["display_name"])
        row.save(update_fields=["access_token", "display_name"])
        yield
        row.save(force_update=True)
        yield
        pickle.loads(pickle.dumps(row)).save()
        copy.deepcopy(row).save()
        yield
        rows.update_or_create(**IDENTITY, defaults={"display_name": "Two"})
        yield
        rows.bulk_update([row], ["display_name"])
        yield
        form = modelform_factory(BusinessAccount, fields=["display_name", "status"])(
            {"display_name": "Three", "status": "active"}, instance=reloaded(account)
        )
        assert form.is_valid()
        form.save()
        yield

    for _ in saves():
        assert stored(account) == alien
        assert reloaded(account).refresh_token == REFRESH
    assert reloaded(account).display_name == "Three"


def test_unreadable_value_can_be_replaced_on_purpose() -> None:
    account = account_with_tokens()
    store(account, "access_token", "nonsense")
    account.refresh_from_db()
    account.access_token = ASSIGNED
    account.save()
    assert reloaded(account).access_token == ASSIGNED


# Writing


def created() -> BusinessAccount:
    return rows.create(**IDENTITY, access_token=ACCESS)


def saved() -> BusinessAccount:
    account = BusinessAccount(**IDENTITY)
    account.access_token = ACCESS
    account.save()
    return account


def gotten_or_created() -> BusinessAccount:
    return rows.get_or_create(**IDENTITY, defaults={"access_token": ACCESS})[0]


def updated_or_created() -> BusinessAccount:
    return rows.update_or_create(**IDENTITY, defaults={"access_token": ACCESS})[0]


def updated_not_created() -> BusinessAccount:
    rows.create(**IDENTITY, access_token="act.earlier")
    return updated_or_created()


def saved_again() -> BusinessAccount:
    account = rows.create(**IDENTITY, access_token="act.earlier")
    account.access_token = ACCESS
    account.save()
    return account


def saved_in_part() -> BusinessAccount:
    account = rows.create(**IDENTITY, access_token="act.earlier")
    account.access_token = ACCESS
    account.save(update_fields=["username"])
    assert reloaded(account).access_token == "act.earlier"
    assert account.access_token == ACCESS
    account.save(update_fields=["access_token"])
    return account


def saved_after_deferral() -> BusinessAccount:
    rows.create(**IDENTITY, access_token="act.earlier")
    account = rows.only("username").get()
    account.access_token = ACCESS
    account.save()
    return account


def saved_over_an_existing_row() -> BusinessAccount:
    pk = rows.create(**IDENTITY, access_token="act.earlier").pk
    account = BusinessAccount(
        **IDENTITY, pk=pk, access_token=ACCESS, created_at=rows.get().created_at
    )
    account.save()
    return account


def created_in_bulk() -> BusinessAccount:
    (account,) = rows.bulk_create([BusinessAccount(**IDENTITY, access_token=ACCESS)])
    account.pk = rows.get().pk  # MariaDB does not tell
    account._state.adding = False
    return account


def upserted_in_bulk() -> BusinessAccount:
    rows.create(**IDENTITY, access_token="act.earlier")
    can_target = connection.features.supports_update_conflicts_with_target
    rows.bulk_create(
        [BusinessAccount(**IDENTITY, access_token=ACCESS)],
        update_conflicts=True,
        update_fields=["access_token"],
        unique_fields=["app_id", "open_id"] if can_target else None,
    )
    return rows.get()


def updated_with_ciphertext() -> BusinessAccount:
    account = rows.create(**IDENTITY, access_token="act.earlier")
    assert rows.update(access_token=account.encrypt("access_token", ACCESS)) == 1
    account.refresh_from_db()
    return account


def created_with_ciphertext() -> BusinessAccount:
    sealed = BusinessAccount(**IDENTITY).encrypt("access_token", ACCESS)
    return rows.create(**{**IDENTITY, "access_token": sealed})


WRITERS = [
    created,
    saved,
    gotten_or_created,
    updated_or_created,
    updated_not_created,
    saved_again,
    saved_in_part,
    saved_after_deferral,
    saved_over_an_existing_row,
    created_in_bulk,
    upserted_in_bulk,
    updated_with_ciphertext,
    created_with_ciphertext,
]
each_writer = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)


@each_writer
def test_token_is_written_encrypted_and_reads_back(write: Callable[[], BusinessAccount]) -> None:
    account = write()
    assert stored(account).startswith("ttb1:")
    assert account.access_token == ACCESS
    assert reloaded(account).access_token == ACCESS
    account.save()
    account.save()
    assert reloaded(account).access_token == ACCESS
    assert account.access_token == ACCESS
    assert reloaded(account).refresh_token == account.refresh_token == ""


@committing
@each_writer
def test_f11_full_save_does_not_bring_an_old_token_back(
    write: Callable[[], BusinessAccount],
) -> None:
    account = write()
    stale = [
        account,
        reloaded(account),
        copy.copy(account),
        copy.deepcopy(account),
        pickle.loads(pickle.dumps(account)),
        rows.only("refresh_token", "username").get(),
    ]
    account.refresh_from_db(fields=["username"])
    rotate(account)
    for instance in stale:
        instance.username = "baker"
        instance.full_clean()
        instance.save()
        instance.save(update_fields=["access_token", "refresh_token", "username"])
        rows.update_or_create(**IDENTITY, defaults={"bio": "Bread"})
        assert reloaded(account).access_token == ROTATED
    assert reloaded(account).username == "baker"


@committing
def test_f11_full_save_does_not_clear_a_token_that_came_meanwhile() -> None:
    account = rows.create(**IDENTITY)
    stale = [account, reloaded(account), pickle.loads(pickle.dumps(reloaded(account)))]
    rotate(account)
    for instance in stale:
        assert instance.access_token == ""
        instance.full_clean()
        instance.save()
        assert reloaded(account).access_token == ROTATED


@committing
def test_f11_full_save_after_clearing_does_not_clear_again() -> None:
    account = account_with_tokens()
    account.access_token = ""
    account.save()
    assert stored(account) == ""
    rotate(account)
    account.save()
    assert reloaded(account).access_token == ROTATED


@committing
def test_f11_full_save_does_not_bring_a_revoked_token_back() -> None:
    account = account_with_tokens()
    stale = reloaded(account)
    rows.update(access_token="", refresh_token="")
    stale.save()
    account.save()
    assert stored(account) == stored(account, "refresh_token") == ""


def test_f11_full_save_does_not_bring_an_old_claim_back() -> None:
    account = account_with_tokens()
    stale = reloaded(account)
    rows.update(claim_id="ours", credentials_version=7)
    for instance in (account, stale):
        instance.claim_id = "forged"
        instance.save()
        row = reloaded(account)
        assert (row.claim_id, row.credentials_version) == ("ours", 7)


def test_claim_columns_are_written_on_creation() -> None:
    account = account_with_tokens(claim_id="import", credentials_version=3)
    assert (reloaded(account).claim_id, reloaded(account).credentials_version) == ("import", 3)


def test_values_of_a_fresh_instance_are_written_even_if_they_came_from_a_row() -> None:
    account = account_with_tokens()
    values = rows.values("access_token").get()
    account.delete()
    rows.create(**IDENTITY, **values)
    assert rows.get().access_token == ACCESS


def test_clearing_a_token_empties_the_column() -> None:
    account = account_with_tokens()
    account.access_token = ""
    account.save()
    assert stored(account) == ""
    deferred = rows.only("username").get()
    deferred.refresh_token = ""
    deferred.save()
    assert stored(account, "refresh_token") == ""
    assert reloaded(account).access_token == reloaded(account).refresh_token == ""


def test_update_takes_empty_text() -> None:
    account = account_with_tokens()
    assert rows.update(access_token="") == 1
    assert stored(account) == ""
    assert reloaded(account).refresh_token == REFRESH


def test_seal_of_empty_text_is_empty() -> None:
    account = account_with_tokens()
    rows.update(access_token=account.encrypt("access_token", ""))
    assert stored(account) == ""


def test_sealing_takes_an_encrypted_column() -> None:
    with pytest.raises(FieldError, match="username is not encrypted"):
        BusinessAccount(**IDENTITY).encrypt("username", ACCESS)


def test_deleted_row_comes_back_whole() -> None:
    account = account_with_tokens()
    rows.all().delete()
    account.save()
    assert rows.get().access_token == ACCESS
    assert rows.get().refresh_token == REFRESH


def test_copy_of_an_unsaved_instance_may_become_another_row() -> None:
    template = BusinessAccount(access_token=ACCESS)
    for copied in (copy.copy(template), copy.deepcopy(template)):
        copied.app_id, copied.open_id = "7", f"{id(copied)}"
        copied.save()
        assert reloaded(copied).access_token == ACCESS
    assert template._state.adding
    assert template.access_token == ACCESS


def test_deep_copy_shares_nothing_and_keeps_cycles() -> None:
    account = account_with_tokens(scopes=["video.list"])
    account.itself = account  # type: ignore[attr-defined]
    copied = copy.deepcopy(account)
    assert copied.itself is copied  # type: ignore[attr-defined]
    copied.scopes.append("video.insights")
    copied._state.adding = True
    assert account.scopes == ["video.list"]
    assert account._state.adding is False


# A save that does not last


@contextmanager
def broken_database() -> Iterator[None]:
    """Every statement fails, as when the server goes away."""

    def fail(*statement: Any) -> Any:
        raise OperationalError("server closed the connection unexpectedly")

    with connection.execute_wrapper(fail), pytest.raises(OperationalError):
        yield


@committing
def test_assigned_token_survives_a_save_that_fails() -> None:
    account = BusinessAccount(**IDENTITY, access_token=ACCESS)
    with broken_database():
        account.save()
    assert account.access_token == ACCESS
    account.save()
    assert reloaded(account).access_token == ACCESS
    account.access_token = ASSIGNED
    with broken_database():
        account.save()
    assert account.access_token == ASSIGNED
    account.save(update_fields=["username"])  # the token stays to be saved
    account.save()
    assert reloaded(account).access_token == ASSIGNED


@committing
def test_cleared_token_stays_cleared_after_a_save_that_fails() -> None:
    account = account_with_tokens()
    account.access_token = ""
    with broken_database():
        account.save()
    account.save()
    assert stored(account) == ""


@committing
def test_assigned_token_survives_an_integrity_error() -> None:
    account = account_with_tokens()
    account.access_token = ASSIGNED
    account.username = None  # type: ignore[assignment]
    with pytest.raises(IntegrityError):
        account.save()
    account.username = ""
    account.save()
    assert reloaded(account).access_token == ASSIGNED


@committing
def test_insert_that_was_refused_can_become_an_update() -> None:
    existing = account_with_tokens()
    imported = BusinessAccount(
        **IDENTITY, pk=existing.pk, access_token=ASSIGNED, created_at=existing.created_at
    )
    with pytest.raises(IntegrityError):
        imported.save(force_insert=True)
    imported.save()
    assert reloaded(existing).access_token == ASSIGNED


@contextmanager
def rolled_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@committing
@pytest.mark.parametrize("outer", [False, True], ids=["transaction", "savepoint"])
def test_assigned_token_survives_a_rollback(outer: bool) -> None:
    account = account_with_tokens()
    fresh = BusinessAccount(app_id="7", open_id="fresh", access_token=ACCESS)

    def save_both() -> None:
        account.access_token = ASSIGNED
        account.refresh_token = ""
        with rolled_back():
            account.save()
            account.save()
            fresh.save()
        account.save()
        fresh.save()

    if outer:
        with transaction.atomic():
            save_both()
    else:
        save_both()
    assert reloaded(account).access_token == ASSIGNED
    assert stored(account, "refresh_token") == ""
    assert reloaded(fresh).access_token == ACCESS


@committing
def test_commit_makes_an_assigned_token_the_rows() -> None:
    account = account_with_tokens()
    account.access_token = ASSIGNED
    with transaction.atomic():
        account.save()
        account.refresh_token = "rft.assigned-after-the-save"
    rotate(account)
    account.save()
    assert reloaded(account).access_token == ROTATED
    assert reloaded(account).refresh_token == "rft.assigned-after-the-save"


@committing
def test_token_assigned_between_save_and_commit_is_not_lost() -> None:
    account = account_with_tokens()
    account.access_token = "act.first"
    with transaction.atomic():
        account.save()
        account.access_token = ASSIGNED
    account.save()
    assert reloaded(account).access_token == ASSIGNED


@committing
def test_saving_works_while_autocommit_is_off() -> None:
    account = account_with_tokens()
    transaction.set_autocommit(False)
    try:
        account.access_token = "act.rolled-back"
        account.save()
        transaction.rollback()
        account.access_token = ASSIGNED
        account.save()
        transaction.rollback()
        account.save()
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert reloaded(account).access_token == ASSIGNED


# Refused


@pytest.mark.parametrize(
    "value",
    [
        ACCESS,
        Value(ACCESS),
        Value(""),
        Value(None),
        F("refresh_token"),
        F("username"),
        Case(When(pk__gt=0, then=Value(ACCESS)), default=Value("")),
        Concat(Value("a"), Value("b")),
        Concat("access_token", "access_token"),
        Lower("access_token"),
        Cast("username", TextField()),
        Subquery(BusinessAccount.objects.values("refresh_token")[:1]),
        Subquery(BusinessAccount.objects.filter(pk=OuterRef("pk")).values("access_token")[:1]),
        7,
        b"bytes",
        ["list"],
    ],
)
def test_f23_update_refuses_what_cannot_be_bound_to_a_row(value: Any) -> None:
    account = account_with_tokens()
    before = stored(account), stored(account, "refresh_token")
    with refused(r"access_token is encrypted|mixed types"):
        rows.update(access_token=value)
    assert (stored(account), stored(account, "refresh_token")) == before


def test_f23_column_set_to_itself_stays_as_it_is() -> None:
    account = account_with_tokens()
    rows.update(access_token=F("access_token"))
    assert reloaded(account).access_token == ACCESS


@pytest.mark.parametrize(
    "value", [Value(ACCESS), F("access_token"), Concat(Value("a"), Value("b")), 7, b"bytes", True]
)
def test_f23_instances_refuse_what_is_not_text(value: Any) -> None:
    account = account_with_tokens()
    with refused("takes a string or None, not"):
        account.access_token = value
    with refused("takes a string or None, not"):
        rows.create(**{**IDENTITY, "open_id": "other"}, access_token=value)
    with refused("takes a string or None, not"):
        rows.update_or_create(**IDENTITY, defaults={"access_token": value})
    account.save()
    assert rows.get().access_token == ACCESS


def test_f23_bulk_update_of_tokens_is_refused() -> None:
    account = account_with_tokens()
    before = stored(account)
    for token in (ASSIGNED, "", None):
        account.access_token = token
        with refused("takes no expression"):
            rows.bulk_update([account], ["username", "access_token"])
        assert stored(account) == before


def test_bulk_update_of_other_columns_leaves_tokens_alone() -> None:
    account = account_with_tokens()
    account.username = "baker"
    with wrong_key():
        assert rows.bulk_update([account], ["username"]) == 1
    assert reloaded(account).access_token == ACCESS
    assert reloaded(account).username == "baker"


@pytest.mark.parametrize(
    "lookup",
    [*sorted(models.TextField().get_lookups().keys() - {"isnull"}), "search", "year", "unknown"],
)
def test_f24_every_lookup_but_isnull_is_refused(lookup: str) -> None:
    account_with_tokens()
    value = [ACCESS, REFRESH] if lookup in ("in", "range") else ACCESS
    condition = {f"access_token__{lookup}": value}
    user = make_user()
    queries: list[Callable[[], Any]] = [
        lambda: rows.filter(**condition),
        lambda: rows.exclude(**condition),
        lambda: rows.filter(Q(username="x") | ~Q(**condition)),
        lambda: rows.annotate(token=F("access_token")).filter(**{f"token__{lookup}": value}),
        lambda: rows.annotate(hit=Case(When(**condition, then=Value(1)), default=Value(0))),
        lambda: user.tiktok_business_accounts.filter(**condition),
        lambda: rows.filter(Exists(BusinessAccount.objects.filter(**condition))),
    ]
    for query in queries:
        with pytest.raises(FieldError, match="is encrypted: only isnull can look it up"):
            query()


@pytest.mark.parametrize(
    "query",
    [
        lambda: rows.filter(access_token=ACCESS),
        lambda: rows.filter(access_token=""),
        lambda: rows.filter(access_token=None),
        lambda: rows.filter(access_token=F("refresh_token")),
        lambda: rows.exclude(access_token=""),
        lambda: rows.get_or_create(**IDENTITY, access_token=ACCESS),
        lambda: rows.update_or_create(access_token=ACCESS, defaults={"username": "x"}),
        lambda: rows.annotate(low=Lower("access_token")).filter(low="a"),
    ],
)
def test_f24_other_ways_to_compare_are_refused(query: Callable[[], Any]) -> None:
    account_with_tokens()
    with pytest.raises(FieldError, match="is encrypted: only isnull can look it up"):
        query()


@pytest.mark.parametrize("transform", ["length", "lower", "unknown"])
def test_f24_transforms_are_refused(transform: str) -> None:
    path = f"access_token__{transform}"
    for query in (
        lambda: rows.order_by(path),
        lambda: rows.filter(**{f"{path}__gt": 1}),
        lambda: rows.values_list(path),
    ):
        with pytest.raises(FieldError):
            list(query())


def test_isnull_can_be_looked_up() -> None:
    account = account_with_tokens()
    assert rows.filter(access_token__isnull=False).get() == account
    assert not rows.filter(access_token__isnull=True).exists()
    assert rows.exclude(access_token__isnull=True).get() == account
    assert rows.filter(Q(access_token__isnull=False) & ~Q(username="x")).get() == account
    assert rows.annotate(token=F("access_token")).filter(token__isnull=False).count() == 1
    assert list(rows.order_by("access_token")) == [account]


def test_f36_no_form_has_the_field() -> None:
    assert "access_token" not in modelform_factory(BusinessAccount, fields="__all__").base_fields
    with pytest.raises(FieldError):
        modelform_factory(BusinessAccount, fields=["access_token"])
    nothing: Any = encrypted("access_token").formfield  # declared to give None
    assert nothing() is None
    assert not {"access_token", "refresh_token"} & set(model_to_dict(account_with_tokens()))


# Validation


@pytest.mark.parametrize("text", ["ttb1:88cdd793:gAAAAABqAAAAAA==", "ttb1:", "gAAAAABq", "<x>"])
def test_f26_text_that_looks_like_ciphertext_is_plaintext(text: str) -> None:
    account = account_with_tokens()
    account.access_token = text
    account.full_clean()
    assert account.access_token == text
    account.save()
    account.full_clean()
    account.save()
    assert stored(account) != text
    assert reloaded(account).access_token == text


def test_f26_ciphertext_that_is_assigned_is_encrypted_once_more() -> None:
    account = account_with_tokens()
    text = stored(account)
    account.access_token = text
    account.save()
    assert reloaded(account).access_token == text


def test_validators_see_what_was_assigned_and_never_ciphertext() -> None:
    with isolate_apps("django_tiktok_business"):

        class Guarded(EncryptedModel):
            text = EncryptedTextField(purpose="tests", validators=[MinLengthValidator(8)])

            class Meta:
                app_label = "tiktok_business"

            def __str__(self) -> str:
                return "guarded"

    guarded = Guarded(text="short")
    assert str(guarded) == "guarded"
    with pytest.raises(ValidationError):
        guarded.clean_fields()
    guarded.text = ACCESS
    guarded.clean_fields()
    guarded.text = Ciphertext("short", "row")
    guarded.clean_fields()


# Dump and load


def dumped(format: str, path: Path) -> Path:  # noqa: A002 -- the option's name
    file = path / f"accounts.{format}"
    call_command("dumpdata", "tiktok_business", format=format, output=str(file))
    return file


def load(file: Path) -> None:
    call_command("loaddata", str(file), verbosity=0)


each_format = pytest.mark.parametrize("format", FORMATS)


@each_format
def test_f31_dump_holds_ciphertext_and_loads_into_an_empty_table(
    format: str,  # noqa: A002
    tmp_path: Path,
) -> None:
    account = account_with_tokens(owner=make_user())
    make_account(open_id="blank", access_token="", refresh_token="")
    before = stored(account), stored(account, "refresh_token")
    file = dumped(format, tmp_path)
    text = file.read_text()
    assert before[0] in text
    assert not [token for token in TOKENS if token in text]
    assert not {"claim_id", "claim_expires_at", "credentials_version"} & set(text.split('"'))
    rows.all().delete()
    with wrong_key():
        load(file)
    assert (stored(account), stored(account, "refresh_token")) == before
    assert reloaded(account).access_token == ACCESS
    assert reloaded(account).refresh_token == REFRESH
    assert rows.get(open_id="blank").access_token == ""
    # A dump cuts off what is below a millisecond, and says nothing at all of a full second.
    again = dumped(format, tmp_path).read_text()
    assert again.replace(".000Z", "Z") == text.replace(".000Z", "Z")


@each_format
def test_f31_dump_loads_over_existing_rows(format: str, tmp_path: Path) -> None:  # noqa: A002
    account = account_with_tokens()
    file = dumped(format, tmp_path)
    rotate(account)
    load(file)
    assert reloaded(account).access_token == ACCESS
    assert rows.count() == 1


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "xml"])
def test_f31_dump_takes_no_key(format: str, tmp_path: Path) -> None:  # noqa: A002
    account = account_with_tokens()
    store(account, "refresh_token", "nonsense")
    with wrong_key():
        text = dumped(format, tmp_path).read_text()
    assert stored(account) in text
    assert "nonsense" in text


def test_dump_to_xml_reads_the_attribute_and_so_takes_the_key() -> None:
    # Django's XML serializer, alone of all, looks whether the value is None.
    account_with_tokens()
    with wrong_key(), pytest.raises(DecryptionError):
        serializers.serialize("xml", rows.all())


@each_format
def test_f31_serializing_an_assigned_token_encrypts_it(format: str) -> None:  # noqa: A002
    account = account_with_tokens()
    account.access_token = ASSIGNED
    text = serializers.serialize(format, [account])
    assert ASSIGNED not in text
    deserialized(text, format).save()
    assert reloaded(account).access_token == ASSIGNED


@pytest.mark.parametrize("text", ["", None])
def test_f27_dump_tells_empty_text_from_none(note: type[models.Model], text: str | None) -> None:
    instance = note(text=text, pk=1)
    (written,) = json.loads(serializers.serialize("json", [instance]))
    assert written["fields"]["text"] == text
    xml = serializers.serialize("xml", [instance])
    assert ("<None></None>" in xml) == (text is None)
    field: Any = instance._meta.get_field("text")
    assert field.value_to_string(instance) == ""


def deserialized(text: str, format: str = "json") -> Any:  # noqa: A002
    (loaded,) = serializers.deserialize(format, text)
    return loaded


def test_deserialized_instance_can_be_saved_as_any_other() -> None:
    account = account_with_tokens()
    before = stored(account)
    fixture = serializers.serialize("json", [account])
    rows.all().delete()
    loaded = deserialized(fixture)
    assert isinstance(loaded.object.access_token, Ciphertext)
    assert "act." not in repr(vars(loaded.object))
    loaded.object.full_clean()
    loaded.object.save()
    assert stored(account) == before
    assert loaded.object.access_token == ACCESS


@committing
def test_deserialized_instance_saved_over_its_row_reads_back() -> None:
    account = account_with_tokens()
    fixture = serializers.serialize("json", [account])
    rotate(account)
    loaded = deserialized(fixture)
    loaded.object._state.adding = False
    loaded.object.save()
    assert reloaded(account).access_token == ACCESS
    assert loaded.object.access_token == ACCESS


@each_format
def test_fixture_with_a_plain_token_is_refused(
    format: str,  # noqa: A002
    tmp_path: Path,
) -> None:
    account = account_with_tokens()
    file = dumped(format, tmp_path)
    file.write_text(file.read_text().replace(stored(account), ASSIGNED))
    rows.all().delete()
    with pytest.raises(FieldError) as caught:
        load(file)
    assert "A fixture holds what dumpdata has written" in str(caught.value)
    assert ASSIGNED not in str(caught.value)
    assert not rows.exists()


def test_load_from_another_site_is_unreadable_and_not_lost() -> None:
    account = account_with_tokens()
    with wrong_key():
        foreign = serializers.serialize("json", [account_with_tokens(open_id="foreign")])
    rows.filter(open_id="foreign").delete()
    for loaded in serializers.deserialize("json", foreign):
        loaded.save()
    row = rows.get(open_id="foreign")
    with pytest.raises(DecryptionError):
        _ = row.access_token
    row.save()
    with wrong_key():
        assert rows.get(open_id="foreign").access_token == ACCESS
    assert reloaded(account).access_token == ACCESS


# Pickles


def test_f31_pickle_holds_no_plaintext() -> None:
    account = account_with_tokens()
    account.access_token = ASSIGNED
    pickled = pickle.dumps(account)
    assert not [token for token in TOKENS if token.encode() in pickled]
    loaded = pickle.loads(pickled)
    assert loaded.access_token == ASSIGNED
    loaded.save()
    assert reloaded(account).access_token == ASSIGNED
    assert account.access_token == ASSIGNED


def test_f31_pickled_queryset_holds_no_plaintext() -> None:
    account_with_tokens()
    evaluated = rows.all()
    assert len(evaluated) == 1
    pickled = pickle.dumps(evaluated)
    assert ACCESS.encode() not in pickled
    assert pickle.loads(pickled)[0].access_token == ACCESS


def test_deferred_token_stays_deferred_in_a_pickle() -> None:
    account_with_tokens()
    loaded = pickle.loads(pickle.dumps(rows.defer("access_token").get()))
    assert loaded.get_deferred_fields() == {"access_token"}
    assert loaded.access_token == ACCESS


def test_f31_instance_shows_no_token() -> None:
    account = account_with_tokens()
    account.refresh_token = ASSIGNED
    for instance in (account, reloaded(account)):
        shown = f"{instance} {instance!r} {vars(instance)}"
        assert not [token for token in TOKENS if token in shown]


# Rotation of keys


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
    with wrong_key():  # moved to a key of its own
        assert reloaded(account).access_token == ACCESS


# Threads


def test_reading_in_one_thread_is_not_disturbed_by_copies_in_others() -> None:
    accounts = [reloaded(account_with_tokens(open_id=f"account {n}")) for n in range(4)]
    done = threading.Event()

    def move() -> int:
        count = 0
        while not done.is_set():
            for account in accounts:
                pickle.dumps(account)
                account.clean_fields()
                copy.deepcopy(account)
                count += 1
        return count

    def read() -> set[str]:
        return {account.access_token for _ in range(100) for account in accounts}

    with ThreadPoolExecutor(8) as pool:
        movers = [pool.submit(move) for _ in range(4)]
        readers = [pool.submit(read) for _ in range(4)]
        try:
            assert [reader.result() for reader in readers] == [{ACCESS}] * 4
        finally:
            done.set()
        assert all(mover.result() for mover in movers)


# The other fields


def test_case_sensitive_field_names_a_collation_on_mysql_alone() -> None:
    parameters = CaseSensitiveCharField(max_length=9).db_parameters(connection)
    expected = "utf8mb4_bin" if connection.vendor == "mysql" else None
    assert parameters.get("collation") == expected


@committing
def test_migration_sql_names_the_collation_on_mysql_alone() -> None:
    out = io.StringIO()
    call_command("sqlmigrate", "tiktok_business", "0001", stdout=out)
    assert ("utf8mb4_bin" in out.getvalue()) == (connection.vendor == "mysql")
