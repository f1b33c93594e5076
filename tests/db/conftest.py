"""TikTok, for tests about storing its answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_tiktok_business.simulator import Simulator
from tests.support.simulator import override_tiktok, running_simulator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator
