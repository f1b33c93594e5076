"""Attacks on the pages, one test for each attack that no other module covers.

Login CSRF, replays, foreign users and states are in ``tests/views/test_callback*.py``, open
redirects and wrong hosts in ``tests/views/test_connect.py``, foreign accounts in
``tests/views/test_accounts.py``, buttons and saved fields in ``tests/admin``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client, override_settings
from django.utils import crypto

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.views import state
from tests.support.administrators import LIST as ADMIN
from tests.support.administrators import log_in_staff, page_of
from tests.support.factories import make_account, make_user
from tests.support.simulator import override_tiktok, running_simulator
from tests.support.visits import CALLBACK, CONNECT, LIST, come_back, leave, log_in, value_in, visit


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture
def ada(db: None, client: Client) -> User:
    return log_in(client)


def with_session(key: str | None) -> Client:
    client = Client()
    client.cookies["sessionid"] = str(key)
    return client


def test_session_that_was_planted_before_the_login_cannot_finish(
    db: None, simulator: Simulator
) -> None:
    make_user("ada", is_staff=True, is_superuser=True)
    planted = SessionStore()
    planted["of"] = "the attacker"
    planted.save()
    victim = with_session(planted.session_key)
    login = {"username": "ada", "password": "correct horse", "next": LIST}
    assert victim.post("/admin/login/", login).headers["Location"] == LIST
    assert victim.session.session_key != planted.session_key
    back = visit(victim, simulator)
    assert with_session(planted.session_key).get(back).status_code == 403
    assert not BusinessAccount.objects.exists()
    assert victim.get(back).status_code == 302


@pytest.mark.parametrize("page", ["connect/", "1/disconnect/"])
def test_f41_form_of_another_site_is_refused_also_without_the_middleware(
    ada: User, simulator: Simulator, page: str
) -> None:
    make_account(pk=1, owner=ada)
    middleware = [name for name in settings.MIDDLEWARE if "Csrf" not in name]
    with override_settings(MIDDLEWARE=middleware):
        client = Client(enforce_csrf_checks=True)
        client.force_login(ada)
        response = client.post(f"{LIST}{page}", headers={"origin": "https://evil.example"})
    assert response.status_code == 403
    assert simulator.calls == []


@pytest.mark.parametrize("page", ["connect/", "1/disconnect/", "", "callback/"])
def test_no_other_site_shows_a_page_in_a_frame(client: Client, ada: User, page: str) -> None:
    make_account(pk=1, owner=ada)
    assert client.get(f"{LIST}{page}").headers["X-Frame-Options"] == "DENY"
    with override_settings(X_FRAME_OPTIONS="SAMEORIGIN"):
        assert client.get(f"{LIST}{page}").headers["X-Frame-Options"] == "SAMEORIGIN"


@pytest.mark.parametrize("nowhere", ["//", "///"])
def test_next_that_is_nowhere_leads_to_the_list(client: Client, ada: User, nowhere: str) -> None:
    account = make_account(owner=ada, status="revoked", access_token="", refresh_token="")
    response = client.get(f"{LIST}{account.pk}/disconnect/", {"next": nowhere})
    assert response.status_code == 302
    assert response.headers["Location"] == LIST


def test_nothing_but_next_is_taken_from_a_form_or_a_query(
    client: Client, ada: User, simulator: Simulator
) -> None:
    grace = make_user("grace")
    more = {
        "app_id": "1",
        "owner": str(grace.pk),
        "user": str(grace.pk),
        "open_id": "_000Chosen",
        "redirect_uri": "https://evil.example/",
        "scope": "video.publish",
        "scopes": "video.publish",
        "state": "chosen",
        "status": "revoked",
    }
    url = client.post(CONNECT, more).headers["Location"]
    assert value_in(url, "redirect_uri") == "https://testserver.example/tiktok/callback/"
    assert value_in(url, "state") != "chosen"
    assert "video.publish" not in url
    back = come_back(simulator, url)
    added = "&".join(f"{name}={value}" for name, value in more.items() if name not in back)
    assert client.get(f"{back}&{added}").status_code == 302
    account = BusinessAccount.objects.get()
    assert (account.owner, account.status) == (ada, BusinessAccount.Status.ACTIVE)
    assert account.app_id == "7000000000000000001"
    assert account.open_id == simulator.open_id("harbour_bakery")


@pytest.mark.parametrize("host", ["evil.example", "testserver.example@evil.example", "a b"])
def test_f47_request_with_another_host_starts_nothing(client: Client, ada: User, host: str) -> None:
    with override_tiktok(REDIRECT_URI=None):
        assert client.post(CONNECT, headers={"host": host}).status_code == 400
    assert "tiktok_business_states" not in client.session


@pytest.mark.parametrize(
    "action", ["refresh_selected", "sync_selected", "disconnect_selected", "delete_selected"]
)
def test_bulk_action_without_the_permission_changes_nothing(
    db: None, client: Client, simulator: Simulator, action: str
) -> None:
    log_in_staff(client, "view")
    account = make_account()
    before = BusinessAccount.objects.values().get()
    form = {"action": action, "_selected_action": [account.pk], "post": "yes"}
    response: Any = client.post(ADMIN, form, follow=True)
    assert 'name="action"' not in response.content.decode()
    assert BusinessAccount.objects.values().get() == before
    assert simulator.calls == []


@pytest.mark.parametrize("field", ["access_token", "status", "open_id", "scopes", "app_id"])
def test_admin_form_takes_no_field_but_the_owner(db: None, client: Client, field: str) -> None:
    log_in_staff(client, "view change")
    account = make_account()
    before = BusinessAccount.objects.values(field, "owner").get()
    assert client.post(page_of(account), {field: "chosen", "owner": ""}).status_code == 302
    assert BusinessAccount.objects.values(field, "owner").get() == before


def test_state_is_compared_in_constant_time_with_each_attempt(
    client: Client, ada: User, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        leave(client)
    compared: list[int] = []

    def watched(one: str, other: str) -> bool:
        compared.append(len(one) - len(other))
        return crypto.constant_time_compare(one, other)

    monkeypatch.setattr(state, "constant_time_compare", watched)
    first = leave(client)
    for sent in ("", "x" * 43, value_in(first, "state")):
        compared.clear()
        client.get(CALLBACK, {"state": sent, "code": "made-up"})
        assert compared == [0, 0, 0, 0], "hashes of one length, to the last attempt"
