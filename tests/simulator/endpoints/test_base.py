from __future__ import annotations

import pytest

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import API, APP_SECRET, BAKERY, PROFILE, Caller, code_from


def test_wrong_secret_is_refused_by_either_code(simulator: Simulator, client: Caller) -> None:
    code = code_from(simulator)
    assert client.exchange(code, client_secret="wrong")["code"] == 40113
    assert client.exchange(code, client_id="7999")["code"] == 40113
    simulator.configure(wrong_secret_code=40101)
    refused = client.exchange(code, client_secret="wrong")
    assert refused["code"] == 40101
    assert APP_SECRET not in str(refused)


@pytest.mark.parametrize("name", ["client_id", "client_secret", "auth_code", "redirect_uri"])
@pytest.mark.parametrize("value", ["", None])
def test_missing_field_is_named(
    simulator: Simulator, client: Caller, name: str, value: str | None
) -> None:
    refused = client.exchange(code_from(simulator), **{name: value})
    assert (refused["code"], refused["message"]) == (40002, f"Missing required field(s): {name}.")


def test_unknown_and_odd_fields_are_named(client: Caller) -> None:
    assert client.exchange("x", scope="a")["message"] == "Unknown field(s): scope."
    assert client.exchange("x", client_id=7)["message"] == "Must be a string: client_id."
    assert client.exchange("x", grant_type="refresh_token")["code"] == 40108
    assert client.refresh("x", grant_type="authorization_code")["code"] == 40108


def test_missing_header_is_refused_with_the_observed_text(
    simulator: Simulator, client: Caller
) -> None:
    answer = client.profile(None, business_id=simulator.open_id(BAKERY))
    assert answer["code"] == 40104
    assert answer["message"] == (
        "Access token is null, you should set it in http header with key Access-Token."
    )


def test_bearer_prefix_and_unknown_tokens_are_refused(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    for token in ("Bearer " + grant["access_token"], "act.SIMunknown", grant["refresh_token"]):
        answer = client.profile(token, business_id=grant["open_id"])
        assert answer["code"] == 40105
        assert answer["message"] == "Access token is incorrect or has been revoked."


def test_expired_access_token_is_refused(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    simulator.clock.advance(86_400)
    answer = client.profile(grant["access_token"], business_id=grant["open_id"])
    assert answer["code"] == 40102


def test_parameter_given_twice_is_named(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    response = client.session.get(
        API + PROFILE + "?business_id=a&business_id=b",
        headers={"Access-Token": grant["access_token"]},
    )
    assert response.json()["message"] == "Parameter given twice: business_id."
