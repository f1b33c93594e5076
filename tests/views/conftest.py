"""Fixtures for the tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from django_tiktok_business.simulator import Simulator
from tests.support.simulator import override_tiktok, running_simulator
from tests.support.visits import log_in


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    cache.clear()
    with override_tiktok(MAX_ATTEMPTS=1), running_simulator() as simulator:
        yield simulator


@pytest.fixture
def ada(db: None, client: Client) -> User:
    return log_in(client)
