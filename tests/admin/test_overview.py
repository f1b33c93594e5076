from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.core.cache import cache
from django.db import connection
from django.db.models import Count
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from django_tiktok_business.admin import BusinessAccountAdmin
from django_tiktok_business.admin.figures import KEPT_SECONDS, MANY_ACCOUNTS, Figures, _cache_key
from django_tiktok_business.admin.overview import Overview
from django_tiktok_business.models import BusinessAccount
from tests.support.administrators import (
    LIST,
    cells,
    html,
    log_in_root,
    log_in_staff,
    make_unreadable,
    stored_ciphertexts,
    words,
)
from tests.support.factories import make_account, make_user
from tests.support.simulator import override_tiktok

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
QUERIES = 8  # of the whole page, those for the session, the user and the permissions included
SECRETS = ("simulator-app-secret-not-real", "test-only-")

rows = BusinessAccount.objects


class SiteWithoutPages(ModuleType):
    """URLs of a project that has the admin and not our pages."""

    urlpatterns = [path("admin/", admin.site.urls)]


class OwnAccountsAdmin(BusinessAccountAdmin):
    """A project's: everybody sees their own accounts, with the number of the days that are kept."""

    def get_queryset(self, request: Any) -> Any:
        mine = super().get_queryset(request).filter(owner=request.user)
        return mine.annotate(days=Count("daily_metrics"))


class NothingAdmin(BusinessAccountAdmin):
    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).none()


def site_of(model_admin: type[BusinessAccountAdmin]) -> Any:
    site = admin.AdminSite()
    site.register(BusinessAccount, model_admin)
    urls = ModuleType("urls")
    urls.urlpatterns = [path("admin/", site.urls)]  # type: ignore[attr-defined]
    return override_settings(ROOT_URLCONF=urls)


@pytest.fixture
def root(db: None, client: Client) -> Client:
    log_in_root(client)
    return client


def make(number: int, **values: Any) -> BusinessAccount:
    return make_account(open_id=f"_000Number{number}", **values)


def overview(response: Any) -> str:
    """The header's HTML, "" without one."""
    shown = re.search(r'<section class="tiktok-overview".*?</section>', html(response), re.DOTALL)
    return shown[0] if shown else ""


def next_step(response: Any) -> tuple[str, str, str]:
    """How urgent it is, what it says, and where its link leads."""
    level, text = re.findall(
        r'class="tiktok-next tiktok-next-(\w+)">\s*<p>(.*?)</p>', overview(response), re.DOTALL
    )[0]
    link = re.search(r'<a href="(.*?)">', text)
    return level, words(re.sub("<a .*?</a>", "", text)), link[1] if link else ""


def tallies(response: Any) -> dict[str, str]:
    """What is told of each health, by where it leads."""
    found = re.findall(r'<a href="(\?[^"]*)"[^>]*><span class="tiktok-dot.*?</a>', html(response))
    links = re.findall(r'<a href="\?[^"]*"[^>]*><span class="tiktok-dot.*?</a>', html(response))
    return dict(zip(found, map(words, links), strict=True))


def facts(response: Any) -> dict[str, str]:
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", overview(response), re.DOTALL)
    return {words(name): words(value) for name, value in pairs}


def calls(response: Any) -> str:
    card = overview(response).partition("Calls today, at least")[2]
    return words(card.partition("</div>")[0].partition(">")[2])


def steps(response: Any) -> dict[str, str]:
    """The steps of the empty state, and whether they are done."""
    found = re.findall(r"<h4>(.*?) <span [^>]*>(.*?)</span></h4>", overview(response))
    return {words(title): words(state) for title, state in found}


def one_of_each() -> None:
    now = timezone.now()
    make(1)
    make(2)
    make(3, refresh_token_expires_at=now + 12 * DAY)
    make(4, consecutive_failures=2)
    make_unreadable(make(5))
    make(6, status="reauthorization_required")
    make(7, refresh_token_expires_at=now - DAY)
    make(8, status="revoked", access_token="", refresh_token="")


# Figures


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


