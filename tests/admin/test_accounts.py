from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.http import HttpRequest
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.admin import BusinessAccountAdmin
from django_tiktok_business.admin.actions import ACCOUNTS_PER_ACTION
from django_tiktok_business.models import BusinessAccount, Health
from django_tiktok_business.services import bulk
from django_tiktok_business.simulator import Call, Simulator
from tests.support.administrators import (
    LIST,
    buttons,
    fact,
    html,
    log_in_root,
    log_in_staff,
    make_unreadable,
    messages_on,
    page_of,
    press,
    select,
    stored_ciphertexts,
)
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
REVOKE = "/tt_user/oauth2/revoke/"
PROFILE = "/business/get/"
BY_HAND = (
    "To be sure, its holder can remove the access in the TikTok app, under “Settings and privacy”."
)

# A project whose admin is a second site, keeps accounts that it needs, and has no other pages.
second_site = admin.AdminSite(name="second")


class KeptAccountAdmin(BusinessAccountAdmin):
    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        return [], {}, set(), ["an invoice"]


second_site.register(BusinessAccount, KeptAccountAdmin)
urlpatterns = [path("second/", second_site.urls)]
only_the_second_site = override_settings(ROOT_URLCONF=__name__)


@pytest.fixture
def root(db: None, client: Client) -> Client:
    log_in_root(client)
    return client


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator:
        yield simulator


@pytest.fixture
def account(db: None, simulator: Simulator) -> BusinessAccount:
    return connect(simulator, display_name="Harbour Bakery")


def connect_many(simulator: Simulator, number: int) -> list[BusinessAccount]:
    return [connect(simulator, f"shop_{index}") for index in range(number)]


def names(*accounts: BusinessAccount) -> list[str]:
    return [str(account) for account in accounts]


# Who may do what


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


# The owner


def test_f11_saving_writes_the_owner_and_nothing_else(root: Client) -> None:
    account = make_account()
    ada = make_user("ada")
    with CaptureQueriesContext(connection) as queries:
        response = root.post(page_of(account), {"owner": ada.pk}, follow=True)
    assert [level for level, _ in messages_on(response)] == ["success"]
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


# Connecting


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
    assert messages_on(page)[0] == ("success", "Galaxy Gadgets is connected.")


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


@only_the_second_site
def test_without_the_urls_of_the_package_a_hint_stands_for_the_button(
    root: Client, account: BusinessAccount
) -> None:
    include = 'include("django_tiktok_business.urls")'
    hint = f"To connect accounts here, add {include} to the URLs of the project."
    listed = reverse("second:tiktok_business_businessaccount_changelist")
    shown = reverse("second:tiktok_business_businessaccount_change", args=[account.pk])
    assert buttons(root.get(listed)) == [hint]
    assert hint in buttons(root.get(shown))


# Refreshing and syncing one account


