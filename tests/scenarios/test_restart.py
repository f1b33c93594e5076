"""The database goes down in the middle of a run, and comes back."""

from __future__ import annotations

import json
import time

import pytest
from django.db import connection

from django_tiktok_business.models import BusinessAccount
from tests.support.engine import (
    REFRESH,
    Status,
    WatchedSimulator,
    environment,
    finish,
    in_status,
    make_due,
    not_live,
    start_command,
    wait_until,
)
from tests.support.private_servers import private_server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.databases("postgresql", "mysql"),
    pytest.mark.heavy,
]

AWAY_SECONDS = 1.5


def test_f02_f15_server_that_is_restarted_twice_costs_no_token() -> None:
    """Each refresh token works once, so an answer that is not saved is a lost connection."""
    count = 2000 if connection.vendor == "postgresql" else 300
    simulator = WatchedSimulator(strict=True, latency_seconds=0.1)
    with private_server(connection.vendor) as server, simulator.serve() as base_url:
        open_ids = make_due(simulator, count)
        connection.close()
        env = environment(
            base_url,
            REFRESH_CONCURRENCY=16,
            REQUESTS_PER_MINUTE=0,
        )
        process = start_command(env=env)
        for done, mode in ((count // 4, "fast"), (count // 2, "immediate")):
            while simulator.count(REFRESH) < done and process.poll() is None:
                time.sleep(0.01)
            server.stop(mode)
            time.sleep(AWAY_SECONDS)
            server.start()
            wait_until(server.answers)
        status, stdout, stderr = finish(process)

        assert "Traceback" not in stderr
        answer = json.loads(stdout)
        assert (status, answer["refreshed"], answer["stopped"]) == (0, count, None)
        assert simulator.count(REFRESH) == count, "nobody was asked twice"
        assert not_live(simulator) == set()
        assert in_status(Status.ACTIVE) == set(open_ids)
        assert not BusinessAccount.objects.exclude(claim_id="").exists()
