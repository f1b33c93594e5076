"""How often a user may start to connect, and return from TikTok with an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client, override_settings

from django_tiktok_business import cache as shared_cache
from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.views import state
from tests.support.factories import connect, make_user
from tests.support.simulator import running_simulator
from tests.support.visits import (
    CALLBACK,
    CONNECT,
    PROFILE_CALL,
    TOKEN_CALL,
    leave,
    log_in,
    text_of,
    visit,
)

STRAY = f"{CALLBACK}?code=made-up&state=made-up"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture
def ada(db: None, client: Client, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user whose minute does not end before the test does."""
    monkeypatch.setattr(shared_cache, "LIMIT_SECONDS", 10**10)
    return log_in(client)


def statuses_of(visit: Callable[[], Any], times: int) -> set[int]:
    return {visit().status_code for _ in range(times)}


def test_starts_of_a_user_are_limited_and_the_session_stays_small(
    client: Client, ada: User
) -> None:
    assert statuses_of(lambda: client.post(CONNECT), state.LIMIT) == {302}
    response = client.post(CONNECT)
    assert response.status_code == 429
    assert response.headers["Retry-After"] == str(shared_cache.LIMIT_SECONDS)
    assert "Wait a minute, then start again" in text_of(response)
    assert len(client.session["tiktok_business_states"]) == state.REQUESTS_KEPT


def test_limit_holds_for_a_user_in_all_sessions_and_for_no_other_user(
    client: Client, ada: User
) -> None:
    statuses_of(lambda: client.post(CONNECT), state.LIMIT)
    other = Client()
    other.force_login(ada)
    assert other.post(CONNECT).status_code == 429
    log_in(other, "grace")
    assert other.post(CONNECT).status_code == 302


def test_limit_ends_with_the_minute(client: Client, ada: User) -> None:
    statuses_of(lambda: client.post(CONNECT), state.LIMIT + 1)
    cache.clear()
    assert client.post(CONNECT).status_code == 302


def test_made_up_answers_are_limited_and_do_not_block_tiktoks_own_answer(
    client: Client, ada: User, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    assert statuses_of(lambda: client.get(STRAY), state.LIMIT) == {400}
    response = client.get(STRAY)
    assert response.status_code == 429
    assert "reload this page" in text_of(response)
    assert client.get(back).status_code == 302


def test_answer_beyond_the_limit_is_not_used_up(
    client: Client, ada: User, simulator: Simulator
) -> None:
    used = visit(client, simulator)
    back = visit(client, simulator, account="galaxy_gadgets")
    statuses_of(lambda: client.get(used), state.LIMIT)
    assert client.get(back).status_code == 429
    assert simulator.count(TOKEN_CALL) == 1
    cache.clear()
    assert client.get(back).status_code == 302


def test_account_that_is_connected_again_and_again_is_not_read_each_time(
    client: Client, ada: User, simulator: Simulator
) -> None:
    """TikTok allows 40 calls a minute for an account, and then pauses the whole app."""
    for _ in range(3):
        assert client.get(visit(client, simulator)).status_code == 302
    assert simulator.count(TOKEN_CALL) == 3
    assert simulator.count(PROFILE_CALL) == 2  # the profile, and once a day the metrics


@pytest.mark.parametrize("missing_scope_code", [0, 40001])
def test_consents_that_allow_no_profile_do_not_use_up_the_calls_of_the_site(
    client: Client, ada: User, missing_scope_code: int
) -> None:
    with running_simulator(rate_limits=True, missing_scope_code=missing_scope_code) as simulator:
        others = connect(simulator, "alpine_velo", owner=make_user("grace"))
        for _ in range(state.LIMIT):
            client.get(visit(client, simulator, scopes=["video.list"]))
        assert simulator.count(TOKEN_CALL) == state.LIMIT
        assert simulator.count(PROFILE_CALL) <= 3
        services.refresh_account(others)


def test_consents_for_accounts_of_others_are_limited_before_the_code_is_used(
    client: Client, ada: User, simulator: Simulator
) -> None:
    owner = make_user("grace")
    connect(simulator, owner=owner)
    statuses = [client.get(visit(client, simulator)).status_code for _ in range(5)]
    assert statuses == [409] * state.OWNER_CONFLICT_LIMIT + [429] * 2
    assert simulator.count(TOKEN_CALL) == state.OWNER_CONFLICT_LIMIT
    row = BusinessAccount.objects.get()
    assert (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)


def test_table_of_the_cache_that_is_missing_fails_no_request(
    client: Client, ada: User, simulator: Simulator, settings: Any
) -> None:
    table = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "missing"}
    settings.CACHES = {"default": table}
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        answer = client.get(visit(client, simulator))
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert answer.status_code == 302
    assert BusinessAccount.objects.get().owner == ada


def test_cache_that_stores_nothing_limits_nobody(client: Client, ada: User) -> None:
    nothing = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    with override_settings(CACHES=nothing):
        for _ in range(state.LIMIT + 1):
            leave(client)
