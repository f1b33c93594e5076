"""The simulator that the doctor calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from django_tiktok_business.simulator import Simulator
from tests.support.simulator import override_tiktok, running_simulator


@pytest.fixture
def examined() -> Iterator[Simulator]:
    """A site without a fault that the doctor reports, and the TikTok that it calls."""
    # The tests use a cache that processes do not share, which W013 would report.
    silenced = override_settings(SILENCED_SYSTEM_CHECKS=["tiktok_business.W013"])
    with running_simulator(strict=True) as simulator, silenced, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator
