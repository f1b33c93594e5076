from __future__ import annotations

import pytest

from django_tiktok_business.simulator import ConsentPageError, Simulator
from tests.support.simulator_calls import API, NOW, PROFILE, Caller, authorize_url, caller, frozen


def test_wrong_address_of_the_page_is_no_consent(simulator: Simulator) -> None:
    with pytest.raises(ConsentPageError) as caught:
        simulator.authorize(authorize_url().replace("/v2/", "/v1/"))
    assert caught.value.page_text == "404 page not found"


def test_settings_given_explicitly_win_over_strict() -> None:
    simulator = frozen(strict=True, rotate="never")
    token = simulator.issue_grant()["refresh_token"]
    assert caller(simulator).refresh(token)["data"]["refresh_token"] == token


def test_log_holds_what_happened_and_no_secret(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    simulator.authorize(authorize_url())
    client.profile(grant["access_token"], business_id=grant["open_id"])
    client.refresh(grant["refresh_token"])
    client.session.get("https://x.example/favicon.ico")
    seen = [(call.method, call.path, call.code, call.status) for call in simulator.calls]
    assert seen == [
        ("GET", "/v2/auth/authorize", None, 302),
        ("GET", "/open_api/v1.3" + PROFILE, 0, 200),
        ("POST", "/open_api/v1.3/tt_user/oauth2/refresh_token/", 0, 200),
        ("GET", "/favicon.ico", None, 404),
    ]
    assert [call.open_id for call in simulator.calls] == [grant["open_id"]] * 3 + [None]
    assert {call.at for call in simulator.calls} == {NOW}
    assert simulator.count(PROFILE) == 1
    assert simulator.count("/oauth2/token/") == 0
    for text in ("act.", "rft.", "SIMcode", "simulator-app-secret", "state"):
        assert text not in repr(simulator.calls)


def test_calls_are_handed_on_as_they_happen() -> None:
    paths: list[str] = []
    simulator = frozen(on_call=lambda call: paths.append(call.path))
    simulator.session().get(API + PROFILE)
    assert paths == ["/open_api/v1.3" + PROFILE]


def test_latency_delays_api_answers_only() -> None:
    simulator = frozen(latency_seconds=0.05)
    session = simulator.session()
    assert session.get(API + PROFILE).elapsed.total_seconds() >= 0.05
    assert session.get(authorize_url()).elapsed.total_seconds() < 0.05
