"""The simulator and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.simulator import Simulator
from tests.support.clients import client_of


@pytest.fixture
def simulator() -> Simulator:
    return Simulator()


@pytest.fixture
def client(simulator: Simulator) -> Iterator[TikTokClient]:
    with client_of(simulator.session) as client:
        yield client
