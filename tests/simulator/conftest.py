"""A simulator whose clock stands still, in process and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import Caller, caller, frozen


@pytest.fixture
def simulator() -> Simulator:
    return frozen()


@pytest.fixture
def client(simulator: Simulator) -> Caller:
    return caller(simulator)


@pytest.fixture
def address(simulator: Simulator) -> Iterator[str]:
    with simulator.serve() as base_url:
        yield base_url


@pytest.fixture
def http(address: str) -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session
