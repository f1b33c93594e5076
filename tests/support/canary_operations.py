"""The part of the drive through the app that operators see: commands and a queue."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import redis
from django.core import serializers
from django.core.management import call_command
from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from django_tiktok_business import tasks
from django_tiktok_business.models import BusinessAccount
from tests.support import engine
from tests.support.administrators import make_unreadable, page_of
from tests.support.canaries import (
    Evidence,
)
from tests.support.celery_workers import REDIS_URL, Broker, own_broker, worker
from tests.support.processes import wait_until
from tests.support.simulator import forget_limits, override_tiktok
from tests.support.simulator_calls import REFRESH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.canary_drive import Drive

DEBUGGED = """
import logging, sys
from django.core.management import execute_from_command_line
logging.basicConfig(level=logging.DEBUG)
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


# On the command line


def commands(drive: Drive) -> None:
    bakery, gadgets = drive.connected(), drive.connected("galaxy_gadgets")
    once = ["refresh_tokens", "--all", "--no-progress", "--traceback"]
    for options in (
        ["--verbosity=3"],
        ["--json", "--sync-profiles", "--concurrency=2", "--rate-limit=60000"],
        ["--dry-run", "--limit=1"],
        ["--dry-run", "--json"],
        ["--account", bakery.open_id, "--account", gadgets.open_id],
    ):
        command(drive, *once[: None if "--account" not in options else 1], *options)
    for fault in ("wrong_shape", "html", "truncated", "reset_after"):
        for options in (["--json"], ["--verbosity=3"]):
            drive.simulator.fail_next(fault, path=REFRESH, times=None)
            command(drive, *once, *options)
            drive.simulator.clear_faults()
            forget_limits()
    command(drive, "refresh_tokens", "--account", "unknown")
    bakery, gadgets = drive.connected(), drive.connected("galaxy_gadgets")
    for options in ([], ["--json"], ["--account", bakery.open_id]):
        command(drive, "tiktok_doctor", *options)
    dumps(drive, bakery)
    processes(drive, bakery)
    with override_tiktok(ENCRYPTION_KEYS=drive.keys):
        for options in (["--dry-run"], ["--verbosity=3"], []):
            command(drive, "rotate_encryption_keys", "--traceback", *options)
        make_unreadable(gadgets)
        command(drive, "rotate_encryption_keys")
        command(drive, "refresh_tokens", "--all")
        command(drive, "tiktok_doctor", "--account", gadgets.open_id)
        command(drive, "check", "--database", "default", "--deploy")
        drive.see("admin, unreadable", drive.client.get(page_of(gadgets)))
        drive.remember_keys(bakery, drive.keys[0])
        drive.look("after rotation")
        drive.connected("galaxy_gadgets")
        dumps(drive, bakery)
    command(drive, "check", "--database", "default")
    drive.look("after commands")


def command(drive: Drive, *arguments: str) -> None:
    printed = StringIO()

    def call() -> None:
        call_command(*arguments, stdout=printed, stderr=printed)

    drive.attempt(" ".join(arguments), call)
    drive.evidence.keep("command", " ".join(arguments), printed.getvalue())


def dumps(drive: Drive, account: BusinessAccount) -> None:
    for kind in ("json", "jsonl", "xml"):
        file = drive.folder / f"dump.{kind}"
        command(drive, "dumpdata", "--format", kind, "--output", str(file))
        drive.evidence.keep("dump", kind, file.read_text(encoding="utf-8"))
    [row] = serializers.serialize("python", [account])
    row["fields"]["access_token"] = str(account.access_token)  # as somebody might write it by hand
    plain = drive.folder / "plain.json"
    plain.write_text(DjangoJSONEncoder().encode([row]), encoding="utf-8")
    command(drive, "loaddata", str(plain))


def processes(drive: Drive, account: BusinessAccount) -> None:
    """Commands as typed, each in its own process that logs at DEBUG."""
    env = engine.environment(
        drive.base_url, APP_SECRET=drive.app_secret, ENCRYPTION_KEYS=drive.keys[1:]
    )
    drive.simulator.fail_next("truncated", path=REFRESH)
    common = ("--traceback", "--verbosity=3")
    started = {
        arguments: engine.start("-c", DEBUGGED, *arguments, *common, env=env)
        for arguments in (
            ("refresh_tokens", "--all", "--json", "--sync-profiles"),
            ("tiktok_doctor", "--account", account.open_id),
            ("rotate_encryption_keys", "--dry-run"),
            ("dumpdata", "tiktok_business"),
        )
    }
    for arguments, process in started.items():
        drive.evidence.keep("process", " ".join(arguments), repr(engine.finish(process)))


# By way of a queue


def queue(drive: Drive) -> None:
    accounts = [drive.connected(), drive.connected("galaxy_gadgets")]
    pks = [account.pk for account in accounts]
    keys = {"APP_SECRET": drive.app_secret, "ENCRYPTION_KEYS": drive.keys}
    with own_broker() as broker, all_commands(broker, drive.evidence):
        make_due()
        tasks.refresh_due.delay(sync_profiles=True)
        tasks.refresh_due(sync_profiles=True)
        broker.send("refresh_accounts", "nonsense")
        for raw in broker.raw():
            drive.evidence.keep("redis", "queued", raw)
        with worker(
            drive.base_url,
            broker,
            drive.folder,
            pool="threads",
            level="DEBUG",
            TEST_PROCESS_TIKTOK=json.dumps(keys),
        ) as started:
            wait_until(lambda: not due() and started.says("raised unexpected"))
            for fault in ("wrong_shape", "reset_after"):
                drive.simulator.fail_next(fault, path=REFRESH, times=None)
                make_due()
                broker.send("refresh_accounts", pks)
                wait_until(
                    lambda: BusinessAccount.objects.filter(consecutive_failures__gt=0).exists()
                )
                drive.simulator.clear_faults()
        drive.evidence.keep("worker", "log", started.log.read_bytes())


def make_due() -> None:
    soon = timezone.now() + timedelta(minutes=1)
    BusinessAccount.objects.update(access_token_expires_at=soon)


def due() -> bool:
    return BusinessAccount.objects.due_for_refresh(timedelta(hours=1)).exists()


@contextmanager
def all_commands(broker: Broker, evidence: Evidence) -> Iterator[None]:
    """Record everything sent to Redis inside the block, even if it is soon deleted."""
    end = f"{broker.prefix}end"

    def listen(heard: Iterator[dict[str, Any]]) -> None:
        while not (command := next(heard)["command"]).startswith(f"SET {end}"):
            if broker.prefix in command:
                evidence.keep("redis", "command", command)

    # However long it is silent.
    listening: Any = redis.Redis.from_url(REDIS_URL, socket_timeout=None)
    with listening, listening.monitor() as monitor:
        thread = threading.Thread(target=listen, args=(monitor.listen(),))
        thread.start()
        try:
            yield
        finally:
            broker.redis.set(end, "")
            thread.join()
