"""Whole instances: copies, pickles and saves move ciphertext, and lose no assigned token."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.cache import cache
from django.core.exceptions import FieldError, ValidationError
from django.core.validators import MinLengthValidator
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test.utils import isolate_apps

from django_tiktok_business.exceptions import DecryptionError
from django_tiktok_business.fields import (
    Ciphertext,
    EncryptedModel,
    EncryptedTextField,
)
from django_tiktok_business.models import BusinessAccount
from tests.support.encrypted_rows import (
    ACCESS,
    ASSIGNED,
    IDENTITY,
    REFRESH,
    ROTATED,
    TOKENS,
    account_with_tokens,
    committing,
    reloaded,
    rotate,
    rows,
    stored,
    wrong_key,
)

pytestmark = pytest.mark.django_db


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


def test_encrypting_for_another_column_is_refused() -> None:
    with pytest.raises(FieldError, match="username is not encrypted"):
        BusinessAccount(**IDENTITY).encrypt("username", ACCESS)


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
    account.save(update_fields=["username"])  # leaves the token to be saved
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
