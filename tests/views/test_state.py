"""The authorization request in the session, and the response to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.contrib.sessions.models import Session
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings

from django_tiktok_business import views
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.views.state import AuthorizationResponse
from tests.support.factories import make_user
from tests.support.simulator import meanwhile
from tests.support.visits import (
    CALLBACK,
    LIST,
    TOKEN_CALL,
    come_back,
    failing,
    leave,
    log_in,
    nothing_happened,
    stored_requests,
    text_of,
    twin,
    value_in,
    visit,
)

ACCOUNTS = ("harbour_bakery", "galaxy_gadgets")
Middleware = Callable[[HttpRequest], HttpResponse]


class BrokenCache(LocMemCache):
    def add(self, *args: Any, **kwargs: Any) -> bool:
        raise ConnectionError("No cache server.")


def log_out_elsewhere(get_response: Middleware) -> Middleware:
    """A middleware that deletes the session from the database after it was loaded."""

    def middleware(request: HttpRequest) -> HttpResponse:
        assert request.user.is_authenticated
        Session.objects.all().delete()
        return get_response(request)

    return middleware


def test_f37_query_is_removed_from_the_request() -> None:
    request = RequestFactory().get(f"{CALLBACK}?code=the-code&state=the-state")
    request.META["RAW_URI"] = request.META["REQUEST_URI"] = request.get_full_path()
    request.user = AnonymousUser()
    response = views.CallbackView.as_view()(request)
    assert response.status_code == 403
    assert_is_clean = f"{request!r} {request.META} {request.GET} {request.get_full_path()}"
    assert "the-code" not in assert_is_clean
    assert "the-state" not in assert_is_clean
    assert request.META["RAW_URI"] == CALLBACK


def test_f37_query_is_removed_from_what_servers_and_proxies_add() -> None:
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
def test_f37_query_is_removed_from_headers_that_encode_it_differently(spelled: str) -> None:
    request = RequestFactory().get(
        "/tiktok/callback/?code=secret*1&state=secret-state",
        headers={"X-Original-Uri": spelled, "Cookie": "a=b?c; mode=state=1"},
    )
    AuthorizationResponse(request)
    assert "secret" not in f"{request.META} {request.headers}"
    assert request.META["HTTP_COOKIE"] == "a=b?c; mode=state=1"


def test_f37_query_is_removed_from_the_asgi_scope(db: None) -> None:
    client = AsyncClient()
    response = async_to_sync(client.get)(f"{CALLBACK}?code=the-code&state=the-state")
    assert response.status_code == 403
    assert response.asgi_request.scope["query_string"] == b""


def test_code_may_be_called_auth_code(client: Client, ada: User, simulator: Simulator) -> None:
    back = visit(client, simulator)
    assert client.get(back.replace("?code=", "?auth_code=")).status_code == 302


def test_code_wins_over_auth_code(client: Client, ada: User, simulator: Simulator) -> None:
    back = visit(client, simulator)
    assert client.get(f"{back}&auth_code=of-another-product").status_code == 302


def test_f39_new_session_of_the_same_user_has_no_authorization_request(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    other_browser = Client()
    other_browser.force_login(ada)
    response = other_browser.get(back)
    assert response.status_code == 400
    assert "does not match a connection you started" in text_of(response)
    assert nothing_happened(simulator)


def test_f39_session_that_ends_while_the_response_is_checked(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    middleware = [*settings.MIDDLEWARE, "tests.views.test_state.log_out_elsewhere"]
    with override_settings(MIDDLEWARE=middleware):
        response = twin(client).get(back)
    assert response.status_code == 403
    assert client.cookies["sessionid"].value == ""
    assert nothing_happened(simulator)


def test_session_that_cannot_be_saved_temporarily_logs_nobody_out(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    with failing("UPDATE", "django_session"):
        response = client.get(back)
    assert response.status_code == 503
    assert "The account could not be saved" in text_of(response)
    assert nothing_happened(simulator)
    assert client.get(LIST).status_code == 200


def test_session_that_cannot_be_saved_after_the_exchange_loses_no_account(
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


@pytest.mark.parametrize("state", ["&state=", "&state=guess", "&state=%C3%A9", ""])
def test_f41_response_with_an_unknown_state_is_refused(
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
    session = client.session  # as a "log in as" tool leaves it: another user, same data
    session["_auth_user_id"] = str(grace.pk)
    session["_auth_user_hash"] = grace.get_session_auth_hash()
    session.save()
    response = client.get(back)
    assert response.status_code == 403
    assert "Somebody else started this" in text_of(response)
    assert nothing_happened(simulator)


def test_f42_login_of_another_user_ends_the_authorization_requests(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    log_in(client, "grace")
    assert client.get(back).status_code == 400
    assert nothing_happened(simulator)


def test_f44_second_request_during_the_first_exchanges_nothing(
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


def test_f44_stale_session_does_not_let_a_second_request_pass(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    session = client.session
    assert session["tiktok_business_states"]
    assert client.get(back).status_code == 302
    session.save()  # as a request writes it that started before
    assert client.get(back).status_code == 409
    assert simulator.count(TOKEN_CALL) == 1


def test_f44_cache_that_is_down_stops_nobody(
    ada: User, client: Client, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    back = visit(client, simulator)
    broken = {"default": {"BACKEND": "tests.views.test_state.BrokenCache"}}
    with override_settings(CACHES=broken):
        assert client.get(back).status_code == 302
        assert client.get(back).status_code == 200
    assert simulator.count(TOKEN_CALL) == 1
    assert "The cache 'default' does not answer (ConnectionError)" in caplog.text


@pytest.mark.parametrize("call", [1, 2], ids=["exchange", "profile"])
def test_f43_tab_that_starts_while_another_one_finishes_is_not_lost(
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
def test_every_session_engine_keeps_each_authorization_request(
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


def test_state_in_an_odd_encoding_is_unknown(ada: User, client: Client) -> None:
    response = client.get(
        f"{CALLBACK}?state=%2B2AA-&code=x", headers={"content-type": "text/html; charset=utf-7"}
    )
    assert response.status_code == 400
    assert "does not match a connection you started" in text_of(response)


def test_response_to_an_old_request_is_too_late(
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
def test_repeated_parameter_is_refused_and_does_not_use_up_the_response(
    ada: User, client: Client, simulator: Simulator, twice: str
) -> None:
    back = visit(client, simulator)
    response = client.get(f"{back}&error=&{twice}" if twice == "error=" else f"{back}&{twice}")
    assert response.status_code == 400
    assert "This answer is not one of TikTok's" in text_of(response)
    assert nothing_happened(simulator)
    assert client.get(back).status_code == 302


def test_f41_state_is_long_random_and_not_in_the_session(client: Client, ada: User) -> None:
    states = {value_in(leave(client), "state") for _ in range(3)}
    assert len(states) == 3
    assert min(map(len, states)) >= 43  # 256 bits
    (session,) = Session.objects.all()
    assert not any(state in str(session.get_decoded()) for state in states)


def test_f43_five_tabs_at_once_all_connect(client: Client, ada: User, simulator: Simulator) -> None:
    urls = [leave(client, f"/tab-{number}/") for number in range(5)]
    for number in (3, 0, 4, 1, 2):
        response = client.get(come_back(simulator, urls[number]))
        assert response.headers["Location"] == f"/tab-{number}/"


def test_f43_sixth_tab_replaces_the_first(client: Client, ada: User, simulator: Simulator) -> None:
    urls = [leave(client) for _ in range(6)]
    assert len(stored_requests(client)) == 5
    assert client.get(come_back(simulator, urls[0])).status_code == 400
    assert client.get(come_back(simulator, urls[1])).status_code == 302


def test_start_removes_expired_authorization_requests(client: Client, ada: User) -> None:
    leave(client)
    session = client.session
    session["tiktok_business_states"][0]["started_at"] -= 601
    session.save()
    leave(client)
    assert len(stored_requests(client)) == 1
