"""The filters and the search of the lists, and lookups that they refuse."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client, override_settings
from django.urls import path
from django.utils import timezone

from django_tiktok_business import events
from django_tiktok_business.admin import BusinessAccountAdmin
from django_tiktok_business.admin.filters import OwnerFilter
from django_tiktok_business.models import BusinessAccount, Health
from tests.support.administrators import (
    EVENTS,
    LIST,
    cells,
    html,
    log_in_root,
    one_account_per_health,
    soon,
    stored_ciphertexts,
)
from tests.support.factories import make_account, make_user

INTERNAL = (
    "access_token",
    "refresh_token",
    "claim_id",
    "claim_expires_at",
    "credentials_version",
    "next_attempt_at",
)


class FilteredAccountAdmin(BusinessAccountAdmin):
    """The admin of a project with filters of its own."""

    date_hierarchy = "connected_at"
    list_filter = (
        *BusinessAccountAdmin.list_filter,
        "status",
        "app_id",
        "is_verified",
        "profile_synced_at",
        ["owner", admin.RelatedFieldListFilter],
        ("bio", admin.EmptyFieldListFilter),
    )


site = admin.AdminSite(name="filtered")
site.register(BusinessAccount, FilteredAccountAdmin)
urlpatterns = [path("admin/", site.urls)]


def test_f36_list_cannot_be_filtered_by_what_is_internal(root: Client) -> None:
    make_account()
    for column in INTERNAL:
        for lookup in ("", "__isnull", "__startswith", "__in", "__date__gt"):
            response = root.get(LIST, {f"{column}{lookup}": "0"})
            assert response.status_code == 400, (column, lookup)
        assert root.get(LIST, {"_to_field": column}).status_code == 400


@pytest.mark.parametrize("admin_list", [LIST, EVENTS])
@pytest.mark.parametrize(
    ("lookup", "value"),
    [
        ("pk__in", "9" * 30),
        ("id__exact", "\0"),
        ("account__display_name__regex", "("),
        ("display_name__regex", "(a+)+$"),
        ("open_id__exact", "\0"),
        ("connected_at__year", "999999"),
        ("scopes__contains", "x"),
        ("kind__exact", "\0"),
        ("kind__regex", "("),
        ("last_at__year", "999999"),
        ("owner__id__regex", "("),
        ("owner__password__exact", "x"),
    ],
)
def test_lookups_without_a_filter_are_refused(
    root: Client, admin_list: str, lookup: str, value: str
) -> None:
    events.record(make_account(), events.Kind.CONNECTED, "default")
    response = root.get(admin_list, {lookup: value})
    is_unknown = response.status_code == 302 and response.url.endswith("?e=1")  # type: ignore[attr-defined]
    assert response.status_code == 400 or is_unknown


@pytest.mark.parametrize("value", ["9" * 30, "x", "\0"])
@pytest.mark.parametrize("lookup", ["owner__id__exact", "health", "q", "p", "o"])
def test_odd_filter_values_never_crash(root: Client, lookup: str, value: str) -> None:
    make_account()
    assert root.get(LIST, {lookup: value}, follow=True).status_code in (200, 400)


@pytest.mark.parametrize("admin_list", [LIST, EVENTS])
def test_search_for_too_many_words_finds_nothing(root: Client, admin_list: str) -> None:
    events.record(make_account(display_name="a"), events.Kind.CONNECTED, "default")
    column = "account" if admin_list == LIST else "kind"
    assert len(cells(root.get(admin_list, {"q": "a " * 2000}), column)) == 0
    assert len(cells(root.get(admin_list, {"q": "a " * 50}), column)) == 1


@pytest.mark.parametrize("choices", [{"status": "active"}, lambda: {"status": "active"}])
def test_popup_of_a_field_with_limited_choices_works(
    root: Client, choices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BusinessAccount._meta, "related_fkey_lookups", [choices])
    make_account(open_id="_000Revoked", status="revoked")
    make_account()
    popup = {"_popup": "1", "_to_field": "id"}
    assert len(cells(root.get(LIST, {**popup, "status": "active"}), "account")) == 1
    assert root.get(LIST, {**popup, "status": "revoked"}).status_code == 400


def test_f36_search_finds_no_account_by_its_token(root: Client) -> None:
    account = make_account(username="harbour_bakery", display_name="Harbour Bakery")
    for text in (account.access_token, "act.", *stored_ciphertexts(), "ttb1"):
        assert cells(root.get(LIST, {"q": text}), "account") == []


@pytest.mark.parametrize("text", ["harbour", "Bakery", "@harbour_b", "_000TestOpenId0001"])
def test_search_finds_names_handles_and_open_ids(root: Client, text: str) -> None:
    make_account(username="harbour_bakery", display_name="The Bakery")
    make_account(open_id="other", username="other")
    assert cells(root.get(LIST, {"q": text}), "account") == ["TB The Bakery @harbour_bakery"]


@pytest.mark.parametrize("health", Health)
def test_filter_by_health(root: Client, health: Health) -> None:
    one_account_per_health()
    shown = cells(root.get(LIST, {"health": health.value, "_facets": "True"}), "state")
    assert shown == [str(health.label)]


@pytest.mark.parametrize(
    ("period", "expected"),
    [("7", ["5"]), ("30", ["20", "5"]), ("90", ["20", "5", "80"]), ("ended", ["-1"])],
)
def test_filter_by_the_end_of_the_refresh_token(
    root: Client, period: str, expected: list[str]
) -> None:
    for days in (-1, 5, 20, 80, 200):
        make_account(open_id=str(days), refresh_token_expires_at=soon(days=days))
    make_account(open_id="unknown", refresh_token_expires_at=None)
    page = root.get(LIST, {"refresh_token_ends": period, "o": "1"})
    assert sorted(name.split()[1] for name in cells(page, "account")) == expected


@pytest.mark.parametrize("name", ["health", "refresh", "refresh_token_ends"])
def test_filter_with_an_unknown_value_leads_back_to_the_list(root: Client, name: str) -> None:
    response = root.get(LIST, {name: "bogus"})
    assert response.headers["Location"] == f"{LIST}?e=1"
    assert root.get(response.headers["Location"]).status_code == 200


def test_filter_by_overdue_refresh(root: Client) -> None:
    make_account()
    make_account(open_id="late", access_token_expires_at=soon(hours=-2))
    assert cells(root.get(LIST, {"refresh": "overdue"}), "account") == ["L late"]


def test_filter_by_owner_offers_only_owners(root: Client) -> None:
    make_user("nobody")
    for name in ("ada", "eve"):
        make_account(open_id=name, owner=make_user(name))
    page = html(root.get(LIST))
    offered = re.findall(r'<a href="\?owner__id__exact=(\d+)">(.*?)</a>', page)
    assert [name for _, name in offered] == ["ada", "eve"]
    assert cells(root.get(LIST, {"owner__id__exact": offered[0][0]}), "owner") == ["ada"]


def test_filter_by_owner_is_not_offered_when_owners_are_too_many(root: Client) -> None:
    users = [make_user(f"user-{number}") for number in range(OwnerFilter.most + 1)]
    BusinessAccount.objects.bulk_create(
        BusinessAccount(app_id="1", open_id=str(user.pk), owner=user) for user in users
    )
    assert "?owner__id__exact=" not in html(root.get(LIST))
    chosen = root.get(LIST, {"owner__id__exact": users[7].pk})
    assert cells(chosen, "owner") == ["user-7"]


# Django's date hierarchy needs time zones, which MariaDB has not loaded here.
@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.django_db(transaction=True)
@override_settings(ROOT_URLCONF=__name__)
def test_links_of_a_projects_own_filters_work(client: Client) -> None:
    log_in_root(client)
    now = timezone.now()
    for number in range(3):  # several values, so that each filter has choices
        made = {"app_id": str(number), "owner": make_user(f"user{number}")}
        at = now - timedelta(days=400 * number)
        make_account(**made, connected_at=at, profile_synced_at=at, is_verified=bool(number))
    links = set(re.findall(r'href="(\?[^"]+)"', html(client.get(LIST))))
    parameters = {unescape(link)[1:].partition("=")[0].partition("__")[0] for link in links}
    assert parameters >= {"status", "app_id", "is_verified", "profile_synced_at", "owner", "bio"}
    assert parameters >= {"connected_at", "health"}
    assert {client.get(f"{LIST}{unescape(link)}").status_code for link in links} == {200}
