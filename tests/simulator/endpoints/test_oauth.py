from __future__ import annotations

import re

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import (
    APP_ID,
    BAKERY,
    DAY,
    REDIRECT_URI,
    SCOPES,
    YEAR,
    Caller,
    code_from,
)


def test_code_becomes_a_grant_of_the_documented_shape(simulator: Simulator, client: Caller) -> None:
    answer = client.exchange(code_from(simulator))
    data = answer.pop("data")
    assert re.fullmatch(r"20261122100000[0-9A-F]{20}", answer.pop("request_id"))
    assert answer == {"code": 0, "message": "OK"}
    assert re.fullmatch(r"act\.SIM[\w-]+!\d+\.e1", data.pop("access_token"))
    assert re.fullmatch(r"rft\.SIM[\w-]+!\d+\.e1", data.pop("refresh_token"))
    assert sorted(data.pop("scope").split(",")) == sorted(SCOPES.split(","))
    assert data == {
        "token_type": "Bearer",
        "expires_in": DAY,
        "refresh_token_expires_in": YEAR,
        "open_id": simulator.open_id(BAKERY),
    }


def test_refresh_ignores_a_redirect_uri(simulator: Simulator, client: Caller) -> None:
    token = simulator.issue_grant()["refresh_token"]
    assert client.refresh(token, redirect_uri=REDIRECT_URI)["code"] == 0


# Revoke and inspect


def test_revoke_ends_the_whole_grant(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    other = simulator.issue_grant("lena.draws")
    pending, foreign = code_from(simulator), code_from(simulator, account="lena.draws")
    answer = client.revoke(grant["access_token"])
    assert (answer["code"], answer["data"]) == (0, {})
    assert client.token_info(grant["access_token"])["code"] == 40105
    assert client.refresh(grant["refresh_token"])["code"] == 40107
    assert client.revoke(grant["access_token"])["code"] == 40105
    assert client.exchange(pending)["code"] == 40131
    assert simulator.live_tokens(grant["open_id"]) is None
    assert client.refresh(other["refresh_token"])["code"] == 0
    assert client.exchange(foreign)["code"] == 0


def test_revoke_with_an_expired_access_token_is_refused(
    simulator: Simulator, client: Caller
) -> None:
    grant = simulator.issue_grant()
    simulator.clock.advance(DAY)
    assert client.revoke(grant["access_token"])["code"] == 40102
    assert client.refresh(grant["refresh_token"])["code"] == 0


def test_token_info_tells_account_and_scopes(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant(BAKERY, SCOPES.split(","))
    first, second = (client.token_info(grant["access_token"])["data"] for _ in range(2))
    assert first["app_id"] == APP_ID
    assert first["creator_id"] == grant["open_id"]
    assert sorted(first["scope"].split(",")) == sorted(SCOPES.split(","))
    assert first["scope"] != second["scope"]


def test_token_info_of_an_unknown_app_is_refused(simulator: Simulator, client: Caller) -> None:
    assert (
        client.token_info(simulator.issue_grant()["access_token"], app_id="7999")["code"] == 40113
    )
