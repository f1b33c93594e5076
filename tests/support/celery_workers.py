"""Celery as projects run it: a broker in Redis, and real workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery

from tests.support.processes import ROOT, environment, wait_until
from tests.support.requires import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")


class Broker:
    """Redis under this test's own prefix, and an application that sends to it."""

    def __init__(self, connected: Any, prefix: str) -> None:
        self.redis = connected
        self.prefix = prefix
        self.app = Celery("tests", broker=REDIS_URL)
        self.app.conf.broker_transport_options = {"global_keyprefix": prefix}

    def send(self, name: str, *arguments: Any, **keywords: Any) -> None:
        """Send as `beat` does: by the task's name."""
        self.app.send_task(f"tiktok_business.{name}", args=arguments, kwargs=keywords)

    def raw(self) -> list[bytes]:
        """Everything that is in Redis, as stored."""
        lists = [key for key in self.own_keys() if self.redis.type(key) == b"list"]
        items = [item for key in lists for item in self.redis.lrange(key, 0, -1)]
        return [*self.own_keys(), *items]

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(item) for item in self.redis.lrange(f"{self.prefix}celery", 0, -1)]

    def own_keys(self) -> list[bytes]:
        return list(self.redis.scan_iter(f"{self.prefix}*"))


def connected_to(url: str) -> Any:
    """The Redis to use; a named one that does not answer is a failure."""
    connected = redis.Redis.from_url(url)
    try:
        connected.ping()
    except redis.ConnectionError:
        connected.close()
        pytest.fail(f"No Redis at {url}: start one, or set TEST_REDIS_URL.", pytrace=False)
    return connected


@contextmanager
def own_broker() -> Iterator[Broker]:
    """A broker of this test alone; it leaves nothing in Redis."""
    require("redis")
    with connected_to(REDIS_URL) as connected:
        broker = Broker(connected, f"tiktok-business-test-{uuid.uuid4().hex}:")
        try:
            yield broker
        finally:
            broker.app.close()
            for key in broker.own_keys():
                connected.delete(key)


class Worker:
    """A `celery worker` in a separate process, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def says(self, text: str) -> bool:
        return text in self.log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def worker(
    base_url: str,
    broker: Broker,
    folder: Path,
    *,
    pool: str = "prefork",
    level: str = "INFO",
    **variables: str,
) -> Iterator[Worker]:
    log = folder / f"{uuid.uuid4().hex}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "tests.support.celery_app", "worker"),
                *("--pool", pool, "--concurrency", "2", "--loglevel", level),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
            env=environment(
                base_url,
                "tests.support.settings_worker",
                TEST_PROCESS_PREFIX=broker.prefix,
                **variables,
            ),
            cwd=ROOT,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    started = Worker(process, log)
    try:
        wait_until(lambda: started.says(" ready.") or process.poll() is not None)
        yield started
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))  # shown on failure
