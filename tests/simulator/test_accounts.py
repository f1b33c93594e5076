from __future__ import annotations

from typing import Any

import pytest

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import BAKERY, SYNC_FIELDS, ask_profile


def test_ready_made_accounts_are_varied(simulator: Simulator) -> None:
    profiles = {
        name: ask_profile(simulator, *SYNC_FIELDS, account=name)["data"]
        for name in simulator.summary()["accounts"]
    }
    assert len(profiles) == 6
    assert any(not profile["is_business_account"] for profile in profiles.values())
    assert any(profile["is_verified"] for profile in profiles.values())
    assert any(profile["bio_description"] == "" for profile in profiles.values())
    assert any(not profile["display_name"][0].isascii() for profile in profiles.values())
    assert any("<b>" in profile["display_name"] for profile in profiles.values())
    assert max(profile["total_likes"] for profile in profiles.values()) > 2**32


def test_profile_can_be_changed(simulator: Simulator) -> None:
    simulator.set_profile(BAKERY, followers_count=7, username="renamed", profile_image="")
    data = ask_profile(simulator, "followers_count", "username", "profile_image")["data"]
    assert data == {"followers_count": 7, "username": "renamed", "profile_image": ""}
    simulator.set_profile(BAKERY, profile_image=None)
    assert ask_profile(simulator, "profile_image")["data"]["profile_image"].startswith(
        "https://p16-"
    )


@pytest.mark.parametrize(
    "changes", [{"followers": 7}, {"key": "x"}, {"followers_count": "7"}, {"username": None}]
)
def test_wrong_profile_field_is_named(simulator: Simulator, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        simulator.set_profile(BAKERY, **changes)


def test_any_number_of_accounts_can_be_made(simulator: Simulator) -> None:
    grants = [simulator.issue_grant(f"account_{n:04}") for n in range(500)]
    assert len({grant["open_id"] for grant in grants}) == 500
    data = ask_profile(simulator, "display_name", account="account_0001")["data"]
    assert data["display_name"] == "Account 0001"
