"""Tests of the refresh engine: a TikTok that keeps a record, many accounts, and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.simulator import override_tiktok

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from django_tiktok_business.simulator.wire import Request, Response

ROOT = Path(__file__).resolve().parents[2]
REFRESH = "/tt_user/oauth2/refresh_token/"
SERVER_KEYS = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
Status = BusinessAccount.Status

_current: list[WatchedSimulator] = []


# A TikTok that keeps a record


@dataclass
class Presented:
    """One refresh as TikTok saw it; the times are monotonic seconds."""

    token: str
    open_id: str
    began_at: float
    ended_at: float = float("inf")  # when the answer left, or would have
    is_granted: bool = False  # a new pair was issued for it
    is_delivered: bool = False  # ... and its answer held the whole pair, for the right account


class WatchedSimulator(Simulator):
    """Records who presented which refresh token, and what became of the answer.

    The simulator's own log holds no token, for it can be asked for over HTTP. Answers refreshes
    only.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.presented: list[Presented] = []
        self._open_ids: dict[str, str] = {}

    def issue_grant(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        grant = super().issue_grant(*arguments, **options)
        self._open_ids[grant["refresh_token"]] = grant["open_id"]
        return grant

    def handle(self, request: Request) -> Response:
        token = json.loads(request.body)["refresh_token"]
        entry = Presented(token, self._open_ids[token], time.monotonic())
        self.presented.append(entry)
        before = self.live_tokens(entry.open_id)
        response = super().handle(request)
        after = self.live_tokens(entry.open_id)
        if after is not None and after != before:
            self._open_ids[after[1]] = entry.open_id
            entry.is_granted = True
            entry.is_delivered = _carries(response, entry.open_id, after)
        entry.ended_at = time.monotonic()
        return response

    def lost(self) -> set[str]:
        """The accounts for which a successful answer did not arrive complete."""
        entries = self.presented
        return {entry.open_id for entry in entries if entry.is_granted and not entry.is_delivered}

    def presented_in_vain(self) -> list[Presented]:
        """Tokens presented again after, or while, a successful answer to them arrived."""
        delivered = {entry.token: entry for entry in self.presented if entry.is_delivered}
        return [
            entry
            for entry in self.presented
            if entry.token in delivered
            and entry is not delivered[entry.token]
            and entry.ended_at > delivered[entry.token].began_at
        ]

    def calls_of(self, open_id: str) -> int:
        return sum(entry.open_id == open_id for entry in self.presented)


def _carries(response: Response, open_id: str, pair: tuple[str, str]) -> bool:
    """Whether a tolerant client finds the pair in the answer."""
    if response.breakage is not None:
        return False
    try:
        document = json.loads(response.body)
    except ValueError:
        return False
    content = document.get("data") if isinstance(document, dict) else None
    return (
        isinstance(content, dict)
        and str(document["code"]) == "0"
        and (content.get("access_token"), content.get("refresh_token")) == pair
        and content.get("open_id", content.get("creator_id")) in (None, open_id)
    )


def session() -> requests.Session:
    """A session factory: one that reaches the simulator in use, in process."""
    return _current[-1].session()


@contextmanager
def watched_simulator(**options: Any) -> Iterator[WatchedSimulator]:
    """Use such a simulator as TikTok inside the block, without a network."""
    simulator = WatchedSimulator(**options)
    _current.append(simulator)
    try:
        with override_tiktok(SESSION_FACTORY_PATH="tests.support.engine.session"):
            yield simulator
    finally:
        _current.remove(simulator)


# Many accounts


def make_due(simulator: Simulator, count: int, **overrides: Any) -> list[str]:
    """Connect this many accounts whose access tokens expire within the hour; return open ids."""
    now = timezone.now()
    rows = []
    for number in range(count):
        grant = simulator.issue_grant(f"account_{number}")
        values = {
            "app_id": settings.TIKTOK_BUSINESS["APP_ID"],
            "open_id": grant["open_id"],
            "access_token": grant["access_token"],
            "refresh_token": grant["refresh_token"],
            "access_token_expires_at": now + timedelta(seconds=3600 * number / count),
            "refresh_token_expires_at": now + timedelta(days=300),
            "connected_at": now - timedelta(days=65),
            "metrics_synced_at": now,
            **overrides,
        }
        rows.append(BusinessAccount(**values))
    BusinessAccount.objects.bulk_create(rows, batch_size=500)
    return [row.open_id for row in rows]


def not_live(simulator: Simulator) -> set[str]:
    """The accounts whose row does not hold the newest pair that TikTok has issued."""
    return {
        row.open_id
        for row in BusinessAccount.objects.iterator()
        if (row.access_token, row.refresh_token) != simulator.live_tokens(row.open_id)
    }


def in_status(status: str) -> set[str]:
    rows = BusinessAccount.objects.filter(status=status)
    return set(rows.values_list("open_id", flat=True))


def end_waits() -> None:
    """Skip the time that failing accounts wait before their next try."""
    BusinessAccount.objects.update(next_attempt_at=None)


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command in this process; return its exit status and its ``--json``."""
    stdout = StringIO()
    status = 0
    try:
        call_command("refresh_tokens", "--json", *arguments, stdout=stdout, stderr=StringIO())
    except CommandError as error:
        status = error.returncode
    return status, json.loads(stdout.getvalue())


# Processes of their own


def database(**changes: Any) -> dict[str, Any]:
    """What a process needs to know to reach the test database."""
    return {**{key: str(connection.settings_dict[key]) for key in SERVER_KEYS}, **changes}


def environment(
    base_url: str,
    *,
    server: dict[str, Any] | None = None,
    variables: dict[str, str] | None = None,
    caches: dict[str, Any] | None = None,
    **keys: Any,
) -> dict[str, str]:
    """The environment of a process that uses the test database and a simulator over HTTP.

    ``server`` changes how the database is reached; ``keys`` are those of TIKTOK_BUSINESS.
    """
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.support.settings_process",
        "TEST_PROCESS_DATABASE": json.dumps(database(**(server or {}))),
        "TEST_PROCESS_API": f"{base_url}/open_api/v1.3",
        "TEST_PROCESS_TIKTOK": json.dumps(keys),
        "TEST_PROCESS_CACHES": json.dumps(caches or {}),
        "PYTHONPATH": str(ROOT) if "TOX_WHEEL" not in os.environ else "",
        **(variables or {}),
    }


def start(*arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start a Python process: ``-m django refresh_tokens ...``, or a test's own program."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=env,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_command(*arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    return start("-m", "django", "refresh_tokens", "--json", *arguments, env=env)


def finish(process: subprocess.Popen[str], *, timeout: float = 120) -> tuple[int, str, str]:
    """Wait for the process; return its exit status, stdout and stderr."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, stdout, stderr


def wait_until(condition: Callable[[], object], *, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "this does not happen"
        time.sleep(0.005)


class Forks:
    """Runs of the command as processes that start at once; see `tests.support.forking`."""

    def __init__(self, env: dict[str, str]) -> None:
        self._process = start("-m", "tests.support.forking", env=env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # this ends it
        with self._process:
            self._process.wait(timeout=60)

    def await_ready(self) -> None:
        assert self._line() == "ready"

    def begin(self, *arguments: str) -> int:
        """Start a run; return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{' '.join(arguments)}\n")
        self._process.stdin.flush()
        return int(self._line())

    def end(self) -> tuple[int, dict[str, Any]]:
        """Wait for the run; return its exit status and its ``--json`` ({} if it was killed)."""
        answer: dict[str, Any] = {}
        while not (line := self._line()).startswith("exit "):
            answer = json.loads(line)
        return int(line.removeprefix("exit ")), answer

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.communicate()[1]
        return line.rstrip("\n")


def run_together(
    simulator: WatchedSimulator,
    environments: list[dict[str, str]],
    count: int,
    *arguments: str,
) -> list[dict[str, Any]]:
    """Run this many commands at once over this many accounts; return their reports.

    Each account is refreshed by exactly one of them.
    """
    open_ids = make_due(simulator, count)
    connection.close()
    with ExitStack() as stack:
        commands = [stack.enter_context(Forks(env)) for env in environments]
        for command in commands:
            command.await_ready()
        for command in commands:
            command.begin(*arguments)
        ends = [command.end() for command in commands]
    reports = [report for _, report in ends]
    assert [status for status, _ in ends] == [0] * len(commands), reports
    assert simulator.count(REFRESH) == count
    assert simulator.presented_in_vain() == []
    assert not_live(simulator) == set()
    assert in_status(Status.ACTIVE) == set(open_ids)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()
    assert sum(report["refreshed"] for report in reports) == count
    assert [report["failures"] for report in reports] == [[]] * len(commands)
    assert min(report["refreshed"] for report in reports) > 0, "all have worked"
    return reports