def test_tokens_are_told_by_the_next_that_expires_and_the_last_that_was_renewed(
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


def test_what_is_not_known_is_told_as_such(root: Client) -> None:
    make(1, access_token_expires_at=None, refresh_token_expires_at=None)
    assert facts(root.get(LIST)) == {
        "Next to expire": "none",
        "Last refresh": "never",
        "Ends within 30 days": "0",
        "Next to end": "none",
    }


def test_consents_that_end_soon_are_counted_and_the_next_is_told(root: Client) -> None:
    now = timezone.now()
    for number, days in enumerate((-3, 3.1, 6, 200)):
        make(number, refresh_token_expires_at=now + days * DAY)
    page = root.get(LIST)
    assert facts(page)["Ends within 30 days"] == "2"
    assert facts(page)["Next to end"] == "in 3 days"
    assert '<dd><a href="?health=expires_soon">2</a></dd>' in overview(page)
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=1):
        assert facts(root.get(LIST))["Ends within 1 day"] == "0"


def test_tokens_that_nobody_has_renewed_are_counted_and_led_to(root: Client) -> None:
    make(1)
    make(2, access_token_expires_at=timezone.now() - 2 * HOUR)
    page = root.get(LIST)
    assert facts(page)["Overdue"] == "1"
    assert '<dd><a href="?refresh=overdue">1</a></dd>' in overview(page)
    assert len(cells(root.get(LIST, {"refresh": "overdue"}), "state")) == 1


@pytest.mark.parametrize(
    ("per_minute", "calls_today", "share"),
    [
        (600, 0, "0 0 % of the 864,000 that REQUESTS_PER_MINUTE allows in a day"),
        (600, 3, "3 less than 0.1 % of the 864,000 that REQUESTS_PER_MINUTE allows in a day"),
        (1, 3, "3 0.2 % of the 1,440 that REQUESTS_PER_MINUTE allows in a day"),
        (0, 3, "3 No ceiling: REQUESTS_PER_MINUTE is 0"),
    ],
)
def test_calls_of_today_are_told_at_least_and_against_the_ceiling(
    root: Client, per_minute: int, calls_today: int, share: str
) -> None:
    today = timezone.now()
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    before = midnight - timedelta(seconds=1)
    make(0, last_refreshed_at=before, profile_synced_at=before)
    if calls_today:
        make(1, last_refreshed_at=today, profile_synced_at=today)
        make(2, last_refreshed_at=midnight, profile_synced_at=before)
    with override_tiktok(REQUESTS_PER_MINUTE=per_minute):
        assert calls(root.get(LIST)) == share


def test_share_of_calls_is_a_bar_that_can_be_seen_and_ends_with_its_frame(root: Client) -> None:
    figures = (Figures(calls_today=count) for count in (0, 1, 14_400, 999_999))
    with override_tiktok(REQUESTS_PER_MINUTE=100):
        make(1, last_refreshed_at=timezone.now())
        assert '<rect class="tiktok-bar-calls" width="1.000"' in html(root.get(LIST))
        shares = [Overview(each) for each in figures]
        assert [each.calls_share for each in shares] == ["0.000", "1.000", "10.000", "100.000"]
        assert [each.calls_percent for each in shares][2:] == ["10\u00a0%", "694\u00a0%"]


def test_figures_are_those_of_the_accounts_that_the_admin_may_show(root: Client) -> None:
    me = root.get(LIST).wsgi_request.user
    make(1, owner=me)
    make(2, owner=make_user("eve"), status="reauthorization_required")
    with site_of(OwnAccountsAdmin):
        page = root.get(LIST)
        assert tallies(page)["?health=healthy"] == "1 healthy"
        assert tallies(page)["?health=reconnect_needed"] == "0 reconnect needed"
        assert len(cells(page, "state")) == 1
    with site_of(NothingAdmin):
        assert "No account is connected yet" in overview(root.get(LIST))


def test_list_counts_its_filtered_rows_and_tells_how_many_there_are(root: Client) -> None:
    one_of_each()
    page = html(root.get(LIST, {"q": "Number1"}))
    assert "1 result" in words(page)
    assert "8 total" in words(page)
    assert "8 TikTok Business accounts" in words(html(root.get(LIST)))
    assert 'name="action"' in page


