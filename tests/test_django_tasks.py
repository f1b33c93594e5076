"""The tasks of Django's own framework, run immediately and by workers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from django_tiktok_business import django_tasks
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import chunks
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect
from tests.support.processes import ROOT, environment, wait_until
from tests.support.simulator import running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True, rate_limits=False) as simulator:
        yield simulator


def due(simulator: Simulator, number: int) -> None:
    soon = timezone.now() + timedelta(minutes=5)
    for index in range(number):
        connect(simulator, f"account_{index}", access_token_expires_at=soon)


def are_live(simulator: Simulator) -> bool:
    """Whether each account holds the tokens that TikTok accepts."""
    return all(
        (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)
        for row in BusinessAccount.objects.all()
    )


def refreshes(simulator: Simulator) -> Counter[str | None]:
    return Counter(call.open_id for call in simulator.calls if call.path.endswith(REFRESH))


# Run immediately, in this process


def test_due_accounts_are_refreshed_and_their_profiles_synced(simulator: Simulator) -> None:
    due(simulator, 5)
    result = django_tasks.refresh_due.enqueue(sync_profiles=True, chunk_size=2)
    assert result.return_value == {"accounts": 5, "chunks": 3, "stopped": None}
    assert set(refreshes(simulator).values()) == {1}
    assert simulator.count(PROFILE) == 5
    assert are_live(simulator)


def test_task_passes_its_arguments_on(simulator: Simulator) -> None:
    account = connect(simulator)
    assert django_tasks.refresh_due.enqueue().return_value["accounts"] == 0
    result = django_tasks.refresh_accounts.enqueue([account.pk], 2 * 86400)
    assert result.return_value["refreshed"] == 1
    assert simulator.count(PROFILE) == 0


@pytest.mark.parametrize("name", django_tasks.__all__)
def test_message_that_waited_too_long_does_nothing(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    due(simulator, 1)
    monkeypatch.setattr(chunks, "MESSAGE_LIFETIME_SECONDS", -1)
    arguments = [[row.pk for row in BusinessAccount.objects.all()], 0]
    result = getattr(django_tasks, name).enqueue(*arguments[: 2 * (name != "refresh_due")])
    assert result.return_value == {"stopped": "stale"}
    assert simulator.calls == []


# Run by workers of django-tasks-db, which has its queue in a database


class Queue:
    """A queue in a database of its own, and the processes that use it."""

    def __init__(self, base_url: str, path: Path) -> None:
        self.environment = environment(
            base_url, "tests.support.settings_worker", TEST_PROCESS_QUEUE=str(path)
        )
        self.run("migrate", "--database", "queue", "--verbosity", "0")

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "django", *command],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str) -> str:
        process = self.start(*command)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stdout + stderr
        return stdout

    def enqueue(self, call: str) -> None:
        self.run(
            "shell", "-c", f"from django_tiktok_business.django_tasks import refresh_due\n{call}"
        )

    def messages(self) -> str:
        return self.run("dumpdata", "django_tasks_database", "--database", "queue")


@pytest.fixture
def queue(simulator: Simulator, tmp_path: Path) -> Iterator[Queue]:
    with simulator.serve() as base_url:
        yield Queue(base_url, tmp_path / "queue.sqlite3")


@pytest.mark.heavy
def test_two_workers_refresh_each_account_exactly_once(simulator: Simulator, queue: Queue) -> None:
    due(simulator, 30)
    secrets = [row.open_id for row in BusinessAccount.objects.all()]
    queue.enqueue("refresh_due.enqueue(chunk_size=5)\nrefresh_due.enqueue(chunk_size=4)")
    queue.run("db_worker", "--batch", "--max-tasks", "1", "--no-startup-delay")
    messages = queue.messages()
    workers = [queue.start("db_worker", "--batch", "--no-startup-delay") for _ in range(2)]
    for process in workers:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stdout + stderr
    by_account = refreshes(simulator)
    assert len(by_account) == 30
    assert set(by_account.values()) == {1}
    assert are_live(simulator)
    assert messages.count("django_tiktok_business.django_tasks.refresh_accounts") == 6
    assert not any(text in messages for text in [*secrets, "ttb1:", "act.", "rft."])


@pytest.mark.heavy
@pytest.mark.databases("sqlite")
def test_sigterm_in_the_middle_loses_nothing(simulator: Simulator, queue: Queue) -> None:
    simulator.configure(latency_seconds=0.25)
    due(simulator, 40)
    queue.enqueue("refresh_due.enqueue()")
    process = queue.start("db_worker", "--interval", "0.1", "--no-startup-delay")
    wait_until(lambda: simulator.count(REFRESH) > 4)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stdout + stderr
    assert 4 < simulator.count(REFRESH) < 40
    assert are_live(simulator)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()


# Without the framework


WITHOUT_DJANGOS_OWN = """
import importlib.util, sys, django
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: name != "django.tasks" and find_spec(name, *more)
sys.modules.update({blocked})
django.setup()
from django.core.exceptions import ImproperlyConfigured
try:
    from django_tiktok_business.django_tasks import refresh_due
    print(type(refresh_due).__module__)
except ImproperlyConfigured as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("blocked", "printed"),
    [
        ("{}", "django_tasks.base"),
        ("{'django_tasks': None}", "python -m pip install django-tasks"),
    ],
    ids=["backport", "nothing"],
)
def test_without_djangos_framework_the_backport_is_used_or_asked_for(
    blocked: str, printed: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_DJANGOS_OWN.format(blocked=blocked)],
        env=environment("http://127.0.0.1:9", "tests.support.settings_process"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed in result.stdout, result.stderr
