"""Each way to save a token writes ciphertext, and none brings an old token back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
from django.db import connection
from django.forms import modelform_factory

from django_tiktok_business.models import BusinessAccount
from tests.support.encrypted_rows import (
    ACCESS,
    ASSIGNED,
    IDENTITY,
    REFRESH,
    ROTATED,
    account_with_tokens,
    committing,
    reloaded,
    rotate,
    rows,
    store,
    stored,
)

pytestmark = pytest.mark.django_db


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
    account.pk = rows.get().pk  # MariaDB does not return it
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
    ciphertext = BusinessAccount(**IDENTITY).encrypt("access_token", ACCESS)
    return rows.create(**{**IDENTITY, "access_token": ciphertext})


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


def test_empty_text_is_encrypted_as_empty_text() -> None:
    account = account_with_tokens()
    rows.update(access_token=account.encrypt("access_token", ""))
    assert stored(account) == ""


def test_deleted_row_comes_back_whole() -> None:
    account = account_with_tokens()
    rows.all().delete()
    account.save()
    assert rows.get().access_token == ACCESS
    assert rows.get().refresh_token == REFRESH
