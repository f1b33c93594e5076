"""The panels of an account's page in the admin."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission
from django.db import connection
from django.db.models import JSONField, Value
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import events, services
from django_tiktok_business.admin import account_page
from django_tiktok_business.exceptions import AppConfigurationError
from django_tiktok_business.models import BusinessAccount, ConnectionEvent, DailyMetrics
from tests.support.administrators import (
    buttons,
    fact,
    html,
    log_in_root,
    log_in_staff,
    page_of,
    words,
)
from tests.support.factories import connect, make_account
from tests.support.simulator import running_simulator

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(client: Client) -> Client:
    log_in_root(client)
    return client


def figures(account: BusinessAccount, days_ago: int, **values: Any) -> None:
    day = datetime.now(UTC).date() - timedelta(days=days_ago)
    DailyMetrics.objects.create(account=account, date=day, **values)


def titles(response: Any) -> list[str]:
    return [
        words(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", html(response))
    ]


# The card


def test_numbers_have_their_change_since_a_week_ago(root: Client) -> None:
    account = make_account(
        followers_count=1500, following_count=40, likes_count=20_000, videos_count=None
    )
    figures(account, 7, followers_count=1380, likes_count=None)
    figures(account, 9, followers_count=1, likes_count=20_500, videos_count=3)
    figures(account, 15, following_count=39)
    page = root.get(page_of(account))
    assert fact(page, "followers_count") == "1,500"
    assert fact(page, "followers_count_change") == "+120 within a week"
    assert fact(page, "likes_count_change") == "−500 within a week"
    assert fact(page, "following_count_change") == ""
    assert fact(page, "videos_count_change") == ""


def test_number_that_is_the_same_says_so(root: Client) -> None:
    account = make_account(followers_count=1500)
    figures(account, 8, followers_count=1500)
    assert fact(root.get(page_of(account)), "followers_count_change") == "±0 within a week"


def test_verified_account_says_so_in_words(root: Client) -> None:
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


# Figures by day and audience


def test_figures_are_drawn_and_stand_in_a_table(root: Client) -> None:
    account = make_account()
    figures(account, 4, video_views=1000, likes=7)
    figures(account, 2, video_views=3000)
    figures(account, 0, followers_count=12)  # today is not over
    figures(account, 61, shares=3)  # longer ago than is drawn
    page = root.get(page_of(account))
    assert titles(page) == ["Video views 3,000", "Likes 7"]
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", html(page))
    assert [words(row).split()[1:] for row in rows] == [
        ["-"] * 6,
        ["-", "3,000", "-", "-", "-", "-"],
        ["-"] * 6,
        ["-", "1,000", "-", "7", "-", "-"],
    ]


def test_account_without_figures_says_where_they_come_from(root: Client) -> None:
    page = root.get(page_of(make_account()))
    assert "None yet. TikTok gives them from the day" in words(html(page))
    assert titles(page) == []
    assert 'id="tiktok-audience"' not in html(page)


def test_audience_and_its_hours_are_shown(root: Client) -> None:
    countries = [[f"C{number}", 0.05] for number in range(12)]
    account = make_account(
        audience={"countries": countries, "genders": [["Female", 0.6], ["<i>", 0.4]], "ages": []}
    )
    figures(account, 3, audience_activity=[1] * 24)
    figures(account, 2, audience_activity=[0] * 24)
    figures(account, 1, video_views=1)
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
    figures(account, 1, audience_activity=counts)
    assert titles(root.get(page_of(account))) == []


@pytest.mark.parametrize("scopes", [None, 5, [["x"]], [{"a": 1}], "video.list"])
def test_scopes_of_another_shape_break_no_page(root: Client, scopes: Any) -> None:
    account = make_account()
    BusinessAccount.objects.update(scopes=Value(scopes, JSONField()))
    assert "missing" in fact(root.get(page_of(account)), "permissions")
    assert root.get("/tiktok/").status_code == 200
    assert root.get(f"/tiktok/{account.pk}/").status_code == 200


# Lives, permissions, events


def test_lives_of_the_tokens_are_bars_with_a_mark(root: Client) -> None:
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


def test_life_of_unknown_length_has_words_and_no_bar(root: Client) -> None:
    now = timezone.now()
    account = make_account(
        access_token_expires_at=None, last_refreshed_at=now, connected_at=now + timedelta(days=999)
    )
    page = root.get(page_of(account))
    assert fact(page, "life_1") == "ends unknown"
    assert fact(page, "life_2").startswith("ends in ")
    assert "tiktok-filled" not in html(page)


def test_account_without_tokens_has_no_life(root: Client) -> None:
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


def test_what_happened_is_told_with_the_newest_first(root: Client) -> None:
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


def test_panels_take_few_queries(root: Client) -> None:
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


# Deleting, which takes figures and events along


def test_delete_page_lists_no_figures_and_events(root: Client) -> None:
    with running_simulator() as simulator:
        account = connect(simulator, metrics_synced_at=None)
        services.sync_profile(account)
        events.record(account, events.Kind.CONNECTED, "default")
        page = html(root.get(page_of(account, "delete")))
        assert "Harbour Bakery" in page
        assert "Connection event: " not in page
        assert "Figures of a day: " not in page
        root.post(page_of(account, "delete"), {"post": "yes"})
    assert not BusinessAccount.objects.exists()
    assert not DailyMetrics.objects.exists()
    assert not ConnectionEvent.objects.exists()


def test_deleting_takes_no_permission_for_figures_and_events(client: Client) -> None:
    log_in_staff(client, "view delete")
    with running_simulator() as simulator:
        account = connect(simulator)
        events.record(account, events.Kind.CONNECTED, "default")
        figures(account, 1, likes=1)
        page = client.get(page_of(account, "delete"))
        assert "deleting the" not in words(html(page))
        client.post(page_of(account, "delete"), {"post": "yes"})
    assert not BusinessAccount.objects.exists()
    assert Permission.objects.filter(codename="delete_connectionevent").exists()


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
