"""One clock for all machines: the database's, even if this machine's own is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_tiktok_business.db import clock

pytestmark = pytest.mark.django_db(transaction=True)

# Statements that pretend that the database's clock is three minutes ahead.
AHEAD = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp()) + 180",
    "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1000000 + 180",
}


@pytest.fixture(autouse=True)
def _nothing_measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clock, "_offset", clock._Offset())
    yield
    connection.close()  # because a test may have changed its session


def is_ahead(seconds: float) -> bool:
    offset = clock.now() - time.time()
    return abs(offset - seconds) < 1


def statements() -> int:
    with CaptureQueriesContext(connection) as queries:
        clock.synchronize("default")
    return len(queries)


def test_own_clock_is_used_until_another_was_measured() -> None:
    assert is_ahead(0)
    assert abs(clock.instant() - datetime.now(UTC)).total_seconds() < 5
    assert clock.instant().tzinfo is UTC


@pytest.mark.databases("sqlite")
def test_database_on_this_machine_is_not_asked() -> None:
    assert statements() == 0
    assert is_ahead(0)


@pytest.mark.databases("postgresql", "mysql")
def test_clock_of_the_same_machine_is_the_same() -> None:
    assert statements() == 1
    assert is_ahead(0)


@pytest.mark.databases("postgresql", "mysql")
def test_clock_of_the_databases_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_STATEMENTS", AHEAD)
    assert statements() == 1
    assert is_ahead(180)
    ahead = (clock.instant() - datetime.now(UTC)).total_seconds()
    assert ahead == pytest.approx(180, abs=1)


@pytest.mark.databases("postgresql", "mysql")
def test_it_is_measured_again_when_some_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert statements() == 1
    monkeypatch.setattr(clock, "_STATEMENTS", AHEAD)
    assert statements() == 0
    assert is_ahead(0)
    monkeypatch.setattr(clock, "SYNCHRONIZE_SECONDS", 0)
    assert statements() == 1
    assert is_ahead(180)


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.parametrize("zone", ["+00:00", "+11:00", "-08:00"])
def test_time_zone_of_the_session_does_not_matter(zone: str) -> None:
    choose = {
        "postgresql": f"SET TIME ZONE INTERVAL '{zone}' HOUR TO MINUTE",
        "mysql": f"SET time_zone = '{zone}'",
    }
    with connection.cursor() as cursor:
        cursor.execute(choose[connection.vendor])
    clock.synchronize("default")
    assert is_ahead(0)


@pytest.mark.databases("postgresql", "mysql")
def test_transaction_that_began_long_ago_does_not_hold_the_time() -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT NOW()")
        time.sleep(1.5)
        clock.synchronize("default")
    assert is_ahead(0)


@pytest.mark.databases("postgresql", "mysql")
def test_failing_database_leaves_the_last_measurement_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "SYNCHRONIZE_SECONDS", 0)
    monkeypatch.setattr(clock, "_STATEMENTS", AHEAD)
    clock.synchronize("default")
    monkeypatch.setattr(clock, "_STATEMENTS", dict.fromkeys(AHEAD, "SELECT no_such_function()"))
    clock.synchronize("default")
    assert is_ahead(180)
