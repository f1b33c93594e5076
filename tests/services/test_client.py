"""Call the Accounts API on behalf of an account."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.core import mail
from django.db import connections
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    AccountBusyError,
    APIError,
    PermissionDeniedError,
    ReauthorizationRequired,
    RetryableError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import Listener, pair, stored
from tests.support.factories import connect, make_user
from tests.support.simulator import meanwhile, override_tiktok

REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"
TOKEN_INFO = "/tt_user/token_info/get/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_request_reaches_any_endpoint_with_the_business_id(simulator: Simulator) -> None:
    account = connect(simulator)
    with services.account_client(account) as client:
        profile = client.request("GET", "business/get", params={"fields": ["username"]})
        assert profile == {"username": "harbour_bakery"}
        assert client.token_info().open_id == account.open_id
        assert client.profile(fields=["display_name"]).display_name == "Harbour Bakery"
        with pytest.raises(APIError):
            client.request("POST", "/business/nothing/here/", json={"text": "Hello"})


def test_token_that_tiktok_rejects_is_renewed_and_the_call_repeated(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40105, path=PROFILE)
    assert services.account_client(account).profile().username == "harbour_bakery"
    assert (simulator.count(REFRESH), simulator.count(PROFILE)) == (1, 2)
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_f01_rejected_token_that_another_worker_has_renewed_is_not_refreshed_again(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    stale = stored(account)
    services.refresh_account(account)  # kills the token that `stale` holds
    assert services.account_client(stale).profile().username == "harbour_bakery"
    assert simulator.count(REFRESH) == 1


def test_fresh_token_that_tiktok_does_not_know_requires_reauthorization(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40105, path=PROFILE, times=2)
    simulator.fail_next("code", code=40105, path=TOKEN_INFO)
    with (
        Listener(signals.reauthorization_required) as heard,
        pytest.raises(ReauthorizationRequired) as caught,
    ):
        services.account_client(account).profile()
    row = stored(account)
    assert caught.value.code == row.last_error_code == 40105
    assert row.status == Status.REAUTHORIZATION_REQUIRED
    assert pair(row) == simulator.live_tokens(account.open_id), "the pair is kept"
    assert [event["account"] for event in heard] == [account]


@pytest.mark.parametrize("token_info", [None, "connection_refused"])
def test_endpoint_that_does_not_take_this_kind_of_token_leaves_the_account_active(
    simulator: Simulator, token_info: str | None
) -> None:
    """TikTok returns 40105 also if an endpoint wants the token of another product."""
    account = connect(simulator)
    simulator.fail_next("code", code=40105, path="/advertiser/info/", times=2)
    if token_info is not None:
        simulator.fail_next(token_info, path=TOKEN_INFO)
    with pytest.raises(AccessTokenRejectedError):
        services.account_client(account).request("GET", "/advertiser/info/")
    assert stored(account).status == Status.ACTIVE
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_second_rejection_does_not_apply_to_a_pair_that_arrived_meanwhile(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40105, path=PROFILE, times=2)
    simulator.fail_next("code", code=40105, path=TOKEN_INFO)

    def nothing() -> None:
        """Let the first call and the refresh pass."""

    def another_worker_saves() -> None:
        BusinessAccount.objects.update(credentials_version=9)

    for event in (nothing, nothing, another_worker_saves):
        meanwhile(event)
    with pytest.raises(APIError) as caught:
        services.account_client(account).profile()
    assert not isinstance(caught.value, ReauthorizationRequired)
    assert stored(account).status == Status.ACTIVE


def test_missing_scope_leaves_the_account_active(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40130, path=PROFILE)
    with pytest.raises(PermissionDeniedError):
        services.account_client(account).profile()
    assert stored(account).status == Status.ACTIVE


def test_f20_rejection_during_a_refresh_leaves_the_account_active(
    simulator: Simulator,
) -> None:
    account = connect(simulator, owner=make_user("ada"))
    stale = stored(account)
    services.refresh_account(stored(account))
    raised: list[type[BaseException]] = []

    def call_with_the_stale_instance() -> None:
        with pytest.raises(RetryableError) as caught, services.account_client(stale) as client:
            client.profile()
        raised.append(caught.type)
        connections.close_all()

    def ask() -> None:
        thread = threading.Thread(target=call_with_the_stale_instance)
        thread.start()
        thread.join()

    meanwhile(ask)  # TikTok has already ended the pair that is in the row
    with override_tiktok(NOTIFY=["ops@example.com"]):
        services.refresh_due_accounts(within=timedelta(days=3))
    assert raised == [AccountBusyError]
    row = stored(account)
    assert (row.status, pair(row)) == (Status.ACTIVE, simulator.live_tokens(row.open_id))
    assert mail.outbox == []
    assert not row.events.filter(kind="rejected").exists()


def test_endpoint_groups_read_and_write_with_a_fresh_token(simulator: Simulator) -> None:
    account = connect(simulator, access_token_expires_at=timezone.now())
    simulator.fail_next("code", code=40105, path="/business/comment/like/")
    simulator.fail_next("code", code=0, path="/business/comment/like/")
    with services.account_client(account) as client:
        query = {"business_id": account.open_id, "fields": '["username"]'}
        assert client.get(PROFILE, query).data == {"username": "harbour_bakery"}
        body = {"business_id": account.open_id}
        assert client.post("/business/comment/like/", body, is_data_needed=False).data == {}
    made = [(call.method, call.path.removeprefix("/open_api/v1.3")) for call in simulator.calls]
    assert made == [
        *(("POST", REFRESH), ("GET", PROFILE)),
        *(("POST", "/business/comment/like/"), ("POST", REFRESH)),
        ("POST", "/business/comment/like/"),
    ]
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_call_with_token_is_repeated_once_with_a_new_token(simulator: Simulator) -> None:
    account = connect(simulator)
    tokens: list[str] = []

    def call(authorized: TikTokClient) -> str:
        tokens.append(account.access_token)
        if len(tokens) == 1:
            raise AccessTokenRejectedError("No.", code=40105)
        return OAuth(authorized).token_info(account.access_token).open_id

    with services.account_client(account) as client:
        assert client.with_token(call) == account.open_id
    assert len(set(tokens)) == len(tokens) == 2
    assert simulator.count(REFRESH) == 1


def test_client_can_be_used_again_after_it_is_closed(simulator: Simulator) -> None:
    client = services.account_client(connect(simulator))
    client.close()
    assert client.profile().username == "harbour_bakery"
