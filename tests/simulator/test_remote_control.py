from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import (
    APP_ID,
    APP_SECRET,
    BAKERY,
    NOW,
    REDIRECT_URI,
    SCOPES,
    TOKEN_INFO,
    Caller,
    authorize_url,
    query_of,
)


def control(address: str, name: str, **document: Any) -> dict[str, Any]:
    response = requests.post(f"{address}/_simulator/{name}", json=document, timeout=5)
    answer: dict[str, Any] = response.json()
    assert response.status_code == 200, answer
    return answer


def test_clock_by_remote_control(simulator: Simulator, address: str) -> None:
    assert control(address, "clock", advance=60) == {"now": NOW + 60}
    assert control(address, "clock", set=NOW + 5.5) == {"now": NOW + 5.5}
    assert simulator.clock.now() == NOW + 5.5


def test_faults_by_remote_control(simulator: Simulator, address: str) -> None:
    answer = control(address, "faults", fault="http_429", path=TOKEN_INFO, times=2, retry_after=5)
    assert answer == {"pending": [{"fault": "http_429", "path": TOKEN_INFO, "times": 2}]}
    url = address + "/open_api/v1.3" + TOKEN_INFO
    assert requests.post(url, json={}, timeout=5).headers["Retry-After"] == "5"
    assert control(address, "faults", clear=True) == {"pending": []}
    control(address, "faults", random={"rate": 1, "faults": ["html", ["code", {"code": 1}]]})
    answers = {requests.post(url, json={}, timeout=5).text[:9] for _ in range(40)}
    assert answers == {"<!DOCTYPE", '{"code":1'}


def test_settings_revoke_and_reset_by_remote_control(simulator: Simulator, address: str) -> None:
    answer = control(address, "settings", rotate="always", access_token_lifetime_seconds=60)
    assert answer["settings"]["rotate"] == "always"
    open_id = simulator.issue_grant("somebody new")["open_id"]
    assert control(address, "revoke", open_id=open_id) == {"revoked": True}
    assert control(address, "revoke", open_id=open_id) == {"revoked": False}
    simulator.clock.advance(5)
    simulator.fail_next("html", path="/nowhere/")
    simulator.issue_grant()
    assert control(address, "reset") == {"reset": True}
    summary = simulator.summary()
    assert summary["settings"]["rotate"] == "never"
    assert (summary["now"], summary["calls"], len(summary["accounts"])) == (NOW, 0, 6)
    assert (summary["grants"], summary["pending_faults"]) == ([], [])


@pytest.mark.parametrize(
    ("name", "document", "text"),
    [
        ("clock", {}, "advance"),
        ("clock", {"advance": 1, "set": 2}, "advance"),
        ("clock", {"set": 1, "forward": 2}, "advance"),
        ("clock", {"set": "tomorrow"}, "advance"),
        ("clock", {"set": float("inf")}, "the time must be Unix seconds below"),
        ("clock", {"advance": -1e12}, "the time must be Unix seconds below"),
        ("faults", {}, "needs ['code']"),
        ("faults", {"fault": "earthquake"}, "unknown fault"),
        ("faults", {"fault": "dns_failure"}, "cannot be simulated over HTTP"),
        ("faults", {"fault": "connection_refused"}, "cannot be simulated over HTTP"),
        (
            "faults",
            {"random": {"rate": 1, "faults": ["tls_failure"]}},
            "cannot be simulated over HTTP",
        ),
        (
            "faults",
            {"random": {"rate": 1, "faults": [["tls_failure", {}]]}},
            "cannot be simulated over HTTP",
        ),
        ("faults", {"random": {"rate": 1}}, "KeyError: 'faults'"),
        ("faults", {"random": {"rate": 1, "faults": [7]}}, "TypeError"),
        ("faults", {"random": {"rate": 1, "faults": ["html"], "speed": 1}}, "speed"),
        ("settings", {"rotation": "always"}, "unknown setting 'rotation'"),
        ("revoke", {"account": BAKERY}, "open_id"),
        ("reset", {"everything": True}, "send {}"),
    ],
)
def test_wrong_control_request_is_explained(
    address: str, name: str, document: dict[str, Any], text: str
) -> None:
    response = requests.post(
        f"{address}/_simulator/{name}",
        data=json.dumps(document),
        headers={"Content-Type": "application/json"},
        timeout=5,
    )
    assert response.status_code == 400
    assert text in response.json()["error"]


def test_control_needs_json_and_its_own_method(address: str, http: requests.Session) -> None:
    form = http.post(f"{address}/_simulator/reset", data={"a": "b"})
    assert form.status_code == 400
    assert form.json() == {"error": "Content-Type must be application/json."}
    assert http.get(f"{address}/_simulator/reset").status_code == 405
    assert http.get(f"{address}/_simulator/nothing").status_code == 404


def test_state_and_log_by_remote_control_hold_no_secret(
    simulator: Simulator, address: str, http: requests.Session
) -> None:
    simulator.add_app("7000000000000000002", "other-secret", redirect_uris=[REDIRECT_URI])
    code = query_of(simulator.authorize(authorize_url(state="secret-state")))["code"]
    client = Caller(http, address + "/open_api/v1.3")
    grant = client.exchange(code)["data"]
    client.profile(grant["access_token"], business_id=grant["open_id"])
    simulator.authorize(authorize_url(state="secret-state", disable_auto_auth="1"))
    state = http.get(f"{address}/_simulator/state/")
    log = http.get(f"{address}/_simulator/log")
    assert state.json()["grants"] == [
        {
            "app_id": APP_ID,
            "open_id": grant["open_id"],
            "account": BAKERY,
            "scopes": sorted(SCOPES.split(",")),
            "access_token_expires_in": 86_400,
            "refresh_token_expires_in": 31_536_000,
        }
    ]
    assert [call["code"] for call in log.json()["calls"]] == [None, None, 0, 0, None, None]
    everything = state.text + log.text + repr(simulator.calls) + repr(simulator.summary())
    secrets = ("act.SIM", "rft.SIM", "SIMcode", APP_SECRET, "other-secret", "secret-state")
    assert [secret for secret in secrets if secret in everything] == []
