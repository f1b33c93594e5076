from __future__ import annotations

import re

import pytest

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import (
    BAKERY,
    DAY,
    REDIRECT_URI,
    YEAR,
    Caller,
    caller,
    code_from,
    frozen,
)


def test_open_id_is_stable_and_belongs_to_one_app(simulator: Simulator) -> None:
    open_id = simulator.open_id(BAKERY)
    assert re.fullmatch(r"_000SIM[\w-]{29}", open_id)
    assert open_id == Simulator().open_id(BAKERY)
    assert open_id != simulator.open_id(BAKERY, app_id="7000000000000000002")


# Codes


def test_code_works_once(simulator: Simulator, client: Caller) -> None:
    code = code_from(simulator)
    assert client.exchange(code)["code"] == 0
    second = client.exchange(code)
    assert (second["code"], second["message"]) == (40131, "Authorization code is expired.")
    assert second["data"] == {}


def test_code_lives_ten_minutes(simulator: Simulator, client: Caller) -> None:
    early, late = code_from(simulator), code_from(simulator)
    simulator.clock.advance(599)
    assert client.exchange(early)["code"] == 0
    simulator.clock.advance(1)
    assert client.exchange(late)["code"] == 40131


def test_code_that_is_still_encoded_is_refused(simulator: Simulator, client: Caller) -> None:
    code = code_from(simulator)
    assert client.exchange(code.replace("*", "%2A").replace("!", "%21"))["code"] == 40131


def test_code_belongs_to_its_app(simulator: Simulator, client: Caller) -> None:
    simulator.add_app("7000000000000000002", "other-secret", redirect_uris=[REDIRECT_URI])
    other = {"client_id": "7000000000000000002", "client_secret": "other-secret"}
    assert client.exchange(code_from(simulator), **other)["code"] == 40131


def test_code_with_another_redirect_uri_is_refused_and_still_good(
    simulator: Simulator, client: Caller
) -> None:
    code = code_from(simulator)
    refused = client.exchange(code, redirect_uri="https://testserver.example/other/")
    assert refused["code"] == 40002
    assert "redirect_uri" in refused["message"]
    simulator.configure(wrong_redirect_uri_code=40131)
    assert client.exchange(code, redirect_uri="https://other.example/")["code"] == 40131
    assert client.exchange(code)["code"] == 0


# Refresh


def test_refresh_counts_down_from_the_consent(simulator: Simulator, client: Caller) -> None:
    first = simulator.issue_grant(BAKERY)
    simulator.clock.advance(7_200)
    second = client.refresh(first["refresh_token"])["data"]
    assert second["refresh_token"] == first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert second["expires_in"] == DAY
    assert second["refresh_token_expires_in"] == YEAR - 7_200
    assert second["open_id"] == first["open_id"]
    assert second["scope"] != first["scope"]
    assert sorted(second["scope"].split(",")) == sorted(first["scope"].split(","))


def test_refresh_never_extends_the_year(simulator: Simulator, client: Caller) -> None:
    simulator.configure(rotate="always")
    token = simulator.issue_grant()["refresh_token"]
    simulator.clock.advance(YEAR - 1)
    answer = client.refresh(token)["data"]
    assert answer["refresh_token_expires_in"] == 1
    simulator.clock.advance(1)
    expired = client.refresh(answer["refresh_token"])
    assert (expired["code"], expired["message"]) == (40103, "The refresh token has expired.")
    simulator.configure(expired_refresh_code=40131)
    assert client.refresh(token)["code"] == 40131


def test_new_consent_starts_a_new_year(simulator: Simulator, client: Caller) -> None:
    first = simulator.issue_grant()
    simulator.clock.advance(1_000)
    again = client.exchange(code_from(simulator))["data"]
    assert again["refresh_token_expires_in"] == YEAR
    assert again["refresh_token"] != first["refresh_token"]
    assert simulator.live_tokens(again["open_id"]) == (
        again["access_token"],
        again["refresh_token"],
    )
    assert client.refresh(first["refresh_token"])["data"]["refresh_token_expires_in"] == YEAR - 1000


def test_bad_refresh_token(simulator: Simulator, client: Caller) -> None:
    assert client.refresh("rft.SIMunknown!1.e1")["code"] == 40107
    assert client.refresh(simulator.issue_grant()["access_token"])["code"] == 40107
    simulator.configure(bad_refresh_code=40131)
    assert client.refresh("rft.SIMunknown!1.e1")["code"] == 40131


def test_refresh_token_of_another_app_is_refused(simulator: Simulator, client: Caller) -> None:
    simulator.add_app("7000000000000000002", "other-secret", redirect_uris=[REDIRECT_URI])
    foreign = simulator.issue_grant(app_id="7000000000000000002")
    assert client.refresh(foreign["refresh_token"])["code"] == 40107
    assert client.token_info(foreign["access_token"])["code"] == 40105


@pytest.mark.parametrize(("mode", "code"), [("yes", 0), ("no", 40107)])
def test_rotated_refresh_token_lives_as_the_mode_says(
    simulator: Simulator, client: Caller, mode: str, code: int
) -> None:
    simulator.configure(rotate="always", old_refresh_valid=mode)
    old = simulator.issue_grant()["refresh_token"]
    new = client.refresh(old)["data"]["refresh_token"]
    assert new != old
    assert client.refresh(old)["code"] == code


def test_rotated_refresh_token_lives_until_its_successor_is_used(
    simulator: Simulator, client: Caller
) -> None:
    simulator.configure(rotate="always", old_refresh_valid="until_successor_used")
    old = simulator.issue_grant()["refresh_token"]
    lost = client.refresh(old)["data"]["refresh_token"]
    new = client.refresh(old)["data"]["refresh_token"]
    assert new not in (old, lost)
    assert client.refresh(new)["code"] == 0
    assert client.refresh(old)["code"] == 40107


@pytest.mark.parametrize(("mode", "code"), [("yes", 0), ("no", 40105)])
def test_access_token_of_before_the_refresh_lives_as_the_mode_says(
    simulator: Simulator, client: Caller, mode: str, code: int
) -> None:
    simulator.configure(old_access_valid=mode)
    first = simulator.issue_grant()
    second = client.refresh(first["refresh_token"])["data"]
    assert client.token_info(first["access_token"])["code"] == code
    assert client.token_info(second["access_token"])["code"] == 0


def test_strict_profile_kills_and_rotates_everything() -> None:
    simulator = frozen(strict=True)
    client = caller(simulator)
    first = simulator.issue_grant()
    second = client.refresh(first["refresh_token"])["data"]
    assert second["refresh_token"] != first["refresh_token"]
    assert client.refresh(first["refresh_token"])["code"] == 40107
    assert client.token_info(first["access_token"])["code"] == 40105
    assert client.exchange("SIMcode_unknown*0!1.e1")["code"] == 40110
    assert simulator.summary()["settings"]["rate_penalty_seconds"] == 300


def test_access_token_lifetime_can_be_set(simulator: Simulator, client: Caller) -> None:
    simulator.configure(access_token_lifetime_seconds=60)
    token = client.refresh(simulator.issue_grant()["refresh_token"])["data"]
    assert token["expires_in"] == 60
    simulator.clock.advance(59)
    assert client.token_info(token["access_token"])["code"] == 0
    simulator.clock.advance(1)
    expired = client.token_info(token["access_token"])
    assert (expired["code"], expired["message"]) == (40102, "Access token has expired.")
    simulator.configure(expired_access_code=40105)
    assert client.token_info(token["access_token"])["code"] == 40105
