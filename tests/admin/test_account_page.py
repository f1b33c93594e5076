"""The panels and fields of the page of one account."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.db.models import JSONField, Value
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import events, services
from django_tiktok_business.admin import account_page
from django_tiktok_business.exceptions import AppConfigurationError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.administrators import (
    LIST,
    add_metrics,
    buttons,
    fact,
    field,
    html,
    log_in_staff,
    page_of,
    soon,
    words,
)
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import override_tiktok, running_simulator

pytestmark = pytest.mark.django_db


def titles(response: Any) -> list[str]:
    return [
        words(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", html(response))
    ]


def test_numbers_have_their_change_since_a_week_ago(root: Client) -> None:
    account = make_account(
        followers_count=1500, following_count=40, likes_count=20_000, videos_count=None
    )
    add_metrics(account, 7, followers_count=1380, likes_count=None)
    add_metrics(account, 9, followers_count=1, likes_count=20_500, videos_count=3)
    add_metrics(account, 15, following_count=39)
    page = root.get(page_of(account))
    assert fact(page, "followers_count") == "1,500"
    assert fact(page, "followers_count_change") == "+120 within a week"
    assert fact(page, "likes_count_change") == "−500 within a week"
    assert fact(page, "following_count_change") == ""
    assert fact(page, "videos_count_change") == ""


def test_unchanged_number_is_shown_as_unchanged(root: Client) -> None:
    account = make_account(followers_count=1500)
    add_metrics(account, 8, followers_count=1500)
    assert fact(root.get(page_of(account)), "followers_count_change") == "±0 within a week"


def test_verified_account_is_labelled_in_words(root: Client) -> None:
    account = make_account(is_verified=True, bio="One\nTwo <b>")
    page = root.get(page_of(account))
    assert "tiktok-verified" in html(page)
    assert fact(page, "bio") == "One Two <b>"
    BusinessAccount.objects.update(is_verified=None)
    assert "tiktok-verified" not in html(root.get(page_of(account)))


def test_card_says_what_to_do(root: Client) -> None:
    account = make_account()
    assert fact(root.get(page_of(account)), "advice").endswith("You have nothing to do.")
    BusinessAccount.objects.update(status="reauthorization_required")
    assert fact(root.get(page_of(account)), "advice").endswith("Connect the account again.")


def test_metrics_are_drawn_and_listed_in_a_table(root: Client) -> None:
    account = make_account()
    add_metrics(account, 4, video_views=1000, likes=7)
    add_metrics(account, 2, video_views=3000)
    add_metrics(account, 0, followers_count=12)  # today is not over
    add_metrics(account, 61, shares=3)  # before the first day of the chart
    page = root.get(page_of(account))
    assert titles(page) == ["Video views 3,000", "Likes 7"]
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", html(page))
    assert [words(row).split()[1:] for row in rows] == [
        ["-"] * 6,
        ["-", "3,000", "-", "-", "-", "-"],
        ["-"] * 6,
        ["-", "1,000", "-", "7", "-", "-"],
    ]


def test_account_without_metrics_explains_where_they_come_from(root: Client) -> None:
    page = root.get(page_of(make_account()))
    assert "None yet. TikTok gives them from the day" in words(html(page))
    assert titles(page) == []
    assert 'id="tiktok-audience"' not in html(page)


def test_audience_and_its_hours_are_shown(root: Client) -> None:
    countries = [[f"C{number}", 0.05] for number in range(12)]
    account = make_account(
        audience={"countries": countries, "genders": [["Female", 0.6], ["<i>", 0.4]], "ages": []}
    )
    add_metrics(account, 3, audience_activity=[1] * 24)
    add_metrics(account, 2, audience_activity=[0] * 24)
    add_metrics(account, 1, video_views=1)
    page = root.get(page_of(account))
    parts = [words(item) for item in re.findall(r"<li><bdi>(.*?)</li>", html(page))]
    assert parts == [*(f"C{number} 5%" for number in range(8)), "Female 60%", "<i> 40%"]
    assert titles(page) == ["Video views 1", "Active followers by hour (UTC)"]
    assert "Most at 0:00 UTC, with 1." in html(page)


@pytest.mark.parametrize(
    "audience", [[], "x", {"ages": "x"}, {"ages": ["x", ["y"], [1, 0.5], ["z", "0.5"]]}]
)
def test_audience_of_another_shape_breaks_no_page(root: Client, audience: Any) -> None:
    page = root.get(page_of(make_account(audience=audience)))
    assert 'id="tiktok-audience"' not in html(page)


@pytest.mark.parametrize("counts", [5, {"a": 1}, ["x", "y"], [1, None], [1, -1], True, "abc", []])
def test_hours_of_another_shape_break_no_page(root: Client, counts: Any) -> None:
    account = make_account()
    add_metrics(account, 1, audience_activity=counts)
    assert titles(root.get(page_of(account))) == []


@pytest.mark.parametrize("scopes", [None, 5, [["x"]], [{"a": 1}], "video.list"])
def test_scopes_of_another_shape_break_no_page(root: Client, scopes: Any) -> None:
    account = make_account()
    BusinessAccount.objects.update(scopes=Value(scopes, JSONField()))
    assert "missing" in fact(root.get(page_of(account)), "permissions")
    assert root.get("/tiktok/").status_code == 200
    assert root.get(f"/tiktok/{account.pk}/").status_code == 200


def test_token_lifetimes_are_bars_with_a_mark(root: Client) -> None:
    now = timezone.now()
    account = make_account(
        last_refreshed_at=now - timedelta(hours=12),
        access_token_expires_at=now + timedelta(hours=12),
        connected_at=now - timedelta(days=274),
        refresh_token_expires_at=now + timedelta(days=91),
    )
    page = html(root.get(page_of(account)))
    lives = page[page.index('id="tiktok-lives"') : page.index('data-fact="next_refresh"')]
    widths = re.findall(r'tiktok-filled" width="([\d.]+)"', lives)
    assert [round(float(width)) for width in widths] == [50, 25]
    assert re.findall(r'tiktok-mark" x="([\d.]+)"', lives) == ["24.8", "8.1"]


def test_unknown_token_lifetime_has_a_text_and_no_bar(root: Client) -> None:
    now = timezone.now()
    account = make_account(
        access_token_expires_at=None, last_refreshed_at=now, connected_at=now + timedelta(days=999)
    )
    page = root.get(page_of(account))
    assert fact(page, "life_1") == "ends unknown"
    assert fact(page, "life_2").startswith("ends in ")
    assert "tiktok-filled" not in html(page)


def test_account_without_tokens_shows_no_token_lifetimes(root: Client) -> None:
    page = root.get(page_of(make_account(status="revoked", access_token="", refresh_token="")))
    assert fact(page, "life_1") == ""
    assert fact(page, "next_refresh") == "Next refresh: none planned"


def test_reconnecting_for_missing_permissions_takes_the_permission(client: Client) -> None:
    account = make_account(scopes=["user.info.basic"])
    log_in_staff(client, "view")
    page = client.get(page_of(account))
    assert "missing See your username" in fact(page, "permissions")
    assert "Reconnect for the missing permissions" not in html(page)


def test_permission_that_is_granted_has_its_meaning_beside_it(root: Client, settings: Any) -> None:
    settings.TIKTOK_BUSINESS = {**settings.TIKTOK_BUSINESS, "SCOPES": ["user.info.basic"]}
    account = make_account(scopes=["user.info.basic"])
    page = root.get(page_of(account))
    assert (
        fact(page, "permissions")
        == "granted See your display name and profile picture user.info.basic"
    )


def test_events_are_listed_newest_first(root: Client) -> None:
    account = make_account()
    error = AppConfigurationError("<Refused>", code=40113, request_id="20261122AB")
    events.record(account, events.Kind.CONNECTED, "default")
    for _ in range(3):
        events.record(account, events.Kind.REFRESHED, "default")
    events.record(account, events.Kind.FAILED, "default", error=error)
    account.scopes = ["video.list"]
    events.record(account, None, "default", scopes_before=["video.publish"])
    page = root.get(page_of(account))
    shown = fact(page, "events")
    assert re.sub(r"\d+/\d+/\d+ [\d:]+ [ap]\.m\. ", "", shown) == (
        "permissions changed +video.list −video.publish "
        "refresh failed <Refused> code 40113 request id 20261122AB "
        "refreshed 3 times connected"
    )
    assert f"connectionevent/?account__id__exact={account.pk}" in html(page)


def test_account_page_shows_no_more_events_than_fit(root: Client) -> None:
    account = make_account()
    for code in range(account_page.EVENTS_SHOWN + 5):
        error = AppConfigurationError("", code=code)
        events.record(account, events.Kind.FAILED, "default", error=error)
    assert fact(root.get(page_of(account)), "events").count("refresh failed") == 20
    assert (
        fact(root.get(page_of(make_account(open_id="new"))), "events") == "Nothing was noted yet."
    )


def test_events_take_the_permission_to_see_them(client: Client) -> None:
    account = make_account()
    log_in_staff(client, "view")
    page = client.get(page_of(account))
    assert fact(page, "events") == ""
    assert "All events" not in html(page)


def test_panels_need_few_queries(root: Client) -> None:
    with running_simulator() as simulator:
        account = connect(simulator, metrics_synced_at=None)
        services.sync_profile(account)
    with CaptureQueriesContext(connection) as queries:
        root.get(page_of(account))
    assert len(queries) <= 8


def test_page_in_a_popup_is_the_form_alone(root: Client) -> None:
    page = html(root.get(f"{page_of(make_account())}?_popup=1"))
    assert "tiktok-panel" not in page


def test_page_follows_the_language(root: Client) -> None:
    account = make_account(followers_count=1_234_567)
    with override_settings(LANGUAGE_CODE="de"):
        page = root.get(page_of(account), headers={"accept-language": "de"})
    assert fact(page, "followers_count") == "1.234.567"


def test_buttons_stand_above_the_panels(root: Client) -> None:
    page = root.get(page_of(make_account()))
    assert buttons(page)[:2] == ["Refresh now", "Sync profile"]
    assert html(page).index("object-tools") < html(page).index("tiktok-page")


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {},
        {"APP_ID": 5},
        {"SCOPES": 5},
        {"REFRESH_WITHIN_SECONDS": "x"},
        {"REAUTHORIZATION_WARNING_DAYS": -1},
        {"API_BASE_URL": 5},
        {"CONNECT_PERMISSION": 5},
        {"NOTIFY": 5},
    ],
)
def test_page_stands_while_a_setting_is_missing_or_wrong(root: Client, settings: Any) -> None:
    account = make_account()
    right = django_settings.TIKTOK_BUSINESS
    values = {**right, **settings} if settings else settings
    with override_settings(TIKTOK_BUSINESS=values):
        page = root.get(page_of(account))
        assert fact(page, "life_1").startswith("ends in")
        assert "Refresh now" in html(page)


def test_account_page_shows_profile_scopes_and_token_lifetimes(
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
        ({"rejected_at": timezone.now()}, "with the next run of “manage.py refresh_tokens”"),
        ({"status": "reauthorization_required"}, "none planned"),
        ({"app_id": "7000000000000000002"}, "none planned"),
    ],
)
def test_next_refresh_is_a_text_when_it_has_no_time(
    root: Client, values: dict[str, Any], expected: str
) -> None:
    account = make_account(**values)
    assert fact(root.get(page_of(account)), "next_refresh") == f"Next refresh: {expected}"


def test_next_refresh_of_an_account_that_backs_off_is_its_next_attempt(root: Client) -> None:
    account = make_account(next_attempt_at=timezone.now() + timedelta(minutes=40))
    shown = fact(root.get(page_of(account)), "next_refresh")
    assert shown.startswith("Next refresh: in 40 minutes ")
    assert shown.endswith(" at the earliest, because it keeps failing")


def test_account_page_lists_missing_permissions_or_none(root: Client) -> None:
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


def test_account_page_is_read_only_without_the_change_permission(db: None, client: Client) -> None:
    log_in_staff(client, may="view")
    account = make_account(owner=make_user("ada"))
    page = client.get(page_of(account))
    assert "ada" in words(html(page))
    assert 'name="owner"' not in html(page)
