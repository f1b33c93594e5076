"""The simulator that the tests of the tokens call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_tiktok_business.api import rate_limit
from django_tiktok_business.simulator import Simulator
from tests.support.batches import ACCOUNTS, make_due
from tests.support.simulator import override_tiktok, running_simulator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """The hardest TikTok: each token works once, and the old ones die at once."""
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """TikTok with four accounts that are due, the first the most urgent; pauses are short."""
    monkeypatch.setattr(rate_limit, "FIVE_MINUTES", 0.6)
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        for minutes, name in enumerate(ACCOUNTS):
            make_due(simulator, name, minutes)
        yield simulator
