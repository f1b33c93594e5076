from __future__ import annotations

import pytest

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import Caller


def test_account_holder_revokes(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    assert simulator.revoke_grant(grant["open_id"]) is True
    assert simulator.revoke_grant(grant["open_id"]) is False
    assert client.refresh(grant["refresh_token"])["code"] == 40107


@pytest.mark.parametrize("scopes", [[], ["video.fly"]])
def test_grant_of_impossible_scopes_cannot_be_made(simulator: Simulator, scopes: list[str]) -> None:
    with pytest.raises(ValueError, match="some of the app's"):
        simulator.issue_grant(scopes=scopes)
