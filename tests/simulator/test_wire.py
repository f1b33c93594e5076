from __future__ import annotations

import pytest

from tests.support.simulator_calls import API, TOKEN, Caller, caller, frozen


def test_non_ascii_names_travel_as_utf_8() -> None:
    simulator = frozen()
    grant = simulator.issue_grant("mika_bakes")
    answer = caller(simulator).profile(grant["access_token"], business_id=grant["open_id"])
    assert answer["data"]["display_name"] == "田中 美香のパン工房"


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"{}", "application/x-www-form-urlencoded", "Content-Type must be application/json."),
        (b"{", "application/json", "The body is not valid JSON."),
        (b"\xff", "application/json; charset=utf-8", "The body is not valid JSON."),
        (b"[]", "application/json", "The body is not a JSON object."),
    ],
)
def test_body_that_is_no_json_object(
    client: Caller, body: bytes, content_type: str, message: str
) -> None:
    response = client.session.post(API + TOKEN, data=body, headers={"Content-Type": content_type})
    assert response.status_code == 200
    assert response.json()["code"] == 40002
    assert response.json()["message"] == message
