"""The rate limit on real caches: who gets which slot, and how long all processes pause."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import override_settings

from django_tiktok_business import cache as cache_module
from django_tiktok_business.api import rate_limit
from django_tiktok_business.api.rate_limit import (
    BATCH,
    ON_DEMAND,
    WHEN_IDLE,
    RateLimiter,
    shared_limiter,
)
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import RateLimitError
from tests.support.processes import wait_until
from tests.support.requires import program, require

REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/5")
NOON = 1_795_348_800.0  # 2026-11-22 12:00:00 UTC
RESTRICTED = "Due to too many requests, requests from App are temporarily restricted."
TOO_MANY_A_SECOND = "App reaches the QPS limit."
UNKNOWN = "Slow down, please."
BACKENDS = {
    "local_memory": "locmem.LocMemCache",
    "redis": "redis.RedisCache",
    "memcached": "memcached.PyMemcacheCache",
    "database_table": "db.DatabaseCache",
}


class Time:
    """The shared clock, set by hand so that slots can be calculated."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shared_time(monkeypatch: pytest.MonkeyPatch) -> Time:
    shared_time = Time(NOON)
    monkeypatch.setattr(clock, "now", shared_time)
    return shared_time


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def memcached() -> Iterator[str]:
    require("memcached")
    port = free_port()
    path = str(program("memcached"))
    arguments = [path, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "16", "-u", "nobody"]
    process = subprocess.Popen(arguments)
    try:
        wait_until(lambda: answers(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def database_table(transactional_db: None) -> Iterator[str]:
    name = "cache_of_the_limiter"
    with override_settings(CACHES=in_use("db.DatabaseCache", name)):
        call_command("createcachetable", verbosity=0)
        yield name
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {connection.ops.quote_name(name)}")


def in_use(backend: str, location: str) -> dict[str, dict[str, Any]]:
    return {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "shared": {
            "BACKEND": f"django.core.cache.backends.{backend}",
            "LOCATION": location,
            "KEY_PREFIX": uuid.uuid4().hex,  # suites on other databases use the same servers
        },
    }


@pytest.fixture(params=["local_memory", "redis", "memcached", "database_table"])
def shared_cache(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[None]:
    """A cache of each kind, as "shared"."""
    kind: str = request.param
    location = "shared"
    if kind in ("memcached", "database_table"):
        location = request.getfixturevalue(kind)
    elif kind == "redis":
        require("redis")
        location = REDIS_URL
    with override_settings(CACHES=in_use(BACKENDS[kind], location)):
        yield
        caches["shared"].close()


@pytest.fixture
def local_memory() -> Iterator[None]:
    with override_settings(CACHES=in_use("locmem.LocMemCache", uuid.uuid4().hex)):
        yield


def new_limiter(per_minute: int, app_id: str = "app") -> RateLimiter:
    """A limiter as each process has its own."""
    return RateLimiter(per_minute, app_id=app_id, cache_alias="shared")


def refusal(message: str, retry_after: float | None = None) -> RateLimitError:
    error = RateLimitError(message, code=40100)
    error.retry_after = retry_after
    return error


def slot_seconds(per_minute: int) -> float:
    return 60.6 / per_minute


def all_slots(limiter: RateLimiter, ahead_seconds: float) -> list[float]:
    waits: list[float] = []
    while (wait := limiter.reserve(ahead_seconds)) is not None:
        waits.append(wait)
    return waits


# Slots


@pytest.mark.usefixtures("shared_cache")
def test_processes_share_the_slots_and_these_are_spread_evenly(shared_time: Time) -> None:
    processes = [new_limiter(120) for _ in range(3)]
    begins: list[float] = []
    while None not in (waits := [process.reserve(ON_DEMAND) for process in processes]):
        begins.extend(shared_time.now + wait for wait in waits if wait is not None)
    begins.extend(shared_time.now + wait for wait in waits if wait is not None)

    # The slot of this moment and all that begin in the next ten seconds, each once.
    slot = slot_seconds(120)
    first = int(shared_time.now // slot)
    expected = [number * slot for number in range(first, int((shared_time.now + 10) // slot) + 1)]
    assert begins == pytest.approx([shared_time.now, *expected[1:]], abs=1e-5)


@pytest.mark.usefixtures("shared_cache")
def test_threads_and_processes_never_get_one_slot_twice(shared_time: Time) -> None:
    processes = [new_limiter(120) for _ in range(3)]
    barrier = threading.Barrier(6)

    def take(process: RateLimiter) -> list[float]:
        barrier.wait(timeout=30)
        try:
            return all_slots(process, ON_DEMAND)
        finally:
            caches["shared"].close()
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        taken = [wait for waits in pool.map(take, processes * 2) for wait in waits]
    # Two threads that want one slot of a SQLite file can both fail: the slot is lost, not doubled.
    assert 10 <= len(taken) <= 21
    assert len({round(wait, 3) for wait in taken}) == len(taken)


@pytest.mark.usefixtures("local_memory")
@pytest.mark.parametrize("per_minute", [300, 600, 6000])
def test_no_minute_holds_more_calls_than_it_may(shared_time: Time, per_minute: int) -> None:
    """Two processes take all slots they can, for batches and when idle, for three minutes."""
    processes = [new_limiter(per_minute), new_limiter(per_minute)]
    sent_at: list[float] = []
    while shared_time.now < NOON + 180:
        for process, ahead_seconds in zip(processes, (BATCH, WHEN_IDLE), strict=True):
            waits = all_slots(process, ahead_seconds)
            sent_at.extend(shared_time.now + wait for wait in waits)
        shared_time.now += 0.17
    sent_at.sort()
    most = max(bisect_left(sent_at, begin + 60.0) - number for number, begin in enumerate(sent_at))
    assert most <= per_minute
    assert len(sent_at) >= 0.97 * 3 * per_minute, "nearly all that is allowed is used"


@pytest.mark.usefixtures("local_memory")
@pytest.mark.parametrize("per_minute", [1, 2, 10, 60, 101, 600])
def test_call_that_is_late_in_its_slot_is_not_one_too_many(
    shared_time: Time, per_minute: int
) -> None:
    """As late as possible in the first slot, as early as possible in the others."""
    process = new_limiter(per_minute)
    slot = slot_seconds(per_minute)
    begin = slot * (shared_time.now // slot + 1)
    step = min(slot / 50, 0.1)
    shared_time.now = begin + slot
    wait = None
    while wait is None:  # back from the end of the slot until it is given
        shared_time.now -= step
        wait = process.reserve(WHEN_IDLE)
    sent_at = [shared_time.now]
    for number in range(1, per_minute + 3):
        shared_time.now = begin + number * slot + 1e-4
        assert process.reserve(WHEN_IDLE) == 0
        sent_at.append(shared_time.now)
    assert len(sent_at) == per_minute + 3
    assert sum(moment < sent_at[0] + 60 for moment in sent_at) <= per_minute


@pytest.mark.usefixtures("local_memory")
def test_on_demand_calls_come_first_then_batches_then_profiles(shared_time: Time) -> None:
    profiles, batch, on_demand = (new_limiter(600) for _ in range(3))
    assert profiles.reserve(WHEN_IDLE) == 0
    assert profiles.reserve(WHEN_IDLE) is None
    in_batch = all_slots(batch, BATCH)
    assert len(in_batch) == 2
    assert max(in_batch) <= BATCH
    wait = on_demand.reserve(ON_DEMAND)
    assert wait is not None
    assert max(in_batch) < wait <= max(in_batch) + 0.11
    # On-demand calls may take all slots of the next ten seconds before a batch gets one.
    assert len(all_slots(on_demand, ON_DEMAND)) > 90
    shared_time.now += 9.5
    assert batch.reserve(BATCH) is None
    assert profiles.reserve(WHEN_IDLE) is None
    shared_time.now += 1
    assert batch.reserve(BATCH) is not None


@pytest.mark.usefixtures("local_memory")
def test_wait_seconds_last_until_another_try_succeeds(shared_time: Time) -> None:
    process = new_limiter(60)
    assert process.reserve(ON_DEMAND) == 0
    assert process.reserve(BATCH) is None
    wait = process.wait_seconds(BATCH)
    assert 0 < wait <= slot_seconds(60)
    shared_time.now += wait - 0.01
    assert process.reserve(BATCH) is None
    shared_time.now += 0.02
    reserved = process.reserve(BATCH)
    assert reserved is not None
    assert reserved == pytest.approx(BATCH, abs=0.02)


@pytest.mark.usefixtures("local_memory")
def test_apps_and_numbers_have_slots_of_their_own(shared_time: Time) -> None:
    assert new_limiter(60).reserve(WHEN_IDLE) == 0
    assert new_limiter(60).reserve(WHEN_IDLE) is None
    assert new_limiter(60, app_id="another app").reserve(WHEN_IDLE) == 0
    assert new_limiter(61).reserve(WHEN_IDLE) == 0


@pytest.mark.usefixtures("local_memory")
def test_zero_is_no_limit(shared_time: Time) -> None:
    process = new_limiter(0)
    assert [process.reserve(WHEN_IDLE) for _ in range(1000)] == [0.0] * 1000
    assert process.wait_seconds(WHEN_IDLE) == 0


def test_one_process_shares_one_limiter_for_the_same_arguments() -> None:
    one = shared_limiter(60, app_id="app", cache_alias="default")
    assert shared_limiter(60, app_id="app", cache_alias="default") is one
    assert shared_limiter(61, app_id="app", cache_alias="default") is not one


def test_slot_in_the_database_is_taken_before_the_caller_s_transaction_ends(
    database_table: str, shared_time: Time
) -> None:
    """A rollback does not free the slot: the call is made all the same."""
    process, other, third = (new_limiter(60) for _ in range(3))
    with transaction.atomic():
        assert process.reserve(WHEN_IDLE) == 0
        assert other.reserve(WHEN_IDLE) is None
        transaction.set_rollback(True)
    assert third.reserve(WHEN_IDLE) is None
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {database_table}")
        assert cursor.fetchone() == (1,)


@pytest.mark.databases("sqlite")
def test_cache_that_the_caller_s_transaction_locks_counts_as_failing(
    database_table: str, shared_time: Time
) -> None:
    """Django returns the same for a slot that it cannot write as for one that is taken."""
    process = new_limiter(60)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {database_table}")  # from here on only we may write
        waits = all_slots(process, ON_DEMAND)
    assert 10 <= len(waits) <= 11
    assert len(set(waits)) == len(waits)


@pytest.mark.usefixtures("database_table")
@pytest.mark.databases("sqlite")
def test_cache_is_written_in_the_caller_s_transaction_that_locks_it_from_its_beginning(
    shared_time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection would wait for the lock until SQLite's time-out, three times."""
    monkeypatch.setattr(connection, "transaction_mode", "IMMEDIATE")
    with transaction.atomic():
        waits = all_slots(new_limiter(60), ON_DEMAND)
    assert 10 <= len(waits) <= 11
    assert all_slots(new_limiter(60), ON_DEMAND) == [], "the others see them after the commit"


# Pauses


@pytest.mark.usefixtures("local_memory")
@pytest.mark.parametrize(
    ("message", "retry_after", "seconds"),
    [
        (TOO_MANY_A_SECOND, None, 1),
        (RESTRICTED, None, 300),
        ("App reaches the QPM limit.", None, 300),
        (UNKNOWN, None, 1),
        (UNKNOWN, 42.0, 42),
        (RESTRICTED, 7.0, 7),
        (TOO_MANY_A_SECOND, 0.0, 1),
        (UNKNOWN, 86_400.0, 3600),  # longer pauses end after an hour
    ],
)
@pytest.mark.parametrize("per_minute", [0, 600])
def test_pause_is_as_long_as_tiktok_asks(
    shared_time: Time, per_minute: int, message: str, retry_after: float | None, seconds: float
) -> None:
    process = new_limiter(per_minute)
    assert process.pauses == 0
    paused = process.refused(refusal(message, retry_after), sent_at=shared_time.now)
    assert paused == seconds
    assert process.pauses == 1
    paused_before_and_after = [process.is_paused]
    assert process.reserve(seconds - 0.5) is None
    assert process.wait_seconds(WHEN_IDLE) == pytest.approx(seconds)
    assert process.wait_seconds(0.25) == pytest.approx(seconds - 0.25)
    wait = process.reserve(seconds + 0.2)
    assert wait is not None
    assert seconds <= wait <= seconds + 0.2
    shared_time.now += seconds
    paused_before_and_after.append(process.is_paused)
    assert paused_before_and_after == [True, False]
    assert process.reserve(BATCH) is not None


@pytest.mark.usefixtures("shared_cache")
def test_pause_holds_for_every_process(
    shared_time: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rate_limit, "PAUSE_LOOKUP_SECONDS", 0)
    process, other = new_limiter(0), new_limiter(600)
    assert other.reserve(WHEN_IDLE) == 0
    with caplog.at_level(logging.WARNING, logger="tiktok_business"):
        assert process.refused(refusal(RESTRICTED), sent_at=shared_time.now) == 300
    assert f"({RESTRICTED} (code 40100)): pausing for 300 s." in caplog.text
    assert other.reserve(ON_DEMAND) is None
    assert other.wait_seconds(ON_DEMAND) == pytest.approx(290)
    assert other.pauses == 1
    assert new_limiter(0, app_id="another app").reserve(WHEN_IDLE) == 0
    shared_time.now += 300
    assert other.reserve(WHEN_IDLE) == 0


@pytest.mark.usefixtures("local_memory")
def test_pauses_of_others_are_looked_up_at_intervals(
    shared_time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "PAUSE_LOOKUP_SECONDS", 3600)
    process, other = new_limiter(0), new_limiter(0)
    assert other.reserve(WHEN_IDLE) == 0
    process.refused(refusal(RESTRICTED), sent_at=shared_time.now)
    assert other.reserve(WHEN_IDLE) == 0
    assert process.reserve(WHEN_IDLE) is None
    # After a refusal of its own, it looks at once.
    assert other.refused(refusal(UNKNOWN), sent_at=shared_time.now) == 300


@pytest.mark.usefixtures("local_memory")
def test_unknown_message_pauses_longer_when_it_comes_again(shared_time: Time) -> None:
    process = new_limiter(0)
    assert process.refused(refusal(UNKNOWN), sent_at=shared_time.now) == 1
    shared_time.now += 1.5
    assert process.refused(refusal(UNKNOWN), sent_at=shared_time.now) == 300
    assert process.pauses == 2
    shared_time.now += 300
    assert process.refused(refusal(TOO_MANY_A_SECOND), sent_at=shared_time.now) == 1
    assert process.pauses == 3


@pytest.mark.usefixtures("local_memory")
def test_refusal_long_after_a_pause_begins_a_new_row(shared_time: Time) -> None:
    process = new_limiter(0)
    for _ in range(3):
        assert process.refused(refusal(UNKNOWN), sent_at=shared_time.now) == 1
        assert process.pauses == 1
        shared_time.now += 1 + 60


@pytest.mark.usefixtures("local_memory")
def test_refusals_of_calls_that_were_under_way_do_not_prolong_the_pause(shared_time: Time) -> None:
    process, other = new_limiter(0), new_limiter(0)
    sent_at = shared_time.now
    shared_time.now += 0.2
    assert process.refused(refusal(RESTRICTED), sent_at=sent_at) == 300
    shared_time.now += 10
    for late in (process, other):
        assert late.refused(refusal(RESTRICTED), sent_at=sent_at + 0.1) == pytest.approx(290)
        assert late.pauses == 1
    shared_time.now += 400
    assert process.refused(refusal(RESTRICTED), sent_at=sent_at + 0.1) == 0
    assert process.reserve(WHEN_IDLE) == 0


@pytest.mark.usefixtures("local_memory")
def test_retry_after_counts_also_for_calls_that_were_under_way(
    shared_time: Time,
) -> None:
    process = new_limiter(0)
    assert process.refused(refusal(UNKNOWN), sent_at=shared_time.now) == 1
    assert process.refused(refusal(UNKNOWN, retry_after=90.0), sent_at=shared_time.now) == 90
    assert process.refused(refusal(UNKNOWN, retry_after=5.0), sent_at=shared_time.now) == 90
    assert process.pauses == 1


@pytest.mark.usefixtures("local_memory")
@pytest.mark.parametrize(
    "value", ["something else", (NOON + 7200, 1), (str(NOON + 60), 1), (NOON + 60,)]
)
def test_odd_pause_is_ignored(shared_time: Time, value: object) -> None:
    """It may come from a wrong clock, or from another version."""
    process, other = new_limiter(0), new_limiter(0)
    process.refused(refusal(RESTRICTED), sent_at=shared_time.now)
    key = "tiktok_business:app:pause"
    assert caches["shared"].get(key) == (NOON + 300, 1)
    caches["shared"].set(key, value)
    assert other.reserve(WHEN_IDLE) == 0


# A cache that is down


@pytest.fixture(params=["redis", "memcached", "database_table"])
def dead_cache(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[None]:
    location = {
        "redis": f"redis://127.0.0.1:{free_port()}/0",
        "memcached": f"127.0.0.1:{free_port()}",
        "database_table": "table_that_nobody_has_created",
    }[request.param]
    with override_settings(CACHES=in_use(BACKENDS[request.param], location)):
        yield


@pytest.mark.usefixtures("dead_cache")
def test_each_process_paces_itself_while_the_cache_is_down_and_logs_that_once(
    shared_time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    process, other = new_limiter(60), new_limiter(60)
    with caplog.at_level(logging.WARNING, logger="tiktok_business"), transaction.atomic():
        waits = all_slots(process, ON_DEMAND)
        assert other.reserve(WHEN_IDLE) == 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")  # the caller's transaction goes on
    gaps = [later - sooner for sooner, later in pairwise(waits[1:])]
    assert gaps == pytest.approx([slot_seconds(60)] * len(gaps), abs=1e-5)
    assert 10 <= len(waits) <= 11
    messages = [record.getMessage() for record in caplog.records]
    # Once in each process; here they share a Memcached client, which fails silently after that.
    assert 1 <= len(messages) <= 2
    assert "The cache 'shared' does not answer (" in messages[0]
    assert "by itself" in messages[0]


@pytest.mark.usefixtures("dead_cache")
def test_process_pauses_although_the_cache_is_down(shared_time: Time) -> None:
    process = new_limiter(0)
    assert process.refused(refusal(RESTRICTED), sent_at=shared_time.now) == 300
    assert process.reserve(ON_DEMAND) is None


@pytest.mark.usefixtures("dead_cache")
def test_cache_that_stays_down_is_logged_again_later(
    shared_time: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = new_limiter(60)
    process.reserve(WHEN_IDLE)
    monkeypatch.setattr(cache_module, "WARN_AGAIN_SECONDS", 0.05)
    time.sleep(1.1)  # meanwhile the Memcached client does not try again
    with caplog.at_level(logging.WARNING, logger="tiktok_business"):
        caplog.clear()
        process.reserve(ON_DEMAND)
    assert "does not answer" in caplog.text