# What is next


def test_next_step_is_the_worst_thing(root: Client) -> None:
    """Each thing is mended in its turn, and the next one comes up."""
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


# An empty list


def test_fresh_install_is_told_what_to_do_step_by_step(root: Client) -> None:
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


def test_fresh_install_without_our_urls_is_told_how_to_include_them(root: Client) -> None:
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


# Wrong settings

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


# What it costs, and what it does not show


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
    # Those of the list lack their tokens; to load one after the other would take its time.
    for number in range(3):
        make(number, status="revoked")
    chosen = {"action": "disconnect_selected", "_selected_action": [row.pk for row in rows.all()]}
    with CaptureQueriesContext(connection) as queries:
        assert root.post(LIST, chosen).status_code == 200
    assert not any("SUBSTR" in entry["sql"] for entry in queries)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "\u202eevil", "{{ settings }}"])
def test_overview_holds_no_word_of_an_account_holder(root: Client, text: str) -> None:
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


# Many accounts


def make_many_accounts() -> int:
    """So many that they are not counted for each page: the database doubles them."""
    make(1)
    quote = connection.ops.quote_name
    fields = [field for field in BusinessAccount._meta.concrete_fields if not field.primary_key]
    names = ", ".join(quote(field.column or "") for field in fields)
    other = {"sqlite": "open_id || %s"}.get(connection.vendor, "CONCAT(open_id, %s)")
    values = names.replace(quote("open_id"), other)
    table = quote(BusinessAccount._meta.db_table)
    with connection.cursor() as cursor:
        for doubling in range(14):
            suffix = [f"-{doubling}"]
            cursor.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM {table}", suffix)
    return rows.count()


def test_figures_of_many_accounts_are_kept_for_a_moment_and_say_so(root: Client) -> None:
    many = make_many_accounts()
    assert many >= MANY_ACCOUNTS
    page = root.get(LIST)
    assert tallies(page)["?health=healthy"] == f"{many:,} healthy"
    assert f"may be {KEPT_SECONDS} seconds old" in words(overview(page))
    rows.filter(open_id="_000Number1").update(consecutive_failures=1)
    with CaptureQueriesContext(connection) as queries:
        again = root.get(LIST)
    assert tallies(again) == tallies(page)
    assert not any("GROUP BY" in entry["sql"] for entry in queries)
    # The list itself is always as it is, and what other settings make of it is counted.
    assert len(cells(root.get(LIST, {"health": "retrying"}), "state")) == 1
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=1):
        assert tallies(root.get(LIST))["?health=retrying"] == "1 retrying"


@pytest.mark.parametrize(
    "kept",
    [
        {"odd": 1},
        {"counts": {}, "last_refresh": "yesterday"},
        {"counts": {}, "last_refresh": 5},
        {"counts": {}, "last_refresh": "2026-11-26T06:00:00"},
        {"counts": {}, "overdue": None},
        {"counts": 5},
        {"counts": {"healthy": "x"}},
    ],
)
def test_figures_that_somebody_else_kept_are_counted_again(
    root: Client, kept: dict[str, Any]
) -> None:
    one_of_each()
    figures = Figures.count(rows.all())
    cache.set(_cache_key(rows.all()), kept)
    assert Figures.cached(rows.all()).counts == figures.counts


def test_figures_can_be_kept_as_json(root: Client) -> None:
    one_of_each()
    rows.update(last_refreshed_at=timezone.now())
    figures = Figures.count(rows.all())
    assert figures.last_refresh is not None
    assert Figures.from_json(json.loads(json.dumps(figures.as_json()))) == figures


def test_figures_of_fewer_accounts_are_always_as_they_are(root: Client) -> None:
    make(1)
    assert "seconds old" not in words(overview(root.get(LIST)))
    rows.update(consecutive_failures=1)
    assert tallies(root.get(LIST))["?health=retrying"] == "1 retrying"
