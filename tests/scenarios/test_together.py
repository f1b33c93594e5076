"""Several commands at the same time, as on several machines: each account is refreshed once."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.support.engine import WatchedSimulator, environment, run_together, wait_until
from tests.support.requires import program, require

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]


@pytest.fixture
def redis() -> Iterator[dict[str, Any]]:
    """The setting CACHES for a Redis of the test's own."""
    require("redis-server")
    server_program = str(program("redis-server"))
    with tempfile.TemporaryDirectory(prefix="django_tiktok_business-", dir="/tmp") as folder:
        path = Path(folder, "redis.sock")
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        with subprocess.Popen([server_program, *options], stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: _answers(path))
                backend = "django.core.cache.backends.redis.RedisCache"
                yield {"default": {"BACKEND": backend, "LOCATION": f"unix://{path}"}}
            finally:
                server.terminate()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


LOCAL_MEMORY = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


def commands(
    processes: int, caches: dict[str, Any], count: int, per_minute: int
) -> list[dict[str, Any]]:
    simulator = WatchedSimulator(strict=True, latency_seconds=0.05)
    with simulator.serve() as base_url:
        env = environment(
            base_url, caches=caches, REFRESH_CONCURRENCY=16, REQUESTS_PER_MINUTE=per_minute
        )
        return run_together(simulator, [env] * processes, count)


@pytest.mark.parametrize("processes", [2, 4])
def test_f16_commands_without_a_shared_cache_share_the_accounts(processes: int) -> None:
    # So many that no command finishes before the slowest one has started.
    count = 2000 if connection.vendor == "postgresql" and processes == 4 else 500
    commands(processes, LOCAL_MEMORY, count, per_minute=0)


@pytest.mark.parametrize("processes", [2, 4])
def test_f16_f53_commands_with_a_shared_cache_share_the_rate_limit_too(
    processes: int, redis: dict[str, Any]
) -> None:
    # So many that each command gets some: slots go to the first to ask, by chance.
    count = 400
    reports = commands(processes, redis, count, per_minute=3000)
    # 50 a second in all; each command alone could do as many.
    durations = [report["duration_seconds"] for report in reports]
    assert max(durations) > 0.95 * count / 50
    assert min(durations) > 0.5 * count / 50, "all have stayed"
