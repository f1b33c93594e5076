"""``kill -9``: only accounts whose call was in flight at that moment may be affected."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from tests.support.engine import (
    Forks,
    Status,
    WatchedSimulator,
    end_waits,
    environment,
    in_status,
    make_due,
    not_live,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]

CONCURRENCY = 16
CLAIM_SECONDS = 6


def claims() -> dict[str, datetime]:
    """Which accounts are claimed, and until when."""
    rows = BusinessAccount.objects.exclude(claim_expires_at=None)
    return {
        open_id: expires_at
        for open_id, expires_at in rows.values_list("open_id", "claim_expires_at")
        if expires_at is not None
    }


def test_f02_f12_f15_kill_at_any_moment_costs_nothing_but_answers_on_their_way() -> None:
    # So many that no run finishes before it is killed, even if a busy machine kills it late.
    kills, count = (50, 3000) if connection.vendor == "postgresql" else (15, 900)
    moments = random.Random(12)
    # 16 calls at once, five times a second: a run takes longer than the tests let it live.
    simulator = WatchedSimulator(strict=True, latency_seconds=0.2)
    with simulator.serve() as base_url:
        open_ids = make_due(simulator, count)
        env = environment(
            base_url,
            REFRESH_CONCURRENCY=CONCURRENCY,
            REQUESTS_PER_MINUTE=0,
            CLAIM_SECONDS=CLAIM_SECONDS,
            REQUEST_TIMEOUT_SECONDS=2,
            MAX_ATTEMPTS=1,
        )
        in_flight: set[str] = set()
        before: dict[str, datetime] = {}
        with Forks(env) as forks:
            forks.await_ready()
            for _ in range(kills):
                pid = forks.begin()
                time.sleep(moments.uniform(0, 0.6))
                os.kill(pid, signal.SIGKILL)
                assert forks.end()[0] == -signal.SIGKILL
                time.sleep(0.05)  # the database still executes what it has received
                held = claims()
                new = {open_id for open_id in held if held[open_id] != before.get(open_id)}
                # In flight, or next: claimed early so that no thread has to wait for its row.
                assert len(new) <= CONCURRENCY * 1.5
                assert max(held.values(), default=timezone.now()) < timezone.now() + timedelta(
                    seconds=CLAIM_SECONDS
                )
                in_flight |= new
                before = held
            killed_at = time.monotonic()
            lost = not_live(simulator)
            assert lost
            assert lost <= in_flight
            untouched = set(open_ids) - in_flight
            assert len(untouched) > count / 5, "or it proves little"

            simulator.configure(latency_seconds=0)
            time.sleep(max(killed_at + CLAIM_SECONDS - time.monotonic(), 0))
            # If the previous worker has died, a second rejection counts.
            for _ in range(2):
                end_waits()
                forks.begin()
                assert forks.end()[1]["skipped"] == 0

        assert claims() == {}
        assert in_status(Status.REAUTHORIZATION_REQUIRED) == lost
        assert in_status(Status.ACTIVE) == set(open_ids) - lost
        assert not_live(simulator) == lost
        assert simulator.lost() == set(), "TikTok has answered all"
        assert {open_id for open_id in untouched if simulator.calls_of(open_id) != 1} == set()
