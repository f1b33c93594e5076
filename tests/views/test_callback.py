"""TikTok's redirect back: connecting the account and redirecting on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import requests
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test import Client, override_settings
from django.urls import include, path

from django_tiktok_business import views
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_user
from tests.support.simulator import meanwhile, override_tiktok
from tests.support.visits import (
    CALLBACK,
    CONNECT,
    LIST,
    PROFILE_CALL,
    TOKEN_CALL,
    assert_nothing_holds,
    come_back,
    failing,
    leave,
    log_in,
    messages_of,
    nothing_happened,
    rendered,
    text_of,
    twin,
    value_in,
    visit,
)


class FailingCallbackView(views.CallbackView):
    def get_success_url(self, account: BusinessAccount) -> str:
        raise RuntimeError("The project's own code fails.")


_own_patterns = [
    path("", views.AccountListView.as_view(), name="account_list"),
    path("connect/", views.ConnectView.as_view(), name="connect"),
    path("callback/", FailingCallbackView.as_view(), name="callback"),
]
urlpatterns = [path("tiktok/", include((_own_patterns, "tiktok_business")))]


def broken_session() -> requests.Session:
    raise RuntimeError("The project's session factory fails.")


def test_callback_connects_the_account_and_redirects(
    client: Client, ada: User, simulator: Simulator
) -> None:
    response = client.get(visit(client, simulator))
    assert response.status_code == 302
    assert response.headers["Location"] == LIST
    account = BusinessAccount.objects.get()
    assert account.owner == ada
    assert (account.access_token, account.refresh_token) == simulator.live_tokens(account.open_id)
    assert account.display_name == "Harbour Bakery"
    assert messages_of(response) == ["Harbour Bakery is connected."]


def test_f37_nothing_that_remains_holds_code_state_or_token(
    client: Client, ada: User, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    back = visit(client, simulator)
    response = client.get(back)
    tokens = simulator.live_tokens(simulator.open_id("harbour_bakery"))
    assert tokens is not None
    pages = [client.get(LIST), client.get(back), client.get(CONNECT)]
    assert [page.status_code for page in pages] == [200, 200, 200]
    assert_nothing_holds(
        [value_in(back, "code"), value_in(back, "state"), *tokens],
        rendered(response),
        *map(rendered, pages),
        caplog.text,
    )


def test_f37_callback_is_not_cached_and_leaks_no_url(
    client: Client, ada: User, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    for response in (client.get(back), client.get(back), client.get(CALLBACK)):
        assert "no-store" in response.headers["Cache-Control"]
        assert response.headers["Referrer-Policy"] == "strict-origin"


@override_settings(DEBUG=True)
def test_f34_error_report_of_a_crash_holds_no_code_and_no_state(
    client: Client, ada: User, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    client.raise_request_exception = False
    back = visit(client, simulator)
    with override_tiktok(SESSION_FACTORY_PATH="tests.views.test_callback.broken_session"):
        response = client.get(back)
    assert response.status_code == 500
    assert "The project&#x27;s session factory fails." in response.content.decode()
    assert_nothing_holds(
        [value_in(back, "code"), value_in(back, "state"), settings.TIKTOK_BUSINESS["APP_SECRET"]],
        response.content.decode(),
        caplog.text,
    )


@override_settings(DEBUG=True)
@pytest.mark.urls("tests.views.test_callback")
def test_f34_error_report_after_the_exchange_holds_no_token(
    client: Client, ada: User, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    client.raise_request_exception = False
    back = visit(client, simulator)
    response = client.get(back)
    assert response.status_code == 500
    account = BusinessAccount.objects.get()  # connected nevertheless
    assert_nothing_holds(
        [value_in(back, "code"), value_in(back, "state"), account.access_token],
        response.content.decode(),
        caplog.text,
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.urls("tests.views.test_callback")
def test_crash_after_the_exchange_rolls_nothing_back_with_atomic_requests(
    client: Client, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    client.raise_request_exception = False
    log_in(client)
    back = visit(client, simulator)
    are_atomic: list[bool] = []
    meanwhile(lambda: are_atomic.append(connection.in_atomic_block))
    assert client.get(back).status_code == 500
    assert are_atomic == [False]
    assert BusinessAccount.objects.count() == 1


def test_callback_works_without_the_messages_app(
    client: Client, ada: User, simulator: Simulator
) -> None:
    without = [name for name in settings.MIDDLEWARE if "messages" not in name]
    with override_settings(MIDDLEWARE=without):
        silent = twin(client)
        assert silent.get(visit(silent, simulator)).status_code == 302
        assert "is connected." not in text_of(silent.get(LIST))


@pytest.mark.parametrize(
    "fault", [{"code": 50000}, {"code": 40001, "times": 2}, {"fault": "timeout_after"}]
)
def test_f03_failing_profile_leaves_a_connected_account_and_a_message(
    client: Client,
    ada: User,
    simulator: Simulator,
    fault: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulator.fail_next(path=PROFILE_CALL, **fault)
    response = client.get(visit(client, simulator))
    assert response.status_code == 302
    account = BusinessAccount.objects.get()
    assert account.status == "active"
    assert messages_of(response) == [
        f"{account.open_id} is connected.",
        "Its profile could not be read yet.",
    ]
    assert f"The profile of {account.open_id} was not synced" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_profile_that_cannot_be_stored_leaves_a_connected_account(
    client: Client, simulator: Simulator
) -> None:
    log_in(client)
    back = visit(client, simulator)
    with failing("UPDATE", "profile_synced_at"):
        response = client.get(back)
    assert response.status_code == 302
    assert "Its profile could not be read yet." in messages_of(response)
    assert BusinessAccount.objects.get().display_name == ""


def test_f48_scopes_that_were_not_granted_are_named(
    client: Client, ada: User, simulator: Simulator
) -> None:
    with override_tiktok(
        SCOPES=["user.info.basic", "user.info.stats", "video.list"], MAX_ATTEMPTS=1
    ):
        response = client.get(visit(client, simulator, scopes=["user.info.basic"]))
        assert messages_of(response)[1] == (
            "Not granted: user.info.stats, video.list. What needs them will not work."
        )
        text = text_of(client.get(LIST))
    assert BusinessAccount.objects.get().scopes == ["user.info.basic"]
    assert "2 permissions were not granted" in text
    assert "See your public videos" in text


def test_f39_without_a_session_the_page_explains_how_to_continue(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    response = Client().get(back)
    assert response.status_code == 403
    assert "You are not logged in here any more" in text_of(response)
    assert f'href="{CONNECT}">Log in and start again' in response.content.decode()
    assert_nothing_holds([value_in(back, "code"), value_in(back, "state")], rendered(response))
    assert nothing_happened(simulator)


def test_f39_login_required_middleware_does_not_leak_the_code(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    middleware = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    with override_settings(MIDDLEWARE=middleware):
        assert Client().get(LIST).status_code == 302
        assert Client().get(back).status_code == 403
        assert twin(client).get(back).status_code == 302


def test_permission_withdrawn_meanwhile_is_respected(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    ada.user_permissions.clear()
    response = client.get(back)
    assert response.status_code == 403
    assert "You may not connect TikTok accounts" in text_of(response)
    assert nothing_happened(simulator)


def test_f40_denial_shows_a_page_with_a_retry_button(
    ada: User, client: Client, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    back = visit(client, simulator, "/settings/", approve=False)
    response = client.get(back)
    assert response.status_code == 200
    text = text_of(response)
    assert "No access was given" in text
    assert "Try again" in text
    assert "User cancelled" not in text
    assert '<a class="button" href="/settings/">Go back</a>' in response.content.decode()
    assert nothing_happened(simulator)
    assert "TikTok did not grant access: access_denied." in caplog.text
    with override_tiktok(DISABLE_AUTO_AUTH=True):
        again = visit(client, simulator, "/settings/")
    assert client.get(again).headers["Location"] == "/settings/"


def test_f40_retry_keeps_the_next_url(ada: User, client: Client, simulator: Simulator) -> None:
    page = client.get(visit(client, simulator, "/a/__pk__/", approve=False)).content.decode()
    assert f'<form method="post" action="{CONNECT}">' in page
    assert '<input type="hidden" name="next" value="/a/__pk__/">' in page
    assert "Go back" not in page  # the page of the account does not exist yet


@pytest.mark.parametrize("name", ["error", "error_code", "error_description", "error_reason"])
def test_f40_any_error_parameter_is_a_denial_even_beside_a_code(
    ada: User,
    client: Client,
    simulator: Simulator,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    back = visit(client, simulator)
    response = client.get(f"{back}&{name}=Call+0900-FRAUD")
    assert response.status_code == 200
    assert "No access was given" in text_of(response)
    assert "FRAUD" not in rendered(response) + caplog.text
    assert "TikTok did not grant access: reason unknown." in caplog.text
    assert nothing_happened(simulator)
    assert client.get(back).status_code == 409  # the response is used up


def test_f40_denial_with_an_unknown_state_is_not_shown_as_a_denial(
    ada: User, client: Client, simulator: Simulator
) -> None:
    response = client.get(f"{CALLBACK}?error=access_denied&state=guess")
    assert response.status_code == 400
    assert "No access was given" not in text_of(response)


def test_f44_second_request_shows_that_the_account_is_connected(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator, "/settings/")
    assert client.get(back).status_code == 302
    response = client.get(back)
    assert response.status_code == 200
    assert "The account is connected already" in text_of(response)
    assert '<a class="button main" href="/settings/">Continue</a>' in response.content.decode()
    assert simulator.count(TOKEN_CALL) == 1


def test_f44_head_does_not_use_up_the_response(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    assert client.head(back).status_code == 405
    assert client.post(back).status_code == 405
    assert client.get(back).status_code == 302


def test_response_without_a_code_is_incomplete(
    ada: User, client: Client, simulator: Simulator
) -> None:
    response = client.get(f"{CALLBACK}?code=&state={value_in(leave(client), 'state')}")
    assert response.status_code == 400
    assert "TikTok's answer is incomplete" in text_of(response)
    assert nothing_happened(simulator)


def test_setting_missing_by_then_shows_an_error_page(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    with override_tiktok(APP_SECRET=None):
        response = client.get(back)
    assert response.status_code == 503
    assert "This site is not fully set up" in text_of(response)
    assert nothing_happened(simulator)


def test_account_that_cannot_be_stored_shows_an_error_page(
    ada: User, client: Client, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    back = visit(client, simulator)
    with failing("INSERT", "businessaccount"):
        response = client.get(back)
    assert response.status_code == 503
    assert "The account could not be saved" in text_of(response)
    assert not BusinessAccount.objects.exists()
    tokens = simulator.live_tokens(simulator.open_id("harbour_bakery"))
    assert tokens is not None
    assert_nothing_holds([value_in(back, "code"), *tokens], rendered(response), caplog.text)


def test_f45_account_of_another_user_stays_as_it_is(
    ada: User, client: Client, simulator: Simulator
) -> None:
    grace = make_user("grace")
    connect(simulator, owner=grace)
    response = client.get(visit(client, simulator))
    assert response.status_code == 409
    text = text_of(response)
    assert "Somebody else has connected this TikTok account" in text
    assert "grace" not in text
    row = BusinessAccount.objects.get()
    assert row.owner == grace
    assert (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)


def test_f45_user_who_may_change_accounts_renews_it_for_its_owner(
    db: None, client: Client, simulator: Simulator
) -> None:
    grace = make_user("grace")
    connect(simulator, owner=grace, access_token="act.old-access-token")
    log_in(client, may="add change")
    response = client.get(visit(client, simulator))
    assert response.status_code == 302
    assert messages_of(response) == [
        "Harbour Bakery is connected again. It still belongs to another user."
    ]
    account = BusinessAccount.objects.get()
    assert account.owner == grace
    assert account.access_token != "act.old-access-token"


def test_f45_reconnecting_ones_own_account_renews_it(
    ada: User, client: Client, simulator: Simulator
) -> None:
    client.get(visit(client, simulator))
    before = BusinessAccount.objects.get()
    BusinessAccount.objects.update(status="reauthorization_required", consecutive_failures=3)
    assert client.get(visit(client, simulator)).status_code == 302
    account = BusinessAccount.objects.get()
    assert account.pk == before.pk
    assert account.health == "healthy"
    assert account.access_token != before.access_token


def test_two_accounts_can_be_connected_in_two_tabs(
    ada: User, client: Client, simulator: Simulator
) -> None:
    urls = [leave(client), leave(client)]
    backs = [
        come_back(simulator, url, account=account)
        for url, account in zip(urls, ["mika_bakes", "tea_and_code"], strict=True)
    ]
    assert [client.get(back).status_code for back in backs] == [302, 302]
    assert BusinessAccount.objects.filter(owner=ada).count() == 2
