"""Disconnecting an account."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import meanwhile, override_tiktok
from tests.support.visits import (
    LIST,
    REVOKE_CALL,
    assert_nothing_holds,
    damage_access_token,
    disconnect_url,
    failing,
    log_in,
    messages_of,
    rendered,
    text_of,
)


def test_f50_disconnecting_asks_first(ada: User, client: Client, simulator: Simulator) -> None:
    account = connect(simulator, owner=ada, display_name="Harbour Bakery", username="harbour")
    response = client.get(disconnect_url(account))
    assert response.status_code == 200
    text = text_of(response)
    assert "Disconnect this account?" in text
    assert "Harbour Bakery @harbour" in text
    assert simulator.live_tokens(account.open_id) is not None
    assert BusinessAccount.objects.get().status == "active"


def test_f50_disconnecting_ends_the_grant_and_clears_the_tokens(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada, display_name="Harbour Bakery")
    tokens = (account.access_token, account.refresh_token)
    response = client.post(disconnect_url(account))
    assert response.status_code == 302
    assert response.headers["Location"] == LIST
    assert messages_of(response) == ["Harbour Bakery is disconnected, and TikTok has confirmed it."]
    account.refresh_from_db()
    assert (account.status, account.access_token, account.refresh_token) == ("revoked", "", "")
    assert simulator.live_tokens(account.open_id) is None
    assert_nothing_holds(tokens, rendered(response), rendered(client.get(LIST)))


def test_f50_disconnecting_works_when_tiktok_cannot_be_reached(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    simulator.fail_next(code=50000, path=REVOKE_CALL)
    response = client.post(disconnect_url(account))
    assert response.status_code == 302
    (message,) = messages_of(response)
    assert "is disconnected here, but TikTok could not be told." in message
    assert "Manage app permissions" in message
    account.refresh_from_db()
    assert (account.status, account.access_token) == ("revoked", "")
    assert "TikTok's code 50000" in text_of(client.get(LIST))


def test_f50_unreadable_account_can_be_disconnected(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    damage_access_token(account)
    assert client.get(disconnect_url(account)).status_code == 200
    assert client.post(disconnect_url(account)).status_code == 302
    assert BusinessAccount.objects.get().status == "revoked"


@pytest.mark.parametrize("method", ["get", "post"])
def test_account_of_somebody_else_is_not_found(
    db: None, client: Client, simulator: Simulator, method: str
) -> None:
    log_in(client, may="add view change")
    others = connect(simulator, owner=make_user("grace"))
    unowned = make_account(open_id="2")
    for url in (disconnect_url(others), disconnect_url(unowned), "/tiktok/987654/disconnect/"):
        assert getattr(client, method)(url).status_code == 404
    assert not BusinessAccount.objects.filter(status="revoked").exists()


def test_delete_permission_allows_disconnecting_any_account(
    db: None, client: Client, simulator: Simulator
) -> None:
    log_in(client, may="delete")
    account = connect(simulator, owner=make_user("grace"))
    assert client.post(disconnect_url(account)).status_code == 302
    assert BusinessAccount.objects.get().status == "revoked"


def test_anonymous_visitor_cannot_disconnect(
    db: None, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator)
    response = client.post(disconnect_url(account))
    assert response.headers["Location"].startswith("/admin/login/")
    assert BusinessAccount.objects.get().status == "active"


def test_disconnecting_requires_the_csrf_token(ada: User, simulator: Simulator) -> None:
    account = connect(simulator, owner=ada)
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    assert client.post(disconnect_url(account)).status_code == 403
    client.get(disconnect_url(account))
    token = client.cookies["csrftoken"].value
    response = client.post(disconnect_url(account), {"csrfmiddlewaretoken": token})
    assert response.status_code == 302


@pytest.mark.parametrize("method", ["get", "post"])
def test_disconnecting_twice_reports_that_it_is_done(
    ada: User, client: Client, simulator: Simulator, method: str
) -> None:
    account = make_account(owner=ada, display_name="Harbour", status="revoked")
    response = getattr(client, method)(disconnect_url(account))
    assert response.status_code == 302
    assert messages_of(response) == ["Harbour is disconnected already."]
    assert simulator.count(REVOKE_CALL) == 0


def test_disconnect_overtaken_by_a_reconnect_shows_an_error_page(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    meanwhile(lambda: BusinessAccount.objects.update(connected_at=timezone.now()))
    response = client.post(disconnect_url(account))
    assert response.status_code == 503
    assert "The account is still connected" in text_of(response)
    assert BusinessAccount.objects.get().status == "active"


@pytest.mark.django_db(transaction=True)
def test_disconnect_that_cannot_be_stored_shows_an_error_page(
    client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=log_in(client))

    with failing("UPDATE", "businessaccount"):
        response = client.post(disconnect_url(account))
    assert response.status_code == 503
    assert "The account is still connected" in text_of(response)


@pytest.mark.django_db(transaction=True)
def test_disconnect_runs_in_no_transaction_with_atomic_requests(
    client: Client, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    account = connect(simulator, owner=log_in(client))
    are_atomic: list[bool] = []
    meanwhile(lambda: are_atomic.append(connection.in_atomic_block))
    assert client.post(disconnect_url(account)).status_code == 302
    assert are_atomic == [False]


@pytest.mark.parametrize(
    ("given", "location"),
    [("/settings/", "/settings/"), ("/a/__pk__/", "/a/{pk}/"), ("//evil.example/", LIST)],
)
def test_f46_disconnecting_ends_at_a_safe_next(
    ada: User, client: Client, simulator: Simulator, given: str, location: str
) -> None:
    account = connect(simulator, owner=ada)
    assert "evil" not in rendered(client.get(disconnect_url(account), {"next": given}))
    response = client.post(disconnect_url(account), {"next": given})
    assert response.headers["Location"] == location.format(pk=account.pk)


def test_disconnecting_ends_at_connect_redirect_url(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    with override_tiktok(CONNECT_REDIRECT_URL="/done/"):
        assert client.post(disconnect_url(account)).headers["Location"] == "/done/"
