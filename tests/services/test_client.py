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
    APIError,
    PermissionDeniedError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import Listener, pair, stored
from tests.support.factories import connect, make_user
from tests.support.notices import LOCMEM, OPS, mailing_with
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


@pytest.mark.parametrize("is_assigned", [False, True], ids=["renewed elsewhere", "assigned"])
def test_newer_token_that_is_rejected_once_is_renewed_as_well(
    simulator: Simulator, is_assigned: bool
) -> None:
    """The row holds a newer token than the instance, and a data endpoint rejects that one too."""
    account = connect(simulator)
    stale = stored(account)
    services.refresh_account(account)  # kills the token that `stale` holds
    if is_assigned:  # as a project does that imports a pair, without reading the version back
        access_token, refresh_token = simulator.live_tokens(account.open_id) or ("", "")
        stale.access_token, stale.refresh_token = access_token, refresh_token
        stale.save()
    rejections = 1 if is_assigned else 2
    simulator.fail_next("code", code=40105, path=PROFILE, times=rejections)
    simulator.fail_next("code", code=40105, path=TOKEN_INFO)
    with Listener(signals.reauthorization_required) as heard:
        assert services.account_client(stale).profile().username == "harbour_bakery"
    row = stored(account)
    assert (row.status, pair(row)) == (Status.ACTIVE, simulator.live_tokens(row.open_id))
    assert simulator.count(REFRESH) == 2, "the first by refresh_account"
    assert heard == []


@pytest.mark.parametrize("path", [PROFILE, "/advertiser/info/"], ids=["lagging", "of another kind"])
def test_no_answer_of_a_data_endpoint_requires_reauthorization(
    simulator: Simulator, path: str
) -> None:
    """A gateway may not know a token yet; another endpoint may want that of another product."""
    account = connect(simulator, owner=make_user("ada"))
    simulator.fail_next("code", code=40105, path=path, times=None)
    simulator.fail_next("code", code=40105, path=TOKEN_INFO, times=None)
    with (
        override_tiktok(NOTIFY=[OPS]),
        mailing_with(LOCMEM),
        Listener(signals.reauthorization_required) as heard,
        pytest.raises(AccessTokenRejectedError) as caught,
    ):
        services.account_client(account).request("GET", path)
    assert caught.value.code == 40105
    row = stored(account)
    assert (row.status, row.consecutive_failures) == (Status.ACTIVE, 0)
    assert pair(row) == simulator.live_tokens(account.open_id)
    assert (simulator.count(REFRESH), simulator.count(path)) == (2, 3)
    assert (heard, mail.outbox) == ([], [])


def test_token_that_the_row_has_lost_is_renewed_and_not_sent(simulator: Simulator) -> None:
    account = connect(simulator)
    cleared = stored(account)
    cleared.access_token = ""
    cleared.save()
    simulator.fail_next("code", code=40105, path=PROFILE)
    assert services.account_client(account).profile().username == "harbour_bakery"
    assert (simulator.count(REFRESH), simulator.count(PROFILE)) == (1, 2)


def test_missing_scope_leaves_the_account_active(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40130, path=PROFILE)
    with pytest.raises(PermissionDeniedError):
        services.account_client(account).profile()
    assert stored(account).status == Status.ACTIVE


def test_f20_call_during_a_refresh_uses_the_tokens_that_it_brings(simulator: Simulator) -> None:
    account = connect(simulator, owner=make_user("ada"))
    stale = stored(account)
    services.refresh_account(stored(account))
    usernames: list[str | None] = []

    def call_with_the_stale_instance() -> None:
        with services.account_client(stale) as client:
            usernames.append(client.profile().username)
        connections.close_all()

    thread = threading.Thread(target=call_with_the_stale_instance)
    meanwhile(thread.start)  # TikTok has already ended the pair that is in the row
    with override_tiktok(NOTIFY=[OPS]), mailing_with(LOCMEM):
        services.refresh_due_accounts(within=timedelta(days=3))
        thread.join()
    assert usernames == ["harbour_bakery"]
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
