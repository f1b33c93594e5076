"""The Celery tasks, with Redis as the broker and real workers."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from django_tiktok_business import tasks
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.celery_workers import Broker, connected_to, own_broker, worker
from tests.support.leaks import Search
from tests.support.processes import ROOT, environment, wait_until
from tests.support.servers import refused_port
from tests.support.simulator import running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"

# The queue does not depend on the database; two of them show that the claims work.
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.databases("sqlite", "postgresql"),
    pytest.mark.heavy,
]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True, rate_limits=False) as simulator:
        yield simulator


@pytest.fixture
def broker() -> Iterator[Broker]:
    with own_broker() as broker:
        yield broker


def test_missing_redis_is_a_failure_that_says_what_to_do() -> None:
    with refused_port() as port, pytest.raises(pytest.fail.Exception, match="TEST_REDIS_URL"):
        connected_to(f"redis://127.0.0.1:{port}")


def due(simulator: Simulator, number: int) -> list[BusinessAccount]:
    """Due accounts with tokens that TikTok knows."""
    soon = timezone.now() + timedelta(minutes=5)
    accounts = []
    for index in range(number):
        grant = simulator.issue_grant(f"account_{index}")
        accounts.append(
            BusinessAccount(
                app_id=simulator.app_id,
                access_token_expires_at=soon,
                metrics_synced_at=timezone.now(),
                scopes=grant["scope"].split(","),
                **{name: grant[name] for name in ("open_id", "access_token", "refresh_token")},
            )
        )
    return BusinessAccount.objects.bulk_create(accounts)


def are_live(simulator: Simulator) -> bool:
    """Whether each account holds the tokens that TikTok accepts."""
    return all(
        (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)
        for row in BusinessAccount.objects.all()
    )


def none_is_due() -> bool:
    return not BusinessAccount.objects.due_for_refresh(timedelta(hours=6)).exists()


def refreshes(simulator: Simulator) -> Counter[str | None]:
    return Counter(call.open_id for call in simulator.calls if call.path.endswith(REFRESH))


# Workers


def test_each_due_account_is_refreshed_exactly_once_beside_the_command(
    simulator: Simulator, broker: Broker, tmp_path: Path
) -> None:
    due(simulator, 120)
    with simulator.serve() as base_url, worker(base_url, broker, tmp_path):
        broker.send("refresh_due", chunk_size=10)
        broker.send("refresh_due", chunk_size=7)  # another beat, by mistake
        command = subprocess.run(
            [sys.executable, "-m", "django", "refresh_tokens"],
            env=environment(base_url, "tests.support.settings_worker"),
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        wait_until(none_is_due)
    assert command.stderr == ""
    by_account = refreshes(simulator)
    assert len(by_account) == 120
    assert set(by_account.values()) == {1}
    assert are_live(simulator)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()


@pytest.mark.parametrize("pool", ["threads", "solo"])
@pytest.mark.databases("sqlite")
def test_profiles_follow_their_tokens_in_every_pool(
    simulator: Simulator, broker: Broker, tmp_path: Path, pool: str
) -> None:
    due(simulator, 12)
    with simulator.serve() as base_url, worker(base_url, broker, tmp_path, pool=pool):
        broker.send("refresh_due", sync_profiles=True, chunk_size=5)
        unsynced = BusinessAccount.objects.filter(profile_synced_at=None)
        wait_until(lambda: not unsynced.exists())
    assert set(refreshes(simulator).values()) == {1}
    assert simulator.count(PROFILE) == 12


@pytest.mark.parametrize("whole_group", [False, True], ids=["worker", "worker and children"])
def test_sigterm_in_the_middle_loses_nothing(
    simulator: Simulator, broker: Broker, tmp_path: Path, whole_group: bool
) -> None:
    """The worker alone gets the signal from a container, all its processes from systemd."""
    simulator.configure(latency_seconds=0.25)
    due(simulator, 60)
    with simulator.serve() as base_url:
        with worker(base_url, broker, tmp_path) as started:
            broker.send("refresh_due", chunk_size=15)
            wait_until(lambda: simulator.count(REFRESH) > 4)
            pid = started.process.pid
            (os.killpg if whole_group else os.kill)(pid, signal.SIGTERM)
            started.process.wait(60)
        made = simulator.count(REFRESH)
        assert 4 < made < 60
        assert are_live(simulator)
        assert not BusinessAccount.objects.exclude(claim_id="").exists()

        simulator.configure(latency_seconds=0)
        with worker(base_url, broker, tmp_path, pool="threads"):
            broker.send("refresh_due")
            wait_until(none_is_due)
    assert set(refreshes(simulator).values()) == {1}
    assert are_live(simulator)


@pytest.mark.databases("sqlite")
def test_thread_pool_stops_early_on_sigterm(
    simulator: Simulator, broker: Broker, tmp_path: Path
) -> None:
    simulator.configure(latency_seconds=0.25)
    due(simulator, 100)
    with simulator.serve() as base_url, worker(base_url, broker, tmp_path, pool="threads"):
        broker.send("refresh_due")
        wait_until(lambda: simulator.count(REFRESH) > 4)
    assert simulator.count(REFRESH) < 50
    assert are_live(simulator)


@pytest.mark.databases("sqlite")
def test_soft_time_limit_waits_for_the_calls_in_flight(
    simulator: Simulator, broker: Broker, tmp_path: Path
) -> None:
    simulator.configure(latency_seconds=0.25)
    pks = [account.pk for account in due(simulator, 100)]
    with simulator.serve() as base_url, worker(base_url, broker, tmp_path) as started:
        broker.app.send_task("tiktok_business.refresh_accounts", [pks], soft_time_limit=1)
        wait_until(lambda: started.says("raised unexpected: SoftTimeLimitExceeded"))
    assert 0 < simulator.count(REFRESH) < 100
    assert are_live(simulator)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()


# Messages


def test_messages_hold_primary_keys_expire_and_bring_their_own_limits(
    simulator: Simulator, broker: Broker
) -> None:
    accounts = due(simulator, 3)
    counts = tasks.refresh_due(within_seconds=7200, sync_profiles=True, chunk_size=2)
    assert counts == {"accounts": 3, "chunks": 2, "stopped": None}
    messages = broker.messages()
    assert len(messages) == 2
    for message in messages:
        headers = message["headers"]
        assert headers["task"] == "tiktok_business.refresh_accounts"
        expires_at = datetime.fromisoformat(headers["expires"])
        assert timedelta() < expires_at - timezone.now() <= timedelta(minutes=15)
        assert headers["timelimit"] == [1200, 900]
        assert headers["retries"] == 0
    bodies = [json.loads(base64.b64decode(message["body"])) for message in messages]
    assert sorted(pk for (pks, _), _, _ in bodies for pk in pks) == [row.pk for row in accounts]
    for (pks, within_seconds), keywords, _ in bodies:
        assert all(type(pk) is int for pk in pks)
        assert (within_seconds, keywords) == (7200, {"sync_profiles": True})


def test_nothing_secret_and_no_open_id_lies_in_redis(simulator: Simulator, broker: Broker) -> None:
    accounts = due(simulator, 3)
    tasks.refresh_due.delay(sync_profiles=True)
    tasks.refresh_due(sync_profiles=True)
    tasks.refresh_accounts([row.pk for row in accounts], sync_profiles=True)
    names = {message["headers"]["task"].partition(".")[2] for message in broker.messages()}
    assert names == {"refresh_due", "refresh_accounts", "sync_profiles"}

    raw = b"\n".join(broker.raw())
    for message in broker.messages():
        raw += base64.b64decode(message["body"])
    columns = ("open_id", "access_token", "refresh_token")
    with connection.cursor() as cursor:  # as the database has them, encrypted
        table = connection.ops.quote_name(BusinessAccount._meta.db_table)
        cursor.execute(f"SELECT {', '.join(columns)} FROM {table}")
        stored = [str(text) for row in cursor.fetchall() for text in row]
    for account in BusinessAccount.objects.all():
        stored += [account.access_token, account.refresh_token]
    stored += settings.TIKTOK_BUSINESS["ENCRYPTION_KEYS"]
    stored.append(settings.TIKTOK_BUSINESS["APP_SECRET"])
    assert len(stored) == 17
    assert Search(stored).found_in(raw) == set()


def test_tasks_run_the_jobs(simulator: Simulator, broker: Broker) -> None:
    (account,) = due(simulator, 1)
    assert tasks.refresh_accounts([account.pk])["refreshed"] == 1
    assert broker.messages() == []  # profiles were not asked for
    assert tasks.sync_profiles([account.pk], 0) == {"synced": 1, "stopped": None}


def test_names_of_the_tasks_are_fixed() -> None:
    # A queue may hold messages of the last release, and projects write them into their schedules.
    names = [getattr(tasks, name).name for name in tasks.__all__]
    assert names == [
        "tiktok_business.refresh_accounts",
        "tiktok_business.refresh_due",
        "tiktok_business.sync_profiles",
    ]
