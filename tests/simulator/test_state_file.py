from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from django_tiktok_business.simulator import Simulator, StateFileError
from tests.support.simulator_calls import authorize_url, frozen


def test_state_file_is_private_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    simulator = frozen(state_path=str(path))
    assert json.loads(path.read_text())["grants"] == {}
    simulator.issue_grant()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(json.loads(path.read_text())["grants"]) == 1
    written = path.stat().st_mtime_ns
    simulator.session().get(authorize_url(disable_auto_auth="1"))
    assert path.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [path]


def test_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for text in ("", "{", "[]", '{"kind": "shopping list"}'):
        path.write_text(text)
        with pytest.raises(StateFileError, match="not a state file of the TikTok simulator"):
            Simulator(state_path=path)
        assert path.read_text() == text
    path.write_bytes(b"\xff")
    with pytest.raises(StateFileError, match="cannot read the state file"):
        Simulator(state_path=path)
    assert path.read_bytes() == b"\xff"


def test_state_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    frozen(state_path=path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(StateFileError, match="another version"):
        Simulator(state_path=path)


def test_state_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateFileError, match="cannot write the state file"):
        Simulator(state_path=tmp_path / "nowhere" / "state.json")
    path = tmp_path / "state.json"
    simulator = frozen(state_path=path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StateFileError, match="cannot write the state file"):
        simulator.issue_grant()
    assert list(tmp_path.iterdir()) == [path]
