"""Fixtures for the tests of the admin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import Client
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Call, Simulator
from tests.support.administrators import log_in_root
from tests.support.factories import connect
from tests.support.simulator import running_simulator


@pytest.fixture
def root(db: None, client: Client) -> Client:
    log_in_root(client)
    return client


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator:
        yield simulator


@pytest.fixture
def account(db: None, simulator: Simulator) -> BusinessAccount:
    return connect(simulator, display_name="Harbour Bakery")


@pytest.fixture
def reconnected_meanwhile(db: None) -> Iterator[Simulator]:
    """A simulator during whose calls somebody connects the accounts again."""

    def connect_again(call: Call) -> None:
        BusinessAccount.objects.update(connected_at=timezone.now())

    with running_simulator(on_call=connect_again) as simulator:
        yield simulator
