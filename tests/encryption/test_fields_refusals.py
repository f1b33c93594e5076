"""What an encrypted column refuses: expressions, lookups, forms, and what is not text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import models
from django.db.models import Case, Exists, F, OuterRef, Q, Subquery, TextField, Value, When
from django.db.models.functions import Cast, Concat, Lower
from django.forms import modelform_factory
from django.forms.models import model_to_dict

from django_tiktok_business.models import BusinessAccount
from tests.support.encrypted_rows import (
    ACCESS,
    ASSIGNED,
    IDENTITY,
    REFRESH,
    account_with_tokens,
    encrypted,
    refused,
    reloaded,
    rows,
    stored,
    wrong_key,
)
from tests.support.factories import make_user

pytestmark = pytest.mark.django_db


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
