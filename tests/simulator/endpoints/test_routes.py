from __future__ import annotations

import pytest
import requests

from tests.support.simulator_calls import API, REFRESH, REVOKE, TOKEN, TOKEN_INFO, Caller


@pytest.mark.parametrize("path", [TOKEN, REFRESH, REVOKE, TOKEN_INFO])
def test_wrong_method_and_missing_slash_are_not_json(client: Caller, path: str) -> None:
    wrong_method = client.session.get(API + path)
    assert wrong_method.status_code == 405
    no_slash = client.session.post(API + path[:-1], json={})
    assert (no_slash.status_code, no_slash.text) == (404, "404 page not found")
    for response in (wrong_method, no_slash):
        assert response.headers["Content-Type"].startswith("text/plain")
        with pytest.raises(requests.JSONDecodeError):
            response.json()
