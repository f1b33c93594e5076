"""Wrong clocks, clocks that jump, and local times that occur twice or never."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from tests.support.engine import (
    REFRESH,
    Forks,
    WatchedSimulator,
    environment,
    in_status,
    make_due,
    not_live,
    run_together,
    wait_until,
    watched_simulator,
)
from tests.support.factories import connect
from tests.support.private_servers import private_server
from tests.support.requires import faketime, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.django_db(transaction=True)

OFF_SECONDS = 180
ZONE = "Europe/Berlin"


def shifted(seconds: float) -> dict[str, str]:
    """The environment of a process whose clock is off by this much; the monotonic one is right."""
    require("faketime")
    return {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME": f"{seconds:+.3f}",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def off_by(base_url: str, seconds: float, **options: Any) -> dict[str, str]:
    keys = {"REFRESH_CONCURRENCY": 8, "REQUESTS_PER_MINUTE": 0, **options}
    return environment(base_url, variables=shifted(seconds) if seconds else {}, **keys)


@pytest.mark.heavy
@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.parametrize("arguments", [[], ["--all"]], ids=["due", "all"])
def test_f16_f19_machines_whose_clocks_are_minutes_off_share_the_work(
    arguments: list[str],
) -> None:
    """A claim is respected even if the clocks differ by more than its lifetime."""
    simulator = WatchedSimulator(strict=True, latency_seconds=0.3)
    with simulator.serve() as base_url:
        keys = {"CLAIM_SECONDS": 60, "REQUEST_TIMEOUT_SECONDS": 10}
        envs = [off_by(base_url, off, **keys) for off in (0, OFF_SECONDS, -OFF_SECONDS)]
        run_together(simulator, envs, 150, *arguments)
        for row in BusinessAccount.objects.all():
            expires_at = row.access_token_expires_at
            assert expires_at is not None
            # Within the margin that every use of a token keeps, so no dead token is used.
            difference = expires_at - timezone.now() - timedelta(days=1)
            assert abs(difference) < timedelta(seconds=OFF_SECONDS + 60)
            before = simulator.count(REFRESH)
            services.get_access_token(row)
            assert simulator.count(REFRESH) == before


@contextmanager
def database_in(zone: str) -> Iterator[Callable[[float], None]]:
    """A database in a zone with daylight saving time; yields a function that sets its clock.

    SQLite has the clock of the process that uses it.
    """
    if connection.vendor == "sqlite":
        yield lambda seconds: None
        return
    with private_server(connection.vendor, TZ=zone) as server:

        def set_off_by(seconds: float) -> None:
            connection.close()
            server.stop()
            server.variables |= shifted(seconds)
            server.start()
            wait_until(server.answers)

        yield set_off_by


@pytest.mark.parametrize(
    "change",
    [datetime(2027, 3, 28, 1, tzinfo=UTC), datetime(2027, 10, 31, 1, tzinfo=UTC)],
    ids=["an hour is left out", "an hour is repeated"],
)
def test_f12_f17_change_to_or_from_daylight_saving_time_changes_no_claim_and_no_expiry(
    change: datetime,
) -> None:
    claim_seconds, count = 6, 30
    simulator = WatchedSimulator(
        rotate="always", old_refresh_valid="until_successor_used", latency_seconds=0.3
    )

    def seconds_to_change() -> float:
        now = datetime.now(UTC) + timedelta(seconds=off_seconds)
        return (change - now).total_seconds()

    with database_in(ZONE) as set_off_by, simulator.serve() as base_url:
        open_ids = make_due(simulator, count)
        BusinessAccount.objects.update(access_token_expires_at=change)
        # Enough time for a server and a process to start.
        begins_at = change - timedelta(seconds=7)
        off_seconds = (begins_at - datetime.now(UTC)).total_seconds()
        set_off_by(off_seconds)
        keys = {"CLAIM_SECONDS": claim_seconds, "REQUEST_TIMEOUT_SECONDS": 2, "MAX_ATTEMPTS": 1}
        env = off_by(base_url, off_seconds, **keys)
        env |= {"TEST_PROCESS_TIME_ZONE": ZONE, "TZ": ZONE}
        with Forks(env) as forks:
            forks.await_ready()
            assert seconds_to_change() > 1.5, "this machine is too slow for the test"
            time.sleep(seconds_to_change() - 1)
            pid = forks.begin()
            time.sleep(max(seconds_to_change() - 0.1, 0.2))
            os.kill(pid, signal.SIGKILL)
            forks.end()
            time.sleep(0.1)
            killed_at = time.monotonic()
            held = set(
                BusinessAccount.objects.exclude(claim_id="").values_list("open_id", flat=True)
            )
            assert held

            simulator.configure(latency_seconds=0)
            time.sleep(max(seconds_to_change(), 0))
            forks.begin("--limit", "12")
            forks.end()
            assert time.monotonic() - killed_at < claim_seconds - 0.5, "or it proves nothing"
            still = BusinessAccount.objects.exclude(claim_id="").values_list("open_id", flat=True)
            assert set(still) == held, "a claim ended with the hour"

            time.sleep(max(killed_at + claim_seconds - time.monotonic(), 0))
            forks.begin()
            assert forks.end()[1]["skipped"] == 0, "a claim lives for an hour longer"
        assert not_live(simulator) == set()
        assert in_status("active") == set(open_ids)
        latest = change + timedelta(days=1, seconds=30)
        for expires_at in BusinessAccount.objects.values_list("access_token_expires_at", flat=True):
            assert expires_at is not None
            assert change + timedelta(days=1, seconds=-30) < expires_at < latest


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_f17_naive_expiry_is_no_expiry_in_any_zone(zone: str) -> None:
    """14 hours ahead of UTC and 11 behind: read as local time, an instant would be far off."""
    with watched_simulator(strict=True) as simulator, timezone.override(zone):
        account = connect(simulator)
        dead = connect(simulator, "bike_shop", access_token_expires_at=timezone.now())
        for row in (account, dead):
            row.access_token_expires_at = datetime(2100, 1, 1)  # noqa: DTZ001 -- that is the point
        assert services.get_access_token(account) == account.access_token
        assert simulator.count(REFRESH) == 0, "the row says that it is good"
        token = services.get_access_token(dead)
        assert simulator.count(REFRESH) == 1
        live = simulator.live_tokens(dead.open_id)
        assert live is not None
        assert token == live[0]
        assert dead.access_token_expires_at is not None
        assert timezone.is_aware(dead.access_token_expires_at)
