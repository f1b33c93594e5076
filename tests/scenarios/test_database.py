"""A read-only or full database: a clear message, exit status 2, and nothing half-written."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.backends.signals import connection_created
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from tests.support.engine import (
    REFRESH,
    WatchedSimulator,
    environment,
    finish,
    make_due,
    not_live,
    run,
    start_command,
    wait_until,
    watched_simulator,
)
from tests.support.private_servers import private_server

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

pytestmark = pytest.mark.django_db(transaction=True)


def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in BusinessAccount.objects.order_by("pk").values()]


def read_only() -> dict[str, Any]:
    """Connection settings with which a process can only read the test database."""
    name = connection.settings_dict["NAME"]
    ways: dict[str, dict[str, Any]] = {
        "postgresql": {"OPTIONS": {"options": "-c default_transaction_read_only=on"}},
        "mysql": {"OPTIONS": {"init_command": "SET SESSION TRANSACTION READ ONLY"}},
        "sqlite": {"NAME": f"file:{name}?mode=ro", "OPTIONS": {"uri": True}},
    }
    return ways[connection.vendor]


def assert_says_clearly(stderr: str) -> None:
    (line,) = [line for line in stderr.splitlines() if line.startswith("CommandError: ")]
    assert "database" in line
    assert "Traceback" not in stderr
    assert "UPDATE" not in stderr, "the statement may quote a row"


def test_f55_read_only_database_is_known_before_tiktok_is_asked() -> None:
    simulator = WatchedSimulator(strict=True)
    with simulator.serve() as base_url:
        make_due(simulator, 50)
        before = rows()
        process = start_command(env=environment(base_url, server=read_only()))
        status, stdout, stderr = finish(process)
    assert (status, stdout) == (2, "")
    assert_says_clearly(stderr)
    assert "read-only" in stderr
    assert simulator.count(REFRESH) == 0
    assert rows() == before


def fill_the_disk() -> str:
    """A statement after which SQLite lets a connection add no page to the database."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")
        cursor.execute("PRAGMA page_count")
        (pages,) = cursor.fetchone()
    return f"PRAGMA max_page_count = {pages}"


@pytest.mark.databases("sqlite")
def test_f55_disk_that_is_full_before_anything_is_claimed_costs_no_call() -> None:
    simulator = WatchedSimulator(strict=True)
    with simulator.serve() as base_url:
        make_due(simulator, 100)
        # Rows of many sizes, so that some pages have no room for a claim.
        for number, pk in enumerate(BusinessAccount.objects.values_list("pk", flat=True)):
            BusinessAccount.objects.filter(pk=pk).update(bio="x" * (900 + 10 * number))
        full = {"OPTIONS": {"init_command": fill_the_disk()}}
        before = rows()
        env = environment(base_url, server=full, REFRESH_CONCURRENCY=64)
        status, stdout, stderr = finish(start_command(env=env))
    assert (status, stdout) == (2, "")
    assert_says_clearly(stderr)
    assert "full" in stderr
    assert simulator.count(REFRESH) == 0
    assert rows() == before


@pytest.mark.databases("sqlite")
def test_f02_answers_are_kept_while_the_disk_is_full() -> None:
    """Claims fit, TikTok's answers do not, until somebody makes room."""
    with watched_simulator(strict=True) as simulator:
        make_due(simulator, 60)
        # Room for the claims, whatever the lengths of the rows.
        BusinessAccount.objects.update(claim_id="x" * 32, claim_expires_at=timezone.now())
        statement = fill_the_disk()
        BusinessAccount.objects.update(claim_id="", claim_expires_at=None)
        is_full = threading.Event()
        is_full.set()

        def limit(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
            if is_full.is_set():
                met.append(True)
                with connection.cursor() as cursor:
                    cursor.execute(statement)

        met: list[bool] = []
        connection.close()
        connection_created.connect(limit)
        timer = threading.Timer(1.5, is_full.clear)
        timer.start()
        try:
            status, report = run()
        finally:
            connection_created.disconnect(limit)
            timer.join()
        assert len(met) > 1, "it was full, and tried again"
        assert (status, report["refreshed"]) == (0, 60)
        assert simulator.count(REFRESH) == 60
        assert not_live(simulator) == set()


@pytest.mark.databases("postgresql")
def test_f02_database_that_is_read_only_for_a_while_is_waited_for() -> None:
    """A standby that takes over is read-only until it is promoted."""
    simulator = WatchedSimulator(strict=True, latency_seconds=0.2)
    with private_server(connection.vendor), simulator.serve() as base_url:
        make_due(simulator, 120)
        process = start_command(env=environment(base_url, REFRESH_CONCURRENCY=8))
        wait_until(lambda: simulator.count(REFRESH) >= 30)
        set_read_only("on")
        count = simulator.count(REFRESH)
        with pytest.raises(AssertionError):
            wait_until(lambda: simulator.count(REFRESH) > count + 8, timeout=1.5)
        set_read_only("off")
        status, _, stderr = finish(process)
        assert (status, simulator.count(REFRESH)) == (0, 120), stderr
        assert not_live(simulator) == set()


def set_read_only(value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        cursor.execute("SELECT pg_reload_conf()")
