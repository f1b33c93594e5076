"""The columns of the account list."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tiktok_business.models import Health
from tests.support.administrators import (
    LIST,
    cells,
    fact,
    html,
    make_unreadable,
    one_account_per_health,
    page_of,
    soon,
)
from tests.support.factories import make_account, make_user
from tests.support.simulator import override_tiktok

IMAGE = "https://p16-sign-va.tiktokcdn.com/a.jpeg?x-expires={}"
COLUMNS = (
    "account",
    "state",
    "followers",
    "access_token_expiry",
    "refresh_token_expiry",
    "owner",
    "last_sync",
)


def test_list_shows_profile_and_health_of_an_account(root: Client) -> None:
    account = make_account(
        display_name="Harbour Bakery",
        username="harbour_bakery",
        profile_image_url=IMAGE.format(9_999_999_999),
        profile_url="https://vm.tiktok.com/SIMabc123/",
        followers_count=152_300_411,
        access_token_expires_at=soon(hours=5),
        refresh_token_expires_at=soon(days=300),
        profile_synced_at=soon(days=-3),
        owner=make_user("ada"),
    )
    page = root.get(LIST)
    shown = {column: cells(page, column) for column in COLUMNS}
    assert shown == {
        "account": ["HB Harbour Bakery @harbour_bakery"],
        "state": ["healthy"],
        "followers": ["152,300,411"],
        "access_token_expiry": ["in 5 hours"],
        "refresh_token_expiry": ["in 10 months"],
        "owner": ["ada"],
        "last_sync": ["3 days ago"],
    }
    assert f'<a href="{page_of(account)}"><bdi>Harbour Bakery</bdi></a>' in html(page)
    link = 'href="https://vm.tiktok.com/SIMabc123/" target="_blank" rel="noopener noreferrer"'
    assert f"{link}><bdi>@harbour_bakery</bdi></a>" in html(page)
    assert '<img src="https://p16-sign-va.tiktokcdn.com/a.jpeg?x-expires=9999999999"' in html(page)


def test_list_labels_unknown_values(root: Client) -> None:
    make_account(access_token_expires_at=None, refresh_token_expires_at=None)
    page = root.get(LIST)
    shown = {column: cells(page, column) for column in COLUMNS}
    assert shown == {
        "account": ["0 _000TestOpenId0001"],
        "state": ["healthy"],
        "followers": ["-"],
        "access_token_expiry": ["unknown"],
        "refresh_token_expiry": ["unknown"],
        "owner": ["-"],
        "last_sync": ["never"],
    }


def test_list_has_initials_for_a_picture_whose_address_has_ended(root: Client) -> None:
    make_account(display_name="Harbour Bakery", profile_image_url=IMAGE.format(1_000))
    page = root.get(LIST)
    assert cells(page, "account") == ["HB Harbour Bakery"]
    assert "tiktokcdn" not in html(page)


def test_list_links_an_account_without_a_handle_by_another_word(root: Client) -> None:
    make_account(display_name="Lena", profile_url="https://vm.tiktok.com/SIMlen012/")
    assert cells(root.get(LIST), "account") == ["L Lena profile"]


def test_list_has_a_badge_in_words_and_a_colour_for_each_health(root: Client) -> None:
    one_account_per_health()
    page = html(root.get(LIST))
    badges = dict(re.findall(r'class="tiktok-badge tiktok-(\w+)">([^<]+)<', page))
    assert badges == {health.value: health.label for health in Health}


def test_list_has_no_expiry_for_an_account_without_tokens(root: Client) -> None:
    make_account(status="revoked", access_token_expires_at=None, refresh_token_expires_at=None)
    assert cells(root.get(LIST), "access_token_expiry") == ["-"]


def test_list_marks_accounts_of_another_app(root: Client) -> None:
    make_account(app_id="7000000000000000002")
    assert cells(root.get(LIST), "state") == ["healthy other app: not refreshed"]


def test_list_begins_with_the_newest_connection(root: Client) -> None:
    for name, connected_at in (("old", soon(days=-9)), ("unknown", None), ("new", soon(days=-1))):
        make_account(open_id=name, connected_at=connected_at)
    assert cells(root.get(LIST), "account") == ["N new", "O old", "U unknown"]


def test_list_is_sorted_by_any_column_but_health(root: Client) -> None:
    make_account(open_id="1", display_name="Zoe", followers_count=1)
    make_account(open_id="2", display_name="Amy", followers_count=2)
    assert cells(root.get(LIST, {"o": "1"}), "account") == ["A Amy", "Z Zoe"]
    assert cells(root.get(LIST, {"o": "3"}), "followers") == ["1", "2"]
    sortable = re.findall(r'class="sortable column-(\w+)', html(root.get(LIST)))
    assert sortable == [column for column in COLUMNS if column != "state"]


def test_list_takes_as_many_queries_for_100_accounts_as_for_one(root: Client) -> None:
    make_account(owner=make_user("first"))
    with CaptureQueriesContext(
        connection,
    ) as for_one:
        assert len(cells(root.get(LIST), "account")) == 1
    for number in range(99):
        make_account(open_id=str(number), owner=make_user(f"user-{number}"))
    with CaptureQueriesContext(connection) as for_100:
        assert len(cells(root.get(LIST), "account")) == 100
    assert len(for_100) == len(for_one)


def test_f22_one_unreadable_account_among_100_says_so_in_its_row_only(root: Client) -> None:
    accounts = [make_account(open_id=str(number)) for number in range(100)]
    make_unreadable(accounts[42])
    page = root.get(LIST, {"o": "1"})
    states = dict(zip(cells(page, "account"), cells(page, "state"), strict=True))
    assert [name for name, state in states.items() if state == "cannot decrypt"] == ["4 42"]
    assert sum(state == "healthy" for state in states.values()) == 99


@pytest.mark.parametrize("keys", [["another-Kc5vN2kXq5TgWb9YhJ4mLc7PdFs3RuEa"], "not a list"])
def test_f22_pages_work_without_a_usable_key(root: Client, keys: Any) -> None:
    account = make_account()
    with override_tiktok(ENCRYPTION_KEYS=keys):
        assert cells(root.get(LIST), "state") == ["cannot decrypt"]
        assert fact(root.get(page_of(account)), "state") == "cannot decrypt"


def test_link_to_an_account_leads_back_to_the_same_filter(root: Client) -> None:
    account = make_account()
    page = html(root.get(LIST, {"health": "healthy"}))
    assert f"{page_of(account)}?_changelist_filters=health%3Dhealthy" in page


def test_list_in_a_popup_hands_the_choice_to_the_form_behind_it(root: Client) -> None:
    account = make_account(username="ada")
    page = html(root.get(LIST, {"_popup": "1"}))
    assert f'data-popup-opener="{account.pk}"' in page
    assert "Connect an account" not in page
    assert "tiktok-handle" not in page  # a link within a link


def test_f36_only_the_owner_can_be_edited(root: Client) -> None:
    page = html(root.get(page_of(make_account())))
    form = page[page.index('id="businessaccount_form"') :]
    assert re.findall(r'<(?:input|textarea|select)[^>]* name="([^"]+)"', form) == [
        "csrfmiddlewaretoken",
        "owner",
        "_save",
        "_continue",
    ]
