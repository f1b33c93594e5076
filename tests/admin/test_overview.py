"""The overview above the account list."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from django_tiktok_business.admin.figures import Figures
from django_tiktok_business.admin.overview import Overview
from django_tiktok_business.models import BusinessAccount
from tests.support.administrators import (
    LIST,
    cells,
    html,
    log_in_staff,
    make_unreadable,
    stored_ciphertexts,
    words,
)
from tests.support.factories import make_user
from tests.support.overviews import make, one_of_each, overview, rows, tallies
from tests.support.simulator import override_tiktok

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


QUERIES = 8  # for the whole page, including session, user and permissions
SECRETS = ("simulator-app-secret-not-real", "test-only-")


class SiteWithoutPages(ModuleType):
    """The URLs of a project with the admin, but without our pages."""

    urlpatterns = [path("admin/", admin.site.urls)]


def next_step(response: Any) -> tuple[str, str, str]:
    """Level, text and link of the next step."""
    level, text = re.findall(
        r'class="tiktok-next tiktok-next-(\w+)">\s*<p>(.*?)</p>', overview(response), re.DOTALL
    )[0]
    link = re.search(r'<a href="(.*?)">', text)
    return level, words(re.sub("<a .*?</a>", "", text)), link[1] if link else ""


def facts(response: Any) -> dict[str, str]:
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", overview(response), re.DOTALL)
    return {words(name): words(value) for name, value in pairs}


def steps(response: Any) -> dict[str, str]:
    """The steps of the empty state, and whether they are done."""
    found = re.findall(r"<h4>(.*?) <span [^>]*>(.*?)</span></h4>", overview(response))
    return {words(title): words(state) for title, state in found}


def test_every_health_has_its_count_which_leads_to_those_accounts(root: Client) -> None:
    one_of_each()
    page = root.get(LIST, {"q": "number", "o": "1"})
    assert tallies(page) == {
        "?health=healthy": "2 healthy",
        "?health=expires_soon": "1 expires soon",
        "?health=retrying": "1 retrying",
        "?health=undecryptable": "1 cannot decrypt",
        "?health=reconnect_needed": "2 reconnect needed",
        "?health=revoked": "1 revoked",
    }
    assert '<p class="tiktok-number">8</p>' in overview(page)
    for link, text in tallies(page).items():
        listed = root.get(LIST + link)
        assert len(cells(listed, "state")) == int(text.split()[0])
        assert tallies(listed) == tallies(page)
        assert f'<a href="{link}" aria-current="true">' in overview(listed)
    assert overview(page).count("aria-current") == 0


def test_bar_is_as_long_as_the_counts_are_large(root: Client) -> None:
    for number in range(3):
        make(number)
    make(9, status="revoked")
    bar = re.findall(
        r'<rect class="tiktok-bar-(\w+)" x="(.*?)" width="(.*?)"', html(root.get(LIST))
    )
    assert bar == [("healthy", "0.000", "75.000"), ("revoked", "75.000", "25.000")]


def test_overview_shows_next_expiry_and_last_refresh(
    root: Client,
) -> None:
    now = timezone.now()
    make(1, access_token_expires_at=now + 5.1 * HOUR, last_refreshed_at=now - 19 * HOUR)
    make(2, access_token_expires_at=now - HOUR / 2, last_refreshed_at=now - 4.9 * HOUR)
    make(3, access_token_expires_at=now + HOUR, app_id="7000000000000000002")
    make(4, access_token_expires_at=now + HOUR, status="reauthorization_required")
    make(5, access_token_expires_at=None, status="revoked")
    page = facts(root.get(LIST))
    assert (page["Next to expire"], page["Last refresh"]) == ("in 5 hours", "5 hours ago")
    assert "Overdue" not in page


def test_unknown_times_are_labelled(root: Client) -> None:
    make(1, access_token_expires_at=None, refresh_token_expires_at=None)
    assert facts(root.get(LIST)) == {
        "Next to expire": "none",
        "Last refresh": "never",
        "Ends within 30 days": "0",
        "Next to end": "none",
    }


def test_consents_ending_soon_are_counted_and_the_next_is_shown(root: Client) -> None:
    now = timezone.now()
    for number, days in enumerate((-3, 3.1, 6, 200)):
        make(number, refresh_token_expires_at=now + days * DAY)
    page = root.get(LIST)
    assert facts(page)["Ends within 30 days"] == "2"
    assert facts(page)["Next to end"] == "in 3 days"
    assert '<dd><a href="?health=expires_soon">2</a></dd>' in overview(page)
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=1):
        assert facts(root.get(LIST))["Ends within 1 day"] == "0"


def test_overdue_tokens_are_counted_and_linked(root: Client) -> None:
    make(1)
    make(2, access_token_expires_at=timezone.now() - 2 * HOUR)
    page = root.get(LIST)
    assert facts(page)["Overdue"] == "1"
    assert '<dd><a href="?refresh=overdue">1</a></dd>' in overview(page)
    assert len(cells(root.get(LIST, {"refresh": "overdue"}), "state")) == 1


def test_bar_of_calls_is_visible_and_stays_within_its_frame(root: Client) -> None:
    figures = (Figures(calls_today=count) for count in (0, 1, 14_400, 999_999))
    with override_tiktok(REQUESTS_PER_MINUTE=100):
        make(1, last_refreshed_at=timezone.now())
        assert '<rect class="tiktok-bar-calls" width="1.000"' in html(root.get(LIST))
        shares = [Overview(each) for each in figures]
        assert [each.calls_share for each in shares] == ["0.000", "1.000", "10.000", "100.000"]
        assert [each.calls_percent for each in shares][2:] == ["10\u00a0%", "694\u00a0%"]


def test_filtered_list_shows_its_count_and_the_total(root: Client) -> None:
    one_of_each()
    page = html(root.get(LIST, {"q": "Number1"}))
    assert "1 result" in words(page)
    assert "8 total" in words(page)
    assert "8 TikTok Business accounts" in words(html(root.get(LIST)))
    assert 'name="action"' in page


def test_next_step_is_the_most_urgent_one(root: Client) -> None:
    """Fix one thing after the other; the next one appears each time."""
    now = timezone.now()
    one_of_each()
    rows.filter(open_id="_000Number2").update(access_token_expires_at=now - 2 * HOUR)
    with override_tiktok(APP_ID=None):
        assert next_step(root.get(LIST)) == (
            "error",
            "Next The settings of the app have to be corrected first.",
            "",
        )
    expected: list[tuple[dict[str, Any], str, str, str]] = [
        (
            {"open_id": "_000Number5"},
            "error",
            (
                "Next The tokens of 1 account cannot be decrypted: put the missing key back into "
                "ENCRYPTION_KEYS, or have it connected again."
            ),
            "?health=undecryptable",
        ),
        (
            {"open_id__in": ["_000Number6", "_000Number7"]},
            "error",
            "Next 2 accounts need reconnecting.",
            "?health=reconnect_needed",
        ),
        (
            {"open_id": "_000Number2"},
            "error",
            (
                "Next 1 access token ended over an hour ago: “manage.py refresh_tokens” has not "
                "run. Add it to cron."
            ),
            "?refresh=overdue",
        ),
        (
            {"open_id": "_000Number3"},
            "warning",
            "Next The yearly consent of 1 account ends soon: have it reconnected before.",
            "?health=expires_soon",
        ),
        (
            {"open_id": "_000Number4"},
            "warning",
            "Next 1 account could not be refreshed and is tried again by itself.",
            "?health=retrying",
        ),
    ]
    for lookup, *step in expected:
        page = root.get(LIST)
        assert next_step(page) == tuple(step)
        chosen = rows.filter(**lookup)
        assert len(cells(root.get(LIST + step[2]), "state")) == chosen.count()
        chosen.delete()
    assert next_step(root.get(LIST)) == ("success", "All is well Nothing to do.", "")


def test_a_failing_refresh_that_waits_for_its_time_is_no_sign_that_cron_has_stopped(
    root: Client,
) -> None:
    now = timezone.now()
    late = {"access_token_expires_at": now - 2 * HOUR, "consecutive_failures": 5}
    make(1, **late, next_attempt_at=now + HOUR)
    assert next_step(root.get(LIST))[2] == "?health=retrying"
    rows.update(next_attempt_at=now - 2 * HOUR)
    assert next_step(root.get(LIST))[2] == "?refresh=overdue"


def test_fresh_install_shows_the_steps_to_take(root: Client) -> None:
    page = root.get(LIST)
    assert steps(page) == {
        "Settings": "done",
        "URLs": "done",
        "Redirect URL": "to do",
        "First account": "to do",
        "Refresh on a schedule": "to do",
    }
    shown = overview(page)
    assert "<code>https://testserver.example/tiktok/callback/</code>" in shown
    assert "manage.py refresh_tokens" in shown
    assert '<form method="post" action="/tiktok/connect/">' in shown
    assert "tiktok-card" not in shown
    assert "finding" not in shown
    with override_tiktok(REDIRECT_URI=None):
        assert "<code>http://testserver/tiktok/callback/</code>" in overview(root.get(LIST))


def test_fresh_install_without_our_urls_explains_how_to_include_them(root: Client) -> None:
    with override_settings(ROOT_URLCONF=SiteWithoutPages), override_tiktok(REDIRECT_URI=None):
        page = root.get(LIST)
        assert steps(page)["URLs"] == "to do"
        assert 'path("tiktok/", include("django_tiktok_business.urls")),' in overview(page)
        assert "as soon as the URLs are in place" in words(overview(page))
        assert "shown here when the steps before are done" in words(overview(page))
        assert "<form" not in overview(page)
        make(1)
        assert next_step(root.get(LIST))[0] == "success"


@pytest.mark.parametrize(
    ("may", "permission", "is_told", "may_connect"),
    [
        ("view change", None, True, True),
        ("view change", "tiktok_business.add_businessaccount", True, False),
        ("view", None, False, True),
        ("view add", "tiktok_business.add_businessaccount", False, True),
        ("view", "tiktok_business.add_businessaccount", False, False),
    ],
)
def test_fresh_install_shows_who_may_do_what(
    db: None,
    client: Client,
    may: str,
    permission: str | None,
    is_told: bool,
    may_connect: bool,
) -> None:
    log_in_staff(client, may=may)
    with override_tiktok(CONNECT_PERMISSION=permission, ENCRYPTION_KEYS=["short"]):
        shown = overview(client.get(LIST))
    assert ("<h4>" in shown) is is_told
    assert ("W005" in shown) is is_told
    assert ("Connect the first account" in shown) is may_connect
    assert ("You are not allowed to connect accounts" in shown) is not may_connect


WRONG: list[dict[str, Any]] = [
    {"APP_ID": None},
    {"APP_SECRET": 7},
    {"ENCRYPTION_KEYS": "one-key-that-is-no-list"},
    {"REDIRECT_URI": 7},
    {"AUTHORIZATION_URL": "http://[::1"},
    {"API_BASE_URL": "nowhere"},
    {"CONNECT_PERMISSION": 7},
    {"REAUTHORIZATION_WARNING_DAYS": "soon"},
    {"REQUESTS_PER_MINUTE": -1},
    {"CACHE_ALIAS": "elsewhere"},
    {"CACHE_ALIAS": 7},
    {"SESSION_FACTORY_PATH": "nowhere.at_all"},
    {"APP_IDD": "a typo"},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
@pytest.mark.parametrize("accounts", [0, 1])
def test_wrong_setting_is_a_finding_and_no_server_error(
    root: Client, wrong: dict[str, Any], accounts: int
) -> None:
    for number in range(accounts):
        make(number, profile_image_url="https://p16.example/a.jpeg")
    with override_tiktok(**wrong):
        for query in ("", "?health=healthy", "?refresh_token_ends=30"):
            page = root.get(LIST + query)
            assert "Error:" in words(overview(page))
            (name,) = wrong
            assert name in words(overview(page))
            for secret in SECRETS:
                assert secret not in unescape(html(page))
        if accounts:
            assert next_step(page)[1].endswith("have to be corrected first.")
        else:
            assert steps(page)["Settings"] == "to do"


def test_settings_that_are_missing_altogether_are_a_finding(root: Client) -> None:
    make(1)
    with override_settings(TIKTOK_BUSINESS=None):
        assert "E001" in overview(root.get(LIST))
        # Which accounts are overdue depends on the app.
        assert root.get(LIST, {"refresh": "overdue"}).headers["Location"] == f"{LIST}?e=1"


def test_warning_about_the_settings_waits_folded_up(root: Client) -> None:
    make(1)
    with override_tiktok(ENCRYPTION_KEYS=[*settings.TIKTOK_BUSINESS["ENCRYPTION_KEYS"], "short"]):
        shown = overview(root.get(LIST))
        assert '<details class="tiktok-findings">' in shown
        assert "Warning: TIKTOK_BUSINESS['ENCRYPTION_KEYS'][1] is shorter" in words(shown)
        with override_settings(SILENCED_SYSTEM_CHECKS=["tiktok_business.W005"]):
            assert "details" not in overview(root.get(LIST))


def test_findings_are_for_those_who_may_change_accounts(db: None, client: Client) -> None:
    log_in_staff(client, may="view")
    make(1)
    with override_tiktok(APP_ID=None):
        shown = overview(client.get(LIST))
    assert "have to be corrected first" in shown
    assert "APP_ID" not in shown


def test_whole_page_takes_a_few_queries_whatever_is_on_it(db: None, client: Client) -> None:
    log_in_staff(client, may="view change delete add")
    one_of_each()
    rows.update(owner=make_user("ada"))
    for query in ("", "?health=healthy", "?refresh=overdue", "?q=number&o=1", "?p=1"):
        with CaptureQueriesContext(connection) as queries:
            assert client.get(LIST + query).status_code == 200
        assert len(queries) <= QUERIES, [entry["sql"] for entry in queries]


def test_no_token_is_loaded_for_the_list(root: Client) -> None:
    one_of_each()
    quote = connection.ops.quote_name
    for query in ("", "?health=undecryptable", "?refresh=overdue", "?q=number", "?_popup=1"):
        with CaptureQueriesContext(connection) as queries:
            page = html(root.get(LIST + query))
        statements = [entry["sql"] for entry in queries]
        assert any("SUBSTR" in sql for sql in statements)
        for column in ("access_token", "refresh_token"):
            bare = f"{quote(BusinessAccount._meta.db_table)}.{quote(column)}"
            for sql in statements:
                assert sql.count(bare) == len(re.findall(rf"\({re.escape(bare)}, 1, 14\)", sql))
        for text in (*stored_ciphertexts(), "act.", "rft.", "ttb1"):
            assert text not in page


def test_action_acts_on_whole_accounts(root: Client) -> None:
    # The list loads accounts without tokens; the action must not load them one by one.
    for number in range(3):
        make(number, status="revoked")
    chosen = {"action": "disconnect_selected", "_selected_action": [row.pk for row in rows.all()]}
    with CaptureQueriesContext(connection) as queries:
        assert root.post(LIST, chosen).status_code == 200
    assert not any("SUBSTR" in entry["sql"] for entry in queries)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\u202eevil", "{{ settings }}"])
def test_overview_contains_no_text_of_account_holders(root: Client, text: str) -> None:
    make(1, display_name=text, username=text, bio=text, last_error_message=text, scopes=[text])
    make_unreadable(make(2, display_name=text))
    assert text not in unescape(overview(root.get(LIST)))


def test_overview_is_not_in_a_popup(root: Client) -> None:
    make(1)
    with CaptureQueriesContext(connection) as queries:
        page = root.get(LIST, {"_popup": "1"})
    assert overview(page) == ""
    assert cells(page, "state") == ["healthy"]
    assert not any("GROUP BY" in entry["sql"] for entry in queries)


@pytest.mark.parametrize("accounts", [0, 1])
def test_overview_has_no_inline_style_or_script(root: Client, accounts: int) -> None:
    for number in range(accounts):
        make(number)
    shown = overview(root.get(LIST))
    assert shown
    assert not re.search(r"<style|<script| style=| on\w+=", shown)
