from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from django_tiktok_business.simulator import Simulator, StateFileError
from tests.support.simulator_calls import (
    BAKERY,
    NOW,
    REFRESH,
    Caller,
    authorize_url,
    caller,
    frozen,
    query_of,
)


def test_one_lock_keeps_parallel_refreshes_apart() -> None:
    simulator = frozen(strict=True)
    token = simulator.issue_grant()["refresh_token"]
    with simulator.serve() as base_url, ThreadPoolExecutor(8) as pool:

        def refresh(_: int) -> int:
            with requests.Session() as session:
                code: int = Caller(session, base_url + "/open_api/v1.3").refresh(token)["code"]
                return code

        codes = list(pool.map(refresh, range(16)))
    assert sorted(codes) == [0] + [40107] * 15
    assert simulator.count(REFRESH) == 16


def test_state_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = frozen(state_path=path, rotate="always", old_refresh_valid="until_successor_used")
    pending = query_of(first.authorize(authorize_url(), account="lena.draws"))["code"]
    old = first.issue_grant("somebody new")
    new = caller(first).refresh(old["refresh_token"])["data"]
    first.set_profile(BAKERY, followers_count=7)
    first.move_clock(advance_seconds=100)

    second = frozen(state_path=path, rotate="always", old_refresh_valid="until_successor_used")
    client = caller(second)
    assert second.clock.now() == NOW + 100
    assert second.live_tokens(new["open_id"]) == (new["access_token"], new["refresh_token"])
    assert client.exchange(pending)["code"] == 0
    answer = client.refresh(new["refresh_token"])["data"]
    assert answer["refresh_token_expires_in"] == 31_536_000 - 100
    assert client.refresh(old["refresh_token"])["code"] == 40107
    grant = second.issue_grant()
    profile = client.profile(
        grant["access_token"], business_id=grant["open_id"], fields='["followers_count"]'
    )
    assert profile["data"] == {"followers_count": 7}

    third = frozen(state_path=path)
    assert caller(third).exchange(pending)["code"] == 40131
    third.revoke_grant(grant["open_id"])
    assert frozen(state_path=path).live_tokens(grant["open_id"]) is None


def test_state_file_can_be_read_without_being_written(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = frozen()
    grant = first.issue_grant()
    first.save(path)
    stored = path.read_text()

    second = frozen(state_path=path, saves_state=False, rotate="always")
    answer = caller(second).refresh(grant["refresh_token"])
    assert answer["data"]["refresh_token"] != grant["refresh_token"]
    assert path.read_text() == stored


def test_tokens_are_on_disk_before_the_answer_goes_wrong(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    simulator = frozen(state_path=path, strict=True)
    grant = simulator.issue_grant()
    simulator.fail_next("timeout_after")
    with pytest.raises(requests.ReadTimeout):
        caller(simulator).refresh(grant["refresh_token"])
    assert simulator.live_tokens(grant["open_id"]) != (
        grant["access_token"],
        grant["refresh_token"],
    )
    stored = frozen(state_path=path)
    assert stored.live_tokens(grant["open_id"]) == simulator.live_tokens(grant["open_id"])


def stored_state(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "good.json"
    simulator = frozen(state_path=path)
    simulator.authorize(authorize_url())
    simulator.issue_grant()
    state: dict[str, Any] = json.loads(path.read_text())
    return state


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("grants"),
        lambda state: state.pop("clock_offset_seconds"),
        lambda state: state.update(accounts=[]),
        lambda state: state.update(codes=7),
        lambda state: state["accounts"].pop(BAKERY),
        lambda state: state["accounts"][BAKERY].update(shoe_size=44),
        lambda state: state["access_tokens"].clear(),
        lambda state: state["refresh_tokens"].clear(),
        lambda state: state["grants"].clear(),
        lambda state: next(iter(state["grants"].values())).update(scopes=[]),
        lambda state: next(iter(state["grants"].values())).update(scopes="user.info.basic"),
        lambda state: next(iter(state["codes"].values())).update(expires_at="soon"),
        lambda state: next(iter(state["codes"].values())).update(colour="red"),
        lambda state: next(iter(state["codes"].values())).pop("redirect_uri"),
    ],
)
def test_damaged_state_file_is_refused_and_left_alone(tmp_path: Path, damage: Any) -> None:
    state = stored_state(tmp_path)
    damage(state)
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state))
    with pytest.raises(StateFileError, match="is damaged"):
        Simulator(state_path=path)
    assert json.loads(path.read_text()) == state
