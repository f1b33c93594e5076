"""The simulator that the commands call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_tiktok_business.simulator import Simulator
from tests.support.simulator import override_tiktok, running_simulator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """The strictest TikTok, called once for each account, two accounts at a time."""
    keys = {"MAX_ATTEMPTS": 1, "REQUESTS_PER_MINUTE": 0, "REFRESH_CONCURRENCY": 2}
    with running_simulator(strict=True) as simulator, override_tiktok(**keys):
        yield simulator
