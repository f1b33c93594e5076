from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import include, path

from django_tiktok_business import views
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.views.state import AuthorizationResponse
from tests.support.factories import connect, make_user
from tests.support.simulator import meanwhile, override_tiktok, running_simulator
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
    rendered,
    text_of,
    twin,
    value_in,
    visit,
)

ACCOUNTS = ("harbour_bakery", "galaxy_gadgets")

Middleware = Callable[[HttpRequest], HttpResponse]


class FailingCallbackView(views.CallbackView):
    def get_success_url(self, account: BusinessAccount) -> str:
        raise RuntimeError("The project's own code fails.")


_own_patterns = [
    path("", views.AccountListView.as_view(), name="account_list"),
    path("connect/", views.ConnectView.as_view(), name="connect"),
    path("callback/", FailingCallbackView.as_view(), name="callback"),
]
urlpatterns = [path("tiktok/", include((_own_patterns, "tiktok_business")))]


class BrokenCache(LocMemCache):
    def add(self, *args: Any, **kwargs: Any) -> bool:
        raise ConnectionError("No cache server.")


def broken_session() -> requests.Session:
    raise RuntimeError("The project's session factory fails.")


def log_out_elsewhere(get_response: Middleware) -> Middleware:
    """A middleware after which the session, loaded already, is gone from the database."""

    def middleware(request: HttpRequest) -> HttpResponse:
        assert request.user.is_authenticated
        Session.objects.all().delete()
        return get_response(request)

    return middleware


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    cache.clear()
    with override_tiktok(MAX_ATTEMPTS=1), running_simulator() as simulator:
        yield simulator


@pytest.fixture
def ada(db: None, client: Client) -> User:
    return log_in(client)


def nothing_happened(simulator: Simulator) -> bool:
    return simulator.count(TOKEN_CALL) == 0 and not BusinessAccount.objects.exists()


# It works


def test_callback_connects_the_account_and_moves_on(
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


def test_f37_answer_is_not_cached_and_sends_no_url_on(
    client: Client, ada: User, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    for response in (client.get(back), client.get(back), client.get(CALLBACK)):
        assert "no-store" in response.headers["Cache-Control"]
        assert response.headers["Referrer-Policy"] == "strict-origin"


def test_f37_query_is_taken_out_of_the_request() -> None:
    request = RequestFactory().get(f"{CALLBACK}?code=the-code&state=the-state")
    request.META["RAW_URI"] = request.META["REQUEST_URI"] = request.get_full_path()
    request.user = AnonymousUser()
    response = views.CallbackView.as_view()(request)
    assert response.status_code == 403
    assert_is_clean = f"{request!r} {request.META} {request.GET} {request.get_full_path()}"
    assert "the-code" not in assert_is_clean
    assert "the-state" not in assert_is_clean
    assert request.META["RAW_URI"] == CALLBACK


def test_f37_query_is_taken_out_of_what_servers_and_proxies_add() -> None:
    path = "/tiktok/callback/"
    sent = f"{path}?code=secret-code&state=secret-state"
    names = ("RAW_URI", "HTTP_X_FORWARDED_URI", "HTTP_X_ORIGINAL_URL", "HTTP_REFERER")
    request = RequestFactory().get(sent)
    request.META.update(dict.fromkeys(names, sent))
    assert "secret-code" in str(request.headers)
    AuthorizationResponse(request)
    assert [request.META[name] for name in names] == [path] * 4
    assert "secret" not in f"{request.META} {request.headers}"


@pytest.mark.parametrize(
    "spelled",
    [
        "/tiktok/callback/?code=secret%2A1&state=secret-state",
        "/tiktok/callback/?code=secret*1&state=secret-state&via=proxy",
        "/login/?next=/tiktok/callback/%3Fcode%3Dsecret%2A1%26state%3Dsecret-state",
        "code=secret*1&state=secret-state",
        "https://www.tiktok.com/v2/auth/authorize/?state=secret-state&client_key=1",
    ],
)
def test_f37_query_is_taken_out_of_headers_that_spell_it_otherwise(spelled: str) -> None:
    request = RequestFactory().get(
        "/tiktok/callback/?code=secret*1&state=secret-state",
        headers={"X-Original-Uri": spelled, "Cookie": "a=b?c; mode=state=1"},
    )
    AuthorizationResponse(request)
    assert "secret" not in f"{request.META} {request.headers}"
    assert request.META["HTTP_COOKIE"] == "a=b?c; mode=state=1"


def test_f37_query_is_taken_out_of_the_asgi_scope(db: None) -> None:
    client = AsyncClient()
    response = async_to_sync(client.get)(f"{CALLBACK}?code=the-code&state=the-state")
    assert response.status_code == 403
    assert response.asgi_request.scope["query_string"] == b""


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
    account = BusinessAccount.objects.get()  # connected all the same
    assert_nothing_holds(
        [value_in(back, "code"), value_in(back, "state"), account.access_token],
        response.content.decode(),
        caplog.text,
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.urls("tests.views.test_callback")
def test_crash_after_the_exchange_takes_nothing_back_with_atomic_requests(
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


def test_code_may_be_called_auth_code(client: Client, ada: User, simulator: Simulator) -> None:
    back = visit(client, simulator)
    assert client.get(back.replace("?code=", "?auth_code=")).status_code == 302


def test_code_wins_over_auth_code(client: Client, ada: User, simulator: Simulator) -> None:
    back = visit(client, simulator)
    assert client.get(f"{back}&auth_code=of-another-product").status_code == 302


def test_without_the_messages_app_it_works_in_silence(
    client: Client, ada: User, simulator: Simulator
) -> None:
    without = [name for name in settings.MIDDLEWARE if "messages" not in name]
    with override_settings(MIDDLEWARE=without):
        silent = twin(client)
        assert silent.get(visit(silent, simulator)).status_code == 302
        assert "is connected." not in text_of(silent.get(LIST))


# The profile and the scopes


@pytest.mark.parametrize(
    "fault", [{"code": 50000}, {"code": 40001, "times": 2}, {"fault": "timeout_after"}]
)
def test_f03_failing_profile_leaves_a_connected_account_and_says_so(
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


# Who may


def test_f39_without_a_session_the_page_says_how_to_go_on(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    response = Client().get(back)
    assert response.status_code == 403
    assert "You are not logged in here any more" in text_of(response)
    assert f'href="{CONNECT}">Log in and start again' in response.content.decode()
    assert_nothing_holds([value_in(back, "code"), value_in(back, "state")], rendered(response))
    assert nothing_happened(simulator)


def test_f39_login_required_middleware_does_not_pass_the_code_on(
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


def test_f39_new_session_of_the_same_user_knows_nothing(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    other_browser = Client()
    other_browser.force_login(ada)
    response = other_browser.get(back)
    assert response.status_code == 400
    assert "does not belong to a question of yours" in text_of(response)
    assert nothing_happened(simulator)


def test_f39_session_that_ends_while_the_answer_is_checked(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    middleware = [*settings.MIDDLEWARE, "tests.views.test_callback.log_out_elsewhere"]
    with override_settings(MIDDLEWARE=middleware):
        response = twin(client).get(back)
    assert response.status_code == 403
    assert client.cookies["sessionid"].value == ""
    assert nothing_happened(simulator)


def test_session_that_cannot_be_written_for_now_logs_nobody_out(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    with failing("UPDATE", "django_session"):
        response = client.get(back)
    assert response.status_code == 503
    assert "The account could not be saved" in text_of(response)
    assert nothing_happened(simulator)
    assert client.get(LIST).status_code == 200


def test_session_that_cannot_be_written_after_the_exchange_loses_no_account(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    refusal = failing("UPDATE", "django_session")
    meanwhile(refusal.__enter__)
    try:
        assert client.get(back).status_code == 302
    finally:
        refusal.__exit__(None, None, None)
    assert BusinessAccount.objects.get().owner == ada
    assert client.get(LIST).status_code == 200


def test_session_that_ends_during_the_exchange_loses_no_account(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    meanwhile(lambda: Session.objects.all().delete())
    assert client.get(back).status_code == 302
    assert BusinessAccount.objects.get().owner == ada


def test_permission_that_was_withdrawn_meanwhile_counts(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    ada.user_permissions.clear()
    response = client.get(back)
    assert response.status_code == 403
    assert "You may not connect TikTok accounts" in text_of(response)
    assert nothing_happened(simulator)


@pytest.mark.parametrize("state", ["&state=", "&state=guess", "&state=%C3%A9", ""])
def test_f41_answer_without_a_state_of_ours_is_refused(
    ada: User, client: Client, simulator: Simulator, state: str
) -> None:
    code = value_in(visit(client, simulator), "code")
    response = client.get(f"{CALLBACK}?code={code}{state}")
    assert response.status_code == 400
    assert nothing_happened(simulator)


def test_f41_attackers_answer_does_not_connect_the_victim(
    ada: User, client: Client, simulator: Simulator
) -> None:
    attacker = Client()
    log_in(attacker, "mallory")
    back = visit(attacker, simulator)
    assert client.get(back).status_code == 400
    assert nothing_happened(simulator)


def test_f42_other_user_in_the_same_session_is_refused(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    grace = make_user("grace")
    grace.user_permissions.set(Permission.objects.filter(codename="add_businessaccount"))
    session = client.session  # as a "log in as" tool leaves it: another user, the data kept
    session["_auth_user_id"] = str(grace.pk)
    session["_auth_user_hash"] = grace.get_session_auth_hash()
    session.save()
    response = client.get(back)
    assert response.status_code == 403
    assert "Somebody else started this" in text_of(response)
    assert nothing_happened(simulator)


def test_f42_login_of_another_user_ends_the_attempts(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    log_in(client, "grace")
    assert client.get(back).status_code == 400
    assert nothing_happened(simulator)


# The account holder says no


def test_f40_denial_is_a_page_with_another_try(
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


def test_f40_another_try_goes_where_the_first_would_have(
    ada: User, client: Client, simulator: Simulator
) -> None:
    page = client.get(visit(client, simulator, "/a/__pk__/", approve=False)).content.decode()
    assert f'<form method="post" action="{CONNECT}">' in page
    assert '<input type="hidden" name="next" value="/a/__pk__/">' in page
    assert "Go back" not in page  # there is no such page yet


@pytest.mark.parametrize("name", ["error", "error_code", "error_description", "error_reason"])
def test_f40_any_sign_of_an_error_is_a_denial_even_beside_a_code(
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
    assert client.get(back).status_code == 409  # the answer is used up


def test_f40_denial_without_a_state_of_ours_says_nothing_of_a_denial(
    ada: User, client: Client, simulator: Simulator
) -> None:
    response = client.get(f"{CALLBACK}?error=access_denied&state=guess")
    assert response.status_code == 400
    assert "No access was given" not in text_of(response)


# Again, at once, too late, incomplete


def test_f44_second_hit_shows_that_it_is_done(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator, "/settings/")
    assert client.get(back).status_code == 302
    response = client.get(back)
    assert response.status_code == 200
    assert "The account is connected already" in text_of(response)
    assert '<a class="button main" href="/settings/">Continue</a>' in response.content.decode()
    assert simulator.count(TOKEN_CALL) == 1


def test_f44_second_hit_during_the_first_exchanges_nothing(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    other = twin(client)
    statuses: list[int] = []
    meanwhile(lambda: statuses.append(other.get(back).status_code))
    assert client.get(back).status_code == 302
    assert statuses == [409]
    assert simulator.count(TOKEN_CALL) == 1
    assert "The account is connected already" in text_of(client.get(back))


def test_f44_session_that_was_read_before_the_first_hit_does_not_let_a_second_pass(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    session = client.session
    assert session["tiktok_business_states"]
    assert client.get(back).status_code == 302
    session.save()  # what a request writes that was at work all the time
    assert client.get(back).status_code == 409
    assert simulator.count(TOKEN_CALL) == 1


def test_f44_cache_that_is_down_stops_nobody(
    ada: User, client: Client, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    back = visit(client, simulator)
    broken = {"default": {"BACKEND": "tests.views.test_callback.BrokenCache"}}
    with override_settings(CACHES=broken):
        assert client.get(back).status_code == 302
        assert client.get(back).status_code == 200
    assert simulator.count(TOKEN_CALL) == 1
    assert "The cache 'default' does not answer (ConnectionError)" in caplog.text


def test_f44_head_uses_nothing_up(ada: User, client: Client, simulator: Simulator) -> None:
    back = visit(client, simulator)
    assert client.head(back).status_code == 405
    assert client.post(back).status_code == 405
    assert client.get(back).status_code == 302


@pytest.mark.parametrize("call", [1, 2], ids=["exchange", "profile"])
def test_f43_tab_that_starts_while_another_one_ends_is_not_forgotten(
    ada: User, client: Client, simulator: Simulator, call: int
) -> None:
    back = visit(client, simulator)
    other_tab = twin(client)
    left: list[str] = []
    for _ in range(call - 1):
        meanwhile(lambda: None)
    meanwhile(lambda: left.append(leave(other_tab)))
    assert client.get(back).status_code == 302
    response = client.get(come_back(simulator, left[0], account="galaxy_gadgets"))
    assert response.status_code == 302
    assert BusinessAccount.objects.count() == 2


@pytest.mark.parametrize("engine", ["cache", "cached_db", "file", "signed_cookies"])
def test_sessions_of_every_kind_remember_each_attempt(
    db: None, simulator: Simulator, engine: str, tmp_path: Path
) -> None:
    with override_settings(
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}", SESSION_FILE_PATH=tmp_path
    ):
        client = Client()
        log_in(client)
        backs = [visit(client, simulator, account=name) for name in ACCOUNTS]
        assert [client.get(back).status_code for back in backs] == [302, 302]
        assert "The account is connected already" in text_of(client.get(backs[0]))


def test_state_in_an_odd_encoding_is_nobodys(ada: User, client: Client) -> None:
    response = client.get(
        f"{CALLBACK}?state=%2B2AA-&code=x", headers={"content-type": "text/html; charset=utf-7"}
    )
    assert response.status_code == 400
    assert "does not belong to a question of yours" in text_of(response)


def test_answer_to_an_old_question_is_too_late(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    session = client.session
    session["tiktok_business_states"][0]["started_at"] -= 601
    session.save()
    response = client.get(back)
    assert response.status_code == 400
    assert "That took too long" in text_of(response)
    assert nothing_happened(simulator)


@pytest.mark.parametrize("twice", ["code=x", "state=x", "error=", "anything=1&anything=1"])
def test_parameter_that_is_there_twice_is_refused_and_uses_nothing_up(
    ada: User, client: Client, simulator: Simulator, twice: str
) -> None:
    back = visit(client, simulator)
    response = client.get(f"{back}&error=&{twice}" if twice == "error=" else f"{back}&{twice}")
    assert response.status_code == 400
    assert "This answer is not one of TikTok's" in text_of(response)
    assert nothing_happened(simulator)
    assert client.get(back).status_code == 302


def test_answer_without_a_code_is_incomplete(
    ada: User, client: Client, simulator: Simulator
) -> None:
    response = client.get(f"{CALLBACK}?code=&state={value_in(leave(client), 'state')}")
    assert response.status_code == 400
    assert "TikTok's answer is incomplete" in text_of(response)
    assert nothing_happened(simulator)


def test_code_that_expired_at_tiktok_is_explained(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    simulator.clock.advance(601)
    response = client.get(back)
    assert response.status_code == 400
    text = text_of(response)
    assert "TikTok did not accept its answer any more" in text
    assert "TikTok's code 40131" in text
    assert "Authorization code is expired" not in text
    assert not BusinessAccount.objects.exists()


# TikTok, the settings and the database fail


@pytest.mark.parametrize(
    ("fault", "status", "title"),
    [
        ({"fault": "timeout_before"}, 503, "It did not work just now"),
        ({"fault": "timeout_after"}, 503, "It did not work just now"),
        ({"fault": "connection_refused"}, 503, "It did not work just now"),
        ({"fault": "http_429"}, 503, "It did not work just now"),
        ({"code": 40100}, 503, "It did not work just now"),
        ({"code": 50000}, 503, "It did not work just now"),
        ({"http_status": 502}, 503, "It did not work just now"),
        ({"fault": "html"}, 502, "TikTok's answer could not be understood"),
        ({"fault": "truncated"}, 502, "TikTok's answer could not be understood"),
        ({"fault": "null_data"}, 502, "TikTok's answer could not be understood"),
        (
            {"fault": "missing_field", "field": "access_token"},
            502,
            "TikTok's answer could not be understood",
        ),
        ({"code": 40113}, 502, "TikTok does not accept this site"),
        ({"code": 40002}, 502, "TikTok refused"),
        ({"code": 40110}, 400, "TikTok did not accept its answer any more"),
    ],
)
def test_f54_failing_exchange_is_a_page_and_is_not_repeated(
    ada: User,
    client: Client,
    simulator: Simulator,
    fault: dict[str, Any],
    status: int,
    title: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    back = visit(client, simulator, "/settings/")
    simulator.fail_next(path=TOKEN_CALL, **fault)
    with override_tiktok(MAX_ATTEMPTS=3):
        response = client.get(back)
    assert response.status_code == status
    text = text_of(response)
    assert title in text
    assert "Simulated failure" not in text
    if "code" in fault:
        assert f"TikTok's code {fault['code']} TikTok's request id 20" in text
    assert simulator.count(TOKEN_CALL) == 1
    assert not BusinessAccount.objects.exists()
    assert "An account was not connected: " in caplog.text
    assert_nothing_holds(
        [value_in(back, "code"), value_in(back, "state")], rendered(response), caplog.text
    )
    assert client.get(back).status_code == 409
    assert simulator.count(TOKEN_CALL) == 1


def test_request_id_is_escaped(ada: User, client: Client, simulator: Simulator) -> None:
    back = visit(client, simulator)
    simulator.fail_next(code=40131, message="<b>no</b>", path=TOKEN_CALL)
    page = client.get(back).content.decode()
    assert "<b>no" not in page


def test_setting_that_is_missing_by_now_is_a_page(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    with override_tiktok(APP_SECRET=None):
        response = client.get(back)
    assert response.status_code == 503
    assert "This site is not fully set up" in text_of(response)
    assert nothing_happened(simulator)


def test_account_that_cannot_be_stored_is_a_page(
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


# Accounts that are known


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


def test_f45_who_may_change_accounts_renews_it_for_its_owner(
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
