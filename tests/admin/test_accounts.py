"""The list and the account page of `BusinessAccountAdmin`: owner, connect and the buttons."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse

from django_tiktok_business.admin import BusinessAccountAdmin
from django_tiktok_business.models import BusinessAccount, Health
from django_tiktok_business.simulator import Simulator
from tests.support.administrators import (
    BY_HAND,
    LIST,
    buttons,
    connect_many,
    fact,
    html,
    log_in_root,
    log_in_staff,
    make_unreadable,
    messages_in,
    page_of,
    press,
    select,
    stored_ciphertexts,
)
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import override_tiktok

REVOKE = "/tt_user/oauth2/revoke/"
PROFILE = "/business/get/"


# A project with an admin site of its own that does not include the package's URLs.
second_site = admin.AdminSite(name="second")
second_site.register(BusinessAccount, BusinessAccountAdmin)
urlpatterns = [path("second/", second_site.urls)]


def test_account_cannot_be_added_by_a_form(root: Client) -> None:
    assert root.get(f"{LIST}add/").status_code == 403
    assert root.post(f"{LIST}add/", {"open_id": "x"}).status_code == 403
    assert f"{LIST}add/" not in html(root.get("/admin/"))


@pytest.mark.parametrize(
    ("may", "expected"),
    [
        ("view", ["History"]),
        ("view change", ["Refresh now", "Sync profile", "History"]),
        ("view add", ["Reconnect", "History"]),
        ("view delete", ["Disconnect", "History"]),
    ],
)
def test_buttons_are_those_that_the_user_may_press(
    client: Client, account: BusinessAccount, may: str, expected: list[str]
) -> None:
    log_in_staff(client, may)
    assert buttons(client.get(page_of(account))) == expected


@pytest.mark.parametrize(
    ("button", "may"), [("refresh", "change"), ("sync", "change"), ("disconnect", "delete")]
)
def test_button_without_the_permission_is_refused(
    client: Client, account: BusinessAccount, simulator: Simulator, button: str, may: str
) -> None:
    others = {"view", "add", "change", "delete"} - {may}
    log_in_staff(client, " ".join(others))
    assert client.post(page_of(account, button)).status_code == 403
    assert client.get(page_of(account, button)).status_code in (403, 405)
    assert simulator.calls == []


@pytest.mark.parametrize("button", ["refresh", "sync", "disconnect"])
def test_button_without_a_login_leads_to_the_login_page(
    client: Client, account: BusinessAccount, simulator: Simulator, button: str
) -> None:
    response = client.post(page_of(account, button))
    assert response.headers["Location"].startswith("/admin/login/")
    assert simulator.calls == []


@pytest.mark.parametrize("button", ["refresh", "sync", "disconnect", "delete"])
def test_button_without_a_csrf_token_is_refused(
    db: None, account: BusinessAccount, simulator: Simulator, button: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    log_in_root(client)
    assert client.post(page_of(account, button), {"post": "yes"}).status_code == 403
    assert simulator.calls == []


@pytest.mark.parametrize("button", ["refresh", "sync"])
def test_button_is_a_post(
    root: Client, account: BusinessAccount, simulator: Simulator, button: str
) -> None:
    assert root.get(page_of(account, button)).status_code == 405
    assert simulator.calls == []


@pytest.mark.parametrize("button", ["refresh", "sync", "disconnect"])
def test_button_of_an_account_that_is_gone_is_not_found(
    root: Client, account: BusinessAccount, button: str
) -> None:
    url = page_of(account, button)
    account.delete()
    assert root.post(url).status_code == 404


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"status": "revoked"}, ["Reconnect", "History"]),
        ({"app_id": "7000000000000000002"}, ["Reconnect", "Disconnect", "History"]),
        (
            {"status": "reauthorization_required"},
            ["Refresh now", "Sync profile", "Reconnect", "Disconnect", "History"],
        ),
    ],
)
def test_buttons_are_those_that_make_sense(
    root: Client, values: dict[str, Any], expected: list[str]
) -> None:
    assert buttons(root.get(page_of(make_account(**values)))) == expected


@pytest.mark.parametrize(
    ("may", "expected"),
    [
        ("view", []),
        (
            "view change",
            ["refresh_selected", "sync_selected"],
        ),
        ("view delete", ["disconnect_selected", "delete_selected"]),
    ],
)
def test_bulk_actions_are_those_that_the_user_may_run(
    client: Client, account: BusinessAccount, may: str, expected: list[str]
) -> None:
    log_in_staff(client, may)
    assert re.findall(r'<option value="(\w+)">', html(client.get(LIST))) == expected


def test_f11_saving_writes_the_owner_and_nothing_else(root: Client) -> None:
    account = make_account()
    ada = make_user("ada")
    with CaptureQueriesContext(connection) as queries:
        response = root.post(page_of(account), {"owner": ada.pk}, follow=True)
    assert [level for level, _ in messages_in(response)] == ["success"]
    (update,) = [
        query["sql"]
        for query in queries
        if query["sql"].startswith("UPDATE") and BusinessAccount._meta.db_table in query["sql"]
    ]
    assert re.findall(r'["`](\w+)["`] = ', update.partition("WHERE")[0]) == [
        "owner_id",
        "updated_at",
    ]
    account.refresh_from_db()
    assert account.owner == ada
    assert LogEntry.objects.get().get_change_message() == "Changed Owner."


def test_saving_without_a_change_writes_nothing(root: Client) -> None:
    account = make_account()
    root.post(page_of(account), {"owner": ""})
    assert BusinessAccount.objects.get().updated_at == account.updated_at


def test_f22_owner_of_an_unreadable_account_can_be_changed(root: Client) -> None:
    account = make_account()
    make_unreadable(account)
    before = stored_ciphertexts()
    root.post(page_of(account), {"owner": make_user("ada").pk})
    account.refresh_from_db()
    assert account.owner is not None
    assert account.health is Health.UNDECRYPTABLE
    assert stored_ciphertexts() == before


def approve(client: Client, simulator: Simulator, page: str, as_account: str) -> Any:
    """Press the button that connects, approve at TikTok, and come back."""
    text = html(client.get(page))
    form = re.search(
        r'<form method="post" action="(/tiktok/connect/)">.*?name="next" value="([^"]+)"',
        text,
        re.DOTALL,
    )
    button = re.search(r'formaction="(/tiktok/connect/[^"]+)"', text)
    assert (form is None) != (button is None)
    response = client.post(form[1], {"next": form[2]}) if form else client.post(button[1])  # type: ignore[index]
    back = urlsplit(simulator.authorize(response.headers["Location"], account=as_account))
    return client.get(f"{back.path}?{back.query}", follow=True)


def test_connect_button_ends_on_the_page_of_the_new_account(
    root: Client, simulator: Simulator
) -> None:
    page = approve(root, simulator, LIST, "galaxy.gadgets")
    account = BusinessAccount.objects.get()
    assert page.redirect_chain == [(page_of(account), 302)]
    assert fact(page, "followers_count") == "152,300,411"
    assert '<img src="https://p16-sign-va.tiktokcdn.com/' in html(page)
    assert messages_in(page)[0] == ("success", "Galaxy Gadgets is connected.")


def test_reconnect_button_ends_on_the_same_page_with_new_tokens(
    root: Client, simulator: Simulator, account: BusinessAccount
) -> None:
    BusinessAccount.objects.update(status="reauthorization_required")
    page = approve(root, simulator, page_of(account), "harbour_bakery")
    assert page.redirect_chain == [(page_of(account), 302)]
    assert fact(page, "state") == "healthy"


def test_connect_button_needs_the_permission_that_the_settings_name(
    client: Client, account: BusinessAccount
) -> None:
    log_in_staff(client, may="view")
    assert buttons(client.get(LIST)) == []
    with override_tiktok(CONNECT_PERMISSION="tiktok_business.view_businessaccount"):
        assert buttons(client.get(LIST)) == ["Connect an account"]
    with override_tiktok(CONNECT_PERMISSION=None):
        assert buttons(client.get(LIST)) == ["Connect an account"]


@override_settings(ROOT_URLCONF=__name__)
def test_without_the_urls_of_the_package_a_hint_stands_for_the_button(
    root: Client, account: BusinessAccount
) -> None:
    include = 'include("django_tiktok_business.urls")'
    hint = f"To connect accounts here, add {include} to the URLs of the project."
    listed = reverse("second:tiktok_business_businessaccount_changelist")
    shown = reverse("second:tiktok_business_businessaccount_change", args=[account.pk])
    assert buttons(root.get(listed)) == [hint]
    assert hint in buttons(root.get(shown))


def test_refresh_button_renews_the_tokens(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    old = account.access_token
    page = press(root, account, "refresh")
    assert messages_in(page) == [("success", "The tokens are refreshed.")]
    account.refresh_from_db()
    assert simulator.live_tokens(account.open_id) == (account.access_token, account.refresh_token)
    assert account.access_token != old


def test_refresh_button_shows_tiktoks_code_and_request_id(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    simulator.revoke_grant(account.open_id)
    page = press(root, account, "refresh")
    ((level, text),) = messages_in(page)
    account.refresh_from_db()
    assert level == "error"
    assert text == (
        f"The tokens are not refreshed. {account.last_error_message} (code "
        f"{account.last_error_code}, request id {account.last_error_request_id}) "
        "The account has to be connected again."
    )
    assert account.last_error_code == 40107
    assert len(account.last_error_request_id) > 20
    assert fact(page, "state") == "reconnect needed"


def test_sync_button_brings_the_profile_up_to_date(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    simulator.set_profile("harbour_bakery", followers_count=2_000)
    page = press(root, account, "sync")
    assert messages_in(page) == [("success", "The profile is up to date.")]
    assert fact(page, "followers_count") == "2,000"


def test_sync_button_shows_tiktoks_code_and_request_id(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    simulator.fail_next(code=50000, path=PROFILE, times=None)
    with override_tiktok(MAX_ATTEMPTS=1):
        page = press(root, account, "sync")
    ((level, text),) = messages_in(page)
    assert level == "error"
    assert re.fullmatch(
        r"The profile is not synced\. Simulated failure 50000\. \(code 50000, request id \w+\) "
        r"Nothing is lost: try again later\.",
        text,
    )
    assert fact(page, "state") == "healthy"


@pytest.mark.parametrize("button", ["refresh", "sync", "disconnect"])
def test_button_names_a_wrong_setting(root: Client, account: BusinessAccount, button: str) -> None:
    with override_tiktok(APP_SECRET=None):
        page = press(root, account, button)
    ((level, text),) = messages_in(page)
    assert level == "error"
    assert "TIKTOK_BUSINESS['APP_SECRET'] must be" in text
    assert "The configuration of the app has to be corrected." in text
    account.refresh_from_db()
    assert account.access_token.startswith("act.")


def test_button_leads_back_with_the_filter_of_the_list(
    root: Client, account: BusinessAccount
) -> None:
    query = {"_changelist_filters": "health=healthy"}
    page = html(root.get(page_of(account), query))
    url = f"{page_of(account, 'sync')}?_changelist_filters=health%3Dhealthy"
    assert f'action="{url}"' in page
    response = root.post(url)
    assert (
        response.headers["Location"] == f"{page_of(account)}?_changelist_filters=health%3Dhealthy"
    )


def test_disconnect_button_asks_first(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    page = html(root.get(page_of(account, "disconnect")))
    assert str(account) in page
    assert f'<a class="button cancel-link" href="{page_of(account)}">' in page
    assert simulator.calls == []


def test_disconnect_button_ends_the_grant_and_leaves_a_line_in_the_history(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    page = press(root, account, "disconnect")
    assert messages_in(page) == [
        ("success", f"{account} is disconnected, and TikTok has confirmed it.")
    ]
    assert fact(page, "state") == "revoked"
    assert simulator.live_tokens(account.open_id) is None
    assert stored_ciphertexts() == []
    history = html(root.get(page_of(account, "history")))
    assert "Disconnected." in history


def test_f50_disconnect_button_clears_the_tokens_also_when_tiktok_is_down(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    simulator.fail_next("connection_refused", path=REVOKE, times=None)
    with override_tiktok(MAX_ATTEMPTS=1):
        page = press(root, account, "disconnect")
    ((level, text),) = messages_in(page)
    assert level == "warning"
    assert text.startswith(f"{account} is disconnected here, but TikTok did not confirm it: ")
    assert text.endswith(BY_HAND)
    assert stored_ciphertexts() == []


def test_disconnect_button_pressed_twice_asks_tiktok_once(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    press(root, account, "disconnect")
    page = press(root, account, "disconnect")
    assert messages_in(page) == [("info", "1 account was disconnected already.")]
    assert simulator.count(REVOKE) == 1
    assert LogEntry.objects.count() == 1


def test_disconnect_button_leaves_an_account_that_is_connected_again_meanwhile(
    root: Client, reconnected_meanwhile: Simulator
) -> None:
    account = connect(reconnected_meanwhile)
    page = press(root, account, "disconnect")
    ((level, text),) = messages_in(page)
    assert level == "error"
    assert text == (
        f"{account} is still connected. The account has just been connected again. "
        "Nothing is lost: try again later."
    )
    assert fact(page, "state") == "healthy"


def test_f36_no_page_message_session_or_line_of_history_holds_a_token(
    root: Client, simulator: Simulator
) -> None:
    accounts = connect_many(simulator, 3)
    secrets: set[str] = set()

    def note() -> None:
        secrets.update(stored_ciphertexts())
        for account in BusinessAccount.objects.all():
            secrets.update({account.access_token, account.refresh_token} - {""})
            secrets.update(simulator.live_tokens(account.open_id) or ())

    note()
    lists: tuple[dict[str, str], ...] = (
        {},
        {"q": "shop"},
        {"_popup": "1"},
        {"_facets": "True", "health": "healthy"},
    )
    pages = [root.get(LIST, query) for query in lists]
    for account in accounts[:2]:
        for button in ("refresh", "sync"):
            pages.append(press(root, account, button))
            note()
        views = ("change", "history", "delete", "disconnect")
        pages += [root.get(page_of(account, view)) for view in views]
        owner = make_user(f"owner-of-{account.pk}")
        pages.append(root.post(page_of(account), {"owner": owner.pk}, follow=True))
    simulator.revoke_grant(accounts[1].open_id)
    for action in ("refresh_selected", "sync_selected", "disconnect_selected", "delete_selected"):
        pages.append(select(root, action, accounts, index=0))
        note()
    pages.append(press(root, accounts[1], "refresh"))
    pages.append(press(root, accounts[0], "disconnect"))
    pages.append(press(root, accounts[0], "delete", post="yes"))
    pages.append(select(root, "delete_selected", accounts, post="yes"))
    pages.append(root.get("/admin/"))

    sessions = [str(session.get_decoded()) for session in Session.objects.all()]
    history = [f"{entry.change_message} {entry.object_repr}" for entry in LogEntry.objects.all()]
    assert len(secrets) >= 10
    assert len(history) >= 4
    for text in (*map(html, pages), *(str(page.headers) for page in pages), *sessions, *history):
        assert [secret for secret in secrets if secret in text] == []
        assert not re.search(r"\b(act|rft)\.|ttb1:", text)
