from __future__ import annotations

from typing import Any

import pytest

from django_tiktok_business.simulator import Clock, Simulator
from tests.support.simulator_calls import NOW


def test_clock_runs_with_real_time_by_default() -> None:
    clock = Clock()
    before = clock.now()
    clock.advance(100)
    assert 100 <= clock.now() - before < 200
    clock.set(NOW)
    assert NOW <= clock.now() < NOW + 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotate", "sometimes"),
        ("rate_limits", 1),
        ("wrong_secret_code", 40000),
        ("access_token_lifetime_seconds", 0),
        ("access_token_lifetime_seconds", 1.5),
        ("access_token_lifetime_seconds", True),
        ("latency_seconds", float("nan")),
        ("image_base_url", "ftp://x"),
        ("rotation", "always"),
    ],
)
def test_wrong_setting_is_named_and_nothing_changes(
    simulator: Simulator, name: str, value: Any
) -> None:
    before = simulator.summary()["settings"]
    with pytest.raises(ValueError, match=name):
        simulator.configure(code_lifetime_seconds=1, **{name: value})
    assert simulator.summary()["settings"] == before
