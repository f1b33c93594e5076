from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import events, services
from django_tiktok_business.admin.filters import OwnerFilter
from django_tiktok_business.models import BusinessAccount, Health
from django_tiktok_business.simulator import Simulator
from tests.support.administrators import (
    LIST,
    cells,
    fact,
    field,
    html,
    log_in_root,
    log_in_staff,
    make_unreadable,
    page_of,
    stored_ciphertexts,
    words,
)
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import override_tiktok, running_simulator

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
EVENTS = "/admin/tiktok_business/connectionevent/"
INTERNAL = (
    "access_token",
    "refresh_token",
    "claim_id",
    "claim_expires_at",
    "credentials_version",
    "next_attempt_at",
)


@pytest.fixture
def root(db: None, client: Client) -> Client:
    log_in_root(client)
    return client


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


def soon(**distance: float) -> Any:
    """An instant, with time to spare for the test to run."""
    return timezone.now() + timedelta(**distance)


def accounts_of_all_kinds() -> dict[Health, BusinessAccount]:
    kinds: dict[Health, dict[str, Any]] = {
        Health.HEALTHY: {},
        Health.EXPIRES_SOON: {"refresh_token_expires_at": soon(days=12)},
        Health.RETRYING: {"consecutive_failures": 2},
        Health.RECONNECT_NEEDED: {"status": "reauthorization_required"},
        Health.REVOKED: {"status": "revoked", "access_token": "", "refresh_token": ""},
        Health.UNDECRYPTABLE: {},
    }
    accounts = {
        kind: make_account(open_id=f"_000{kind}", username=kind, **values)
        for kind, values in kinds.items()
    }
    make_unreadable(accounts[Health.UNDECRYPTABLE])
    return accounts


# The list


def test_list_shows_who_an_account_is_and_how_it_fares(root: Client) -> None:
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


def test_list_says_what_is_not_known(root: Client) -> None:
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
    accounts_of_all_kinds()
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
def test_lists_are_not_filtered_by_what_no_filter_says(
    root: Client, admin_list: str, lookup: str, value: str
) -> None:
    events.record(make_account(), events.Kind.CONNECTED, "default")
    response = root.get(admin_list, {lookup: value})
    is_unknown = response.status_code == 302 and response.url.endswith("?e=1")  # type: ignore[attr-defined]
    assert response.status_code == 400 or is_unknown


@pytest.mark.parametrize("value", ["9" * 30, "x", "\0"])
@pytest.mark.parametrize("lookup", ["owner__id__exact", "health", "q", "p", "o"])
def test_odd_values_of_a_filter_end_in_a_page(root: Client, lookup: str, value: str) -> None:
    make_account()
    assert root.get(LIST, {lookup: value}, follow=True).status_code in (200, 400)


@pytest.mark.parametrize("admin_list", [LIST, EVENTS])
def test_search_for_a_whole_book_finds_nothing(root: Client, admin_list: str) -> None:
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
    accounts_of_all_kinds()
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


def test_filter_by_what_no_run_has_refreshed(root: Client) -> None:
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


def test_link_to_an_account_leads_back_to_the_same_filter(root: Client) -> None:
    account = make_account()
    page = html(root.get(LIST, {"health": "healthy"}))
    assert f"{page_of(account)}?_changelist_filters=health%3Dhealthy" in page


def test_list_in_a_popup_hands_the_choice_to_the_form_behind_it(root: Client) -> None:
    account = make_account(username="ada")
    page = html(root.get(LIST, {"_popup": "1"}))
    assert f'data-popup-opener="{account.pk}"' in page
    assert "Connect an account" not in page
    assert "tiktok-handle" not in page  # it would be a link in a link


# The account's page


def test_account_page_shows_profile_scopes_and_life_of_the_tokens(
    root: Client, simulator: Simulator
) -> None:
    account = connect(
        simulator,
        "galaxy.gadgets",
        scopes=["user.info.basic", "user.info.username", "user.info.profile", "user.info.stats"],
        connected_at=soon(days=-2),
        access_token_expires_at=soon(hours=20),
        refresh_token_expires_at=soon(days=59),
        last_refreshed_at=soon(hours=-4),
        owner=make_user("ada"),
    )
    services.sync_profile(account)
    page = root.get(page_of(account))
    assert fact(page, "name") == "Galaxy Gadgets"
    assert fact(page, "handle") == "@galaxy.gadgets"
    assert fact(page, "bio") == "Phones, drones and things that blink. New review every day."
    assert "things that blink.<br>New review" in html(page)
    assert fact(page, "followers_count") == "152,300,411"
    assert fact(page, "following_count") == "12"
    assert fact(page, "likes_count") == "9,876,543,210"
    assert fact(page, "videos_count") == "8,204"
    assert field(page, "last_sync") == "now"
    permissions = fact(page, "permissions")
    assert permissions.startswith("missing See whether yours is a business account user.account")
    assert permissions.count("missing") == permissions.count("granted") == 4
    assert "granted See your username user.info.username" in permissions
    assert field(page, "connected").startswith("2 days ago ")
    assert fact(page, "life_1").startswith("ends in 20 hours ")
    assert fact(page, "next_refresh").startswith("Next refresh: in 14 hours ")
    assert fact(page, "life_2").startswith("ends in 59 days ")
    assert field(page, "last_refresh") == "4 hours ago"
    assert field(page, "open_id") == account.open_id
    assert "Last error" not in html(page)
    assert 'alt="True"' in html(page)
    assert "Reconnect for the missing permissions" in html(page)


