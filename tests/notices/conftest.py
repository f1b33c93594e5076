"""The simulator, an owner with an address, and NOTIFY for the tests of notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from django_tiktok_business.simulator import Simulator
from tests.support.factories import make_user
from tests.support.notices import (
    LOCMEM,
    OPS,
    mailing_with,
)
from tests.support.simulator import override_tiktok, running_simulator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator:
        yield simulator


@pytest.fixture
def ada() -> User:
    return make_user("ada", email="ada@example.com")


@pytest.fixture(autouse=True)
def _notify() -> Iterator[None]:
    with override_tiktok(NOTIFY=["owner", OPS], MAX_ATTEMPTS=1), mailing_with(LOCMEM):
        yield
