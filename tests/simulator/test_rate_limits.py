from __future__ import annotations

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import BAKERY, caller, frozen


def token_info_codes(simulator: Simulator, times: int, account: str = BAKERY) -> list[int]:
    client = caller(simulator)
    tokens = simulator.live_tokens(simulator.open_id(account))
    assert tokens is not None
    return [client.token_info(tokens[0])["code"] for _ in range(times)]


def test_limits_are_off_in_process_by_default(simulator: Simulator) -> None:
    simulator.issue_grant()
    assert set(token_info_codes(simulator, 50)) == {0}


def test_forty_calls_a_minute_for_one_account_and_endpoint() -> None:
    simulator = frozen(rate_limits=True)
    grant = simulator.issue_grant()
    simulator.issue_grant("lena.draws")
    assert token_info_codes(simulator, 41) == [0] * 40 + [40100]
    assert token_info_codes(simulator, 1, "lena.draws") == [0]
    profile = caller(simulator).profile(grant["access_token"], business_id=grant["open_id"])
    assert profile["code"] == 0
    simulator.clock.advance(60)
    assert token_info_codes(simulator, 1) == [0]


def test_refused_refresh_keeps_the_pair() -> None:
    simulator = frozen(rate_limits=True, strict=True, account_calls_per_minute=1)
    client = caller(simulator)
    first = client.refresh(simulator.issue_grant()["refresh_token"])["data"]
    refused = client.refresh(first["refresh_token"])
    assert refused["code"] == 40100
    assert refused["message"] == (
        "Due to too many requests, requests from App are temporarily restricted."
    )
    assert simulator.live_tokens(first["open_id"]) == (
        first["access_token"],
        first["refresh_token"],
    )


def test_app_wide_limit_counts_the_oauth_calls_too() -> None:
    simulator = frozen(rate_limits=True, app_calls_per_minute=3)
    client = caller(simulator)
    codes = [client.exchange("SIMcode_unknown*0!1.e1")["code"] for _ in range(4)]
    assert codes == [40131, 40131, 40131, 40100]


def test_strict_profile_blocks_for_five_minutes() -> None:
    simulator = frozen(rate_limits=True, strict=True)
    simulator.issue_grant()
    assert token_info_codes(simulator, 41)[-1] == 40100
    simulator.clock.advance(299)
    assert token_info_codes(simulator, 1) == [40100]
    simulator.clock.advance(1)
    assert token_info_codes(simulator, 1) == [0]