def test_refresh_button_renews_the_tokens(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    old = account.access_token
    page = press(root, account, "refresh")
    assert messages_on(page) == [("success", "The tokens are refreshed.")]
    account.refresh_from_db()
    assert simulator.live_tokens(account.open_id) == (account.access_token, account.refresh_token)
    assert account.access_token != old


def test_refresh_button_tells_tiktoks_code_and_request_id(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    simulator.revoke_grant(account.open_id)
    page = press(root, account, "refresh")
    ((level, text),) = messages_on(page)
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
    assert messages_on(page) == [("success", "The profile is up to date.")]
    assert fact(page, "followers_count") == "2,000"


def test_sync_button_tells_tiktoks_code_and_request_id(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    simulator.fail_next(code=50000, path=PROFILE, times=None)
    with override_tiktok(MAX_ATTEMPTS=1):
        page = press(root, account, "sync")
    ((level, text),) = messages_on(page)
    assert level == "error"
    assert re.fullmatch(
        r"The profile is not synced\. Simulated failure 50000\. \(code 50000, request id \w+\) "
        r"Nothing is lost: try again later\.",
        text,
    )
    assert fact(page, "state") == "healthy"


@pytest.mark.parametrize("button", ["refresh", "sync", "disconnect"])
def test_button_tells_a_wrong_setting_by_name(
    root: Client, account: BusinessAccount, button: str
) -> None:
    with override_tiktok(APP_SECRET=None):
        page = press(root, account, button)
    ((level, text),) = messages_on(page)
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


# Disconnecting


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
    assert messages_on(page) == [
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
    ((level, text),) = messages_on(page)
    assert level == "warning"
    assert text.startswith(f"{account} is disconnected here, but TikTok did not confirm it: ")
    assert text.endswith(BY_HAND)
    assert stored_ciphertexts() == []


def test_disconnect_button_pressed_twice_asks_tiktok_once(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    press(root, account, "disconnect")
    page = press(root, account, "disconnect")
    assert messages_on(page) == [("info", "1 account was disconnected already.")]
    assert simulator.count(REVOKE) == 1
    assert LogEntry.objects.count() == 1


@pytest.fixture
def reconnected_meanwhile(db: None) -> Iterator[Simulator]:
    """A TikTok during whose revocation somebody connects the accounts again."""

    def connect_again(call: Call) -> None:
        BusinessAccount.objects.update(connected_at=timezone.now())

    with running_simulator(on_call=connect_again) as simulator:
        yield simulator


def test_disconnect_button_leaves_an_account_that_is_connected_again_meanwhile(
    root: Client, reconnected_meanwhile: Simulator
) -> None:
    account = connect(reconnected_meanwhile)
    page = press(root, account, "disconnect")
    ((level, text),) = messages_on(page)
    assert level == "error"
    assert text == (
        f"{account} is still connected. The account has just been connected again. "
        "Nothing is lost: try again later."
    )
    assert fact(page, "state") == "healthy"


# Deleting


def test_delete_page_says_that_tiktok_is_told_and_does_not_tell_it_yet(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    sentence = "TikTok is told to end this site&#x27;s access"
    # The sentence is ours, so it is written out as it is.
    assert sentence.replace("&#x27;", "'") in html(root.get(page_of(account, "delete")))
    assert simulator.calls == []
    BusinessAccount.objects.update(status="revoked")
    assert "TikTok is told" not in html(root.get(page_of(account, "delete")))


def test_f50_deleting_revokes_first_and_says_so(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    page = press(root, account, "delete", post="yes")
    assert messages_on(page) == [
        ("success", f"{account} is disconnected, and TikTok has confirmed it."),
        ("success", f"The TikTok Business account “{account}” was deleted successfully."),
    ]
    assert simulator.live_tokens(account.open_id) is None
    assert not BusinessAccount.objects.exists()


def test_f50_deleting_with_tiktok_down_deletes_and_says_so(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    simulator.fail_next(http_status=503, path=REVOKE, times=None)
    with override_tiktok(MAX_ATTEMPTS=1):
        page = press(root, account, "delete", post="yes")
    (warning, success) = messages_on(page)
    assert warning[0] == "warning"
    assert warning[1].endswith(BY_HAND)
    assert success[0] == "success"
    assert not BusinessAccount.objects.exists()


def test_deleting_a_disconnected_account_does_not_ask_tiktok(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    services.disconnect_account(account)
    page = press(root, account, "delete", post="yes")
    assert [level for level, _ in messages_on(page)] == ["success"]
    assert simulator.count(REVOKE) == 1
    assert not BusinessAccount.objects.exists()


def test_deleting_an_unreadable_account_works(root: Client, account: BusinessAccount) -> None:
    make_unreadable(account)
    page = press(root, account, "delete", post="yes")
    assert [level for level, _ in messages_on(page)] == ["warning", "success"]
    assert "cannot be decrypted" in messages_on(page)[0][1]
    assert not BusinessAccount.objects.exists()


def test_account_that_is_connected_again_meanwhile_is_not_deleted(
    root: Client, reconnected_meanwhile: Simulator
) -> None:
    account = connect(reconnected_meanwhile)
    page = press(root, account, "delete", post="yes")
    assert page.redirect_chain == [(page_of(account), 302)]
    assert [level for level, _ in messages_on(page)] == ["error"]
    page = select(root, "delete_selected", [account], post="yes")
    assert [level for level, _ in messages_on(page)] == ["error"]
    assert BusinessAccount.objects.get().access_token == account.access_token


def test_deleting_by_another_field_revokes_the_account_that_it_names(
    root: Client, simulator: Simulator, account: BusinessAccount
) -> None:
    root.post(page_of(account, "delete"), {"post": "yes", "_to_field": "id"})
    assert simulator.live_tokens(account.open_id) is None
    assert not BusinessAccount.objects.exists()


def test_code_that_deletes_through_the_admin_revokes_first(
    simulator: Simulator, account: BusinessAccount
) -> None:
    model_admin = BusinessAccountAdmin(BusinessAccount, admin.site)
    revoked = make_account(status="revoked")
    model_admin.delete_queryset(HttpRequest(), BusinessAccount.objects.all())
    assert simulator.live_tokens(account.open_id) is None
    assert simulator.count(REVOKE) == 1
    assert not BusinessAccount.objects.filter(pk__in=[account.pk, revoked.pk]).exists()


@only_the_second_site
def test_account_that_may_not_be_deleted_stays_connected(
    root: Client, simulator: Simulator, account: BusinessAccount
) -> None:
    page = root.post(
        reverse("second:tiktok_business_businessaccount_delete", args=[account.pk]), {"post": "yes"}
    )
    assert "an invoice" in html(page)
    assert "TikTok is told" not in html(page)
    listed = reverse("second:tiktok_business_businessaccount_changelist")
    form = {"action": "delete_selected", "_selected_action": [account.pk], "post": "yes"}
    assert "an invoice" in html(root.post(listed, form))
    assert simulator.calls == []


def delete_one(client: Client, account: BusinessAccount) -> Any:
    return press(client, account, "delete", post="yes")


def delete_selected(client: Client, account: BusinessAccount) -> Any:
    return select(client, "delete_selected", [account], post="yes")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("atomic_requests", [False, True])
@pytest.mark.parametrize("delete", [delete_one, delete_selected])
def test_f13_deleting_asks_tiktok_outside_of_the_admins_transaction(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    delete: Callable[[Client, BusinessAccount], Any],
    atomic_requests: bool,
) -> None:
    in_transaction: list[bool] = []

    def look(call: Call) -> None:
        in_transaction.append(connection.in_atomic_block)

    log_in_root(client)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic_requests)
    with running_simulator(on_call=look) as simulator:
        account = connect(simulator)
        page = delete(client, account)
        assert [level for level, _ in messages_on(page)] == ["success", "success"]
        assert simulator.live_tokens(account.open_id) is None
    # With ATOMIC_REQUESTS SQLite, where one transaction excludes all others, has no way out.
    assert in_transaction == [atomic_requests and connection.vendor == "sqlite"]
    assert not BusinessAccount.objects.exists()


# Bulk actions


def test_refresh_selected_counts_every_outcome(root: Client, simulator: Simulator) -> None:
    good, better, unreadable, rejected, claimed, revoked = connect_many(simulator, 6)
    other = make_account(app_id="7000000000000000002")
    make_unreadable(unreadable)
    simulator.revoke_grant(rejected.open_id)
    in_an_hour = timezone.now() + timedelta(hours=1)
    rows = BusinessAccount.objects
    rows.filter(pk=claimed.pk).update(claim_id="x", claim_expires_at=in_an_hour)
    rows.filter(pk=revoked.pk).update(status="revoked")
    page = select(
        root,
        "refresh_selected",
        [good, better, unreadable, rejected, claimed, revoked, other],
        index=0,
    )
    *counts, first, second = messages_on(page)
    assert counts == [
        ("success", "2 accounts are refreshed."),
        ("error", "1 account has to be connected again."),
        ("error", "The tokens of 1 account cannot be decrypted."),
        ("info", "1 account is being refreshed by somebody else."),
        (
            "warning",
            "2 accounts were not tried: only active accounts of this app are refreshed.",
        ),
    ]
    reasons = dict(text.split(": ", 1) for _, text in (first, second))
    assert set(reasons) == {unreadable.open_id, rejected.open_id}
    assert re.search(r"\(code 40107, request id \w+\)$", reasons[rejected.open_id])


def test_refresh_selected_stops_when_tiktok_is_down(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 7)
    simulator.fail_next("connection_refused", path=REFRESH, times=None)
    with override_tiktok(MAX_ATTEMPTS=1, REFRESH_CONCURRENCY=1):
        page = select(root, "refresh_selected", accounts, index=0)
    texts = [text for _, text in messages_on(page)]
    assert "Stopped early: TikTok is not available." in texts
    assert any(
        "could not be refreshed now. Nothing is lost: try again later." in text for text in texts
    )


def test_refresh_selected_stops_when_tiktok_refuses_the_app(
    root: Client, simulator: Simulator
) -> None:
    accounts = connect_many(simulator, 3)
    with override_tiktok(APP_SECRET="not-the-secret", REFRESH_CONCURRENCY=1):
        page = select(root, "refresh_selected", accounts, index=0)
    stop = "Stopped early: TikTok refuses the app's credentials. Check APP_ID and APP_SECRET."
    assert ("error", stop) in messages_on(page)
    assert {account.health for account in BusinessAccount.objects.all()} == {Health.HEALTHY}


def test_refresh_selected_tells_a_wrong_setting_by_name(root: Client, simulator: Simulator) -> None:
    with override_tiktok(REFRESH_CONCURRENCY="many"):
        page = select(root, "refresh_selected", [make_account()], index=0)
    ((level, text),) = messages_on(page)
    assert level == "error"
    assert "TIKTOK_BUSINESS['REFRESH_CONCURRENCY']" in text


def test_bulk_action_that_takes_too_long_is_ended_in_time_and_says_so(
    root: Client, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = connect_many(simulator, 3)
    monkeypatch.setattr(bulk, "LONGEST_SECONDS", 0.3)
    simulator.configure(latency_seconds=0.5)
    with override_tiktok(REFRESH_CONCURRENCY=1):
        page = select(root, "refresh_selected", accounts, index=0)
    assert messages_on(page) == [
        ("success", "1 account is refreshed."),
        ("error", "Stopped early: there was no time for more in one request."),
        ("warning", "2 more accounts were not tried. Try them again in a while."),
    ]


def test_sync_selected_counts_and_gives_reasons(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 3)
    simulator.revoke_grant(accounts[0].open_id)
    page = select(root, "sync_selected", accounts, index=0)
    success, error = messages_on(page)
    assert success == ("success", "2 profiles are up to date.")
    assert error[0] == "error"
    assert error[1].startswith(f"{accounts[0]}: the profile is not synced. ")
    assert "(code 40107, request id " in error[1]


def test_sync_selected_gives_five_reasons_and_counts_the_rest(root: Client) -> None:
    accounts = [make_account(open_id=str(number), status="revoked") for number in range(7)]
    with running_simulator():
        messages = messages_on(select(root, "sync_selected", accounts, index=0))
    assert len(messages) == 6
    assert messages[-1] == ("error", "... and 2 more.")


def test_sync_selected_stops_when_tiktok_is_down(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 7)
    simulator.fail_next("connection_refused", times=None)
    with override_tiktok(MAX_ATTEMPTS=1, REFRESH_CONCURRENCY=1):
        messages = messages_on(select(root, "sync_selected", accounts, index=0))
    assert [level for level, _ in messages] == ["error"] * 5 + ["warning"]
    assert messages[-1][1] == ("2 more accounts were not tried. Try them again in a while.")


def test_sync_selected_tells_a_wrong_setting_by_name(root: Client, simulator: Simulator) -> None:
    with override_tiktok(REFRESH_CONCURRENCY="many"):
        page = select(root, "sync_selected", [make_account()], index=0)
    ((level, text),) = messages_on(page)
    assert level == "error"
    assert "TIKTOK_BUSINESS['REFRESH_CONCURRENCY']" in text


def test_disconnect_selected_asks_first(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 2)
    page = html(select(root, "disconnect_selected", accounts, index=0))
    assert all(name in page for name in names(*accounts))
    assert simulator.calls == []
    form: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', page):
        form.setdefault(name, []).append(value)
    levels = [level for level, _ in messages_on(root.post(LIST, form, follow=True))]
    assert levels == ["success"]
    assert simulator.count(REVOKE) == 2


@override_settings(USE_THOUSAND_SEPARATOR=True)
def test_disconnect_selected_finds_accounts_with_large_keys(
    root: Client, simulator: Simulator
) -> None:
    account = connect(simulator, pk=12_345)
    page = html(select(root, "disconnect_selected", [account]))
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    root.post(LIST, form)
    account.refresh_from_db()
    assert account.status == account.Status.REVOKED


def test_disconnect_selected_ends_the_grants(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 3)
    services.disconnect_account(accounts[0])
    page = select(root, "disconnect_selected", accounts, post="yes")
    assert messages_on(page) == [
        ("info", "1 account was disconnected already."),
        ("success", "2 accounts are disconnected, and TikTok has confirmed it."),
    ]
    assert stored_ciphertexts() == []
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize("action", ["disconnect_selected", "delete_selected"])
def test_ending_many_connections_stops_when_tiktok_refuses_the_app(
    root: Client, simulator: Simulator, action: str
) -> None:
    accounts = connect_many(simulator, 3)
    with override_tiktok(APP_SECRET="not-the-secret"):
        page = select(root, action, accounts, post="yes")
    levels = [level for level, _ in messages_on(page)]
    assert levels[:2] == ["warning", "warning"]
    assert "2 more accounts were not tried" in messages_on(page)[1][1]
    left = BusinessAccount.objects.exclude(status="revoked")
    assert {account.health for account in left} == {Health.HEALTHY}
    assert left.count() == 2


def test_delete_selected_revokes_first_and_says_so(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 2)
    asked = html(select(root, "delete_selected", accounts, index=0))
    assert "TikTok is told to end this site's access to them first." in asked
    assert simulator.calls == []
    page = select(root, "delete_selected", accounts, post="yes")
    assert messages_on(page) == [
        ("success", "2 accounts are disconnected, and TikTok has confirmed it."),
        ("success", "Successfully deleted 2 TikTok Business accounts."),
    ]
    assert not BusinessAccount.objects.exists()
    assert simulator.summary()["grants"] == []


@pytest.mark.parametrize("post", [{}, {"post": "yes"}])
@pytest.mark.parametrize(
    "action", ["refresh_selected", "sync_selected", "disconnect_selected", "delete_selected"]
)
def test_bulk_action_refuses_more_than_one_request_can_do(
    root: Client, simulator: Simulator, action: str, post: dict[str, str]
) -> None:
    BusinessAccount.objects.bulk_create(
        BusinessAccount(app_id=simulator.app_id, open_id=f"_{number}")
        for number in range(ACCOUNTS_PER_ACTION + 1)
    )
    some = BusinessAccount.objects.all()[:1]
    page = select(root, action, some, index=0, select_across=1, **post)
    ((level, text),) = messages_on(page)
    assert level == "error"
    assert text == (
        "Nothing was done: select at most 200 accounts at a time, or refresh all of them "
        "with “manage.py refresh_tokens --all”."
    )
    assert simulator.calls == []
    assert BusinessAccount.objects.count() == ACCOUNTS_PER_ACTION + 1


# What is never shown


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