def test_account_page_escapes_what_tiktok_says(root: Client, simulator: Simulator) -> None:
    account = connect(simulator, "tea_and_code")
    services.sync_profile(account)
    BusinessAccount.objects.update(last_error_at=soon(days=-1), last_error_message="<b>&")
    page = root.get(page_of(account))
    assert fact(page, "bio") == "<script>alert('tea')</script> & {{ biscuits }} every Thursday"
    assert fact(page, "name") == 'Tea & Code <b>"Club"</b>'
    assert field(page, "last_error_message") == "<b>&"
    for response in (page, root.get(LIST), root.get(page_of(account, "delete"))):
        assert "<b>" not in html(response)
        assert "<script>alert" not in html(response)


def test_account_page_shows_the_last_error_with_tiktoks_code_and_request_id(root: Client) -> None:
    account = make_account(
        last_error_at=soon(hours=-3),
        last_error_code=40105,
        last_error_message="Access token is incorrect or has been revoked.",
        last_error_request_id="202611221015304A7C19E2D0B85F6A3391",
        consecutive_failures=4,
    )
    page = root.get(page_of(account))
    assert field(page, "last_error_message") == "Access token is incorrect or has been revoked."
    assert field(page, "error_code") == "40105"
    assert field(page, "error_request_id") == "202611221015304A7C19E2D0B85F6A3391"
    assert field(page, "error_time").startswith("3 hours ago ")
    assert field(page, "consecutive_failures") == "4"


def test_account_page_shows_an_error_that_did_not_come_from_tiktok(root: Client) -> None:
    account = make_account(last_error_at=soon(hours=-3), last_error_message="No connection.")
    page = root.get(page_of(account))
    assert field(page, "error_code") == "-"
    assert field(page, "error_request_id") == "-"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"access_token_expires_at": None}, "with the next run of “manage.py refresh_tokens”"),
        (
            {"access_token_expires_at": timezone.now() + timedelta(hours=5)},
            "with the next run of “manage.py refresh_tokens”",
        ),
        (
            {"access_token_expires_at": datetime.min.replace(tzinfo=UTC)},
            "with the next run of “manage.py refresh_tokens”",
        ),
        (
            {
                "access_token_expires_at": timezone.now() + timedelta(hours=5),
                "next_attempt_at": timezone.now() - timedelta(seconds=1),
            },
            "with the next run of “manage.py refresh_tokens”",
        ),
        ({"status": "revoked"}, "none planned"),
        ({"status": "reauthorization_required"}, "none planned"),
        ({"app_id": "7000000000000000002"}, "none planned"),
    ],
)
def test_next_refresh_is_told_only_when_there_is_a_time_for_it(
    root: Client, values: dict[str, Any], expected: str
) -> None:
    account = make_account(**values)
    assert fact(root.get(page_of(account)), "next_refresh") == f"Next refresh: {expected}"


def test_next_refresh_of_an_account_that_backs_off_is_its_next_attempt(root: Client) -> None:
    account = make_account(next_attempt_at=timezone.now() + timedelta(minutes=40))
    shown = fact(root.get(page_of(account)), "next_refresh")
    assert shown.startswith("Next refresh: in 40 minutes ")
    assert shown.endswith(" at the earliest, because it keeps failing")


def test_account_page_says_what_is_missing_and_that_nothing_is(root: Client) -> None:
    account = make_account(scopes=[])
    with override_tiktok(SCOPES=["user.info.basic"]):
        page = root.get(page_of(account))
        assert fact(page, "permissions").startswith("missing See your display name")
        BusinessAccount.objects.update(scopes=["user.info.basic"])
        page = root.get(page_of(account))
        assert fact(page, "permissions").startswith("granted See your display name")
        assert "Reconnect for the missing permissions" not in html(page)


def test_account_page_of_an_account_that_was_never_synced(root: Client) -> None:
    page = root.get(page_of(make_account()))
    assert fact(page, "name") == "_000TestOpenId0001"
    assert (fact(page, "handle"), fact(page, "bio")) == ("", "")
    assert fact(page, "followers_count") == "-"
    assert field(page, "last_refresh") == "never"


def test_f36_only_the_owner_can_be_edited(root: Client) -> None:
    page = html(root.get(page_of(make_account())))
    form = page[page.index('id="businessaccount_form"') :]
    assert re.findall(r'<(?:input|textarea|select)[^>]* name="([^"]+)"', form) == [
        "csrfmiddlewaretoken",
        "owner",
        "_save",
        "_continue",
    ]


def test_account_page_to_look_at_only(db: None, client: Client) -> None:
    log_in_staff(client, may="view")
    account = make_account(owner=make_user("ada"))
    page = client.get(page_of(account))
    assert "ada" in words(html(page))
    assert 'name="owner"' not in html(page)
