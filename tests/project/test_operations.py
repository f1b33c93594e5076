"""docs/operations.rst is true: its commands run, its numbers are right."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import pytest
import redis
import requests
from django.utils.module_loading import import_string

from django_tiktok_business import django_tasks, tasks
from django_tiktok_business.conf.settings import SETTINGS
from django_tiktok_business.services import chunks
from tests.support.newcomer import ROOT, Document, Newcomer, newcomer_to_a_site, starts_processes
from tests.support.processes import wait_until
from tests.support.requires import require

DOCUMENT = Document("docs/operations.rst")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
PROFILE = "/business/get/"


# What it says


def test_document_is_valid_linked_and_shipped() -> None:
    assert DOCUMENT.warnings == ""
    assert "docs/operations.rst" in Document("README.rst").section("Refresh on a schedule")
    assert "graft docs" in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()


def test_calls_a_day_are_what_the_arithmetic_says() -> None:
    table = DOCUMENT.table("Accounts")
    assert len(table) > 5
    for accounts, hours, profiles, a_day, a_minute, basic, higher in table:
        calls = int(accounts.replace(",", "")) * 24 / (24 - int(hours))
        calls *= 2 if profiles == "yes" else 1
        shown = [f"{calls:,.0f}", f"{calls / 1440:,.0f}"]
        shown += [f"{calls / 1440 / level:.0%}".replace("%", " %") for level in (600, 1000)]
        assert [a_day, a_minute, basic, higher] == shown
    assert SETTINGS["REFRESH_WITHIN_SECONDS"].default == 6 * 3600
    assert SETTINGS["REQUESTS_PER_MINUTE"].default == 600
    assert SETTINGS["REFRESH_CONCURRENCY"].default == 8


def test_numbers_of_the_jobs_are_the_ones_in_use() -> None:
    text = " ".join(DOCUMENT.text.split())
    assert chunks.CHUNK_SIZE == 100
    assert "in chunks of 100 accounts" in text
    assert chunks.MESSAGE_LIFETIME_SECONDS == 15 * 60
    assert "They expire after 15 minutes" in text
    assert chunks.LONGEST_RUN_SECONDS == 10 * 60
    assert "A task returns by itself after ten minutes" in text
    assert chunks.HALT_SECONDS == 5 * 60
    assert "the others do nothing for five minutes" in text
    task: Any = tasks.refresh_accounts
    assert (task.soft_time_limit, task.time_limit) == (15 * 60, 20 * 60)
    assert "15 minutes soft and 20 hard" in text


def test_tasks_and_their_arguments_exist() -> None:
    rows = {name: re.findall(r"\w+", arguments) for name, arguments, _ in DOCUMENT.table("Task")}
    assert list(rows) == [
        "tiktok_business.refresh_due",
        "tiktok_business.refresh_accounts",
        "tiktok_business.sync_profiles",
    ]
    for name, words in rows.items():
        function = name.partition(".")[2]
        taken = list(inspect.signature(getattr(tasks, function).run).parameters)
        assert [word for word in words if word not in {"all", "optional"}] == taken
        own = inspect.signature(getattr(django_tasks, function).func).parameters
        assert list(own) == ["context", *taken]


def test_cache_backends_exist() -> None:
    modules = ("db", "dummy", "filebased", "locmem", "memcached", "redis")
    for names, _ in DOCUMENT.table("Backend"):
        for name in names.split(", "):
            paths = [f"django.core.cache.backends.{module}.{name}" for module in modules]
            assert sum(map(_can_be_imported, paths)) == 1, name


def _can_be_imported(path: str) -> bool:
    try:
        import_string(path)
    except ImportError:
        return False
    return True


# What it has people type


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Has followed README, and then put each block of this document into its file."""
    require("redis")
    prefix = f"tiktok-business-test-{uuid.uuid4().hex}:"
    with newcomer_to_a_site(tmp_path_factory.mktemp("operator")) as newcomer:
        for name in ("mysite/settings.py", "mysite/celery.py", "mysite/__init__.py"):
            blocks = DOCUMENT.file(name) or DOCUMENT.file(Path(name).name)
            assert blocks, name
            with (newcomer.site / name).open("a", encoding="utf-8") as file:
                file.writelines(f"\n{_ours(text)}\n" for text in blocks)
        with (newcomer.site / "mysite/settings.py").open("a", encoding="utf-8") as file:
            file.write(f"CACHES['default']['KEY_PREFIX'] = {prefix!r}\n")
            file.write(f"CELERY_BROKER_TRANSPORT_OPTIONS = {{'global_keyprefix': {prefix!r}}}\n")
            backport = ["django_tasks"] if django.VERSION < (6,) else []
            file.write(f"INSTALLED_APPS += {backport!r}\n")
        newcomer.run("python manage.py migrate --verbosity 0")
        yield newcomer
    with redis.Redis.from_url(REDIS_URL) as connected:
        for key in connected.scan_iter(f"*{prefix}*"):
            connected.delete(key)


def _ours(block: str) -> str:
    """A block with the Redis of the tests, and a schedule that need not be waited for."""
    return re.sub(r"redis://[\w.:/]+", REDIS_URL, block).replace("15 * 60,", "1,")


def _calls(newcomer: Newcomer, path: str) -> int:
    with requests.Session() as session:
        session.trust_env = False
        log = session.get(f"{newcomer.tiktok}/_simulator/log", timeout=30).json()
    return sum(call["path"].endswith(path) for call in log["calls"])


@starts_processes
@pytest.mark.heavy
def test_every_command_is_tried_below() -> None:
    commands = [command for command, _ in DOCUMENT.commands()]
    tried = [
        r"python -m pip install ",
        r"python -m celery -A mysite (worker|beat)",
        r"python manage.py (migrate|db_worker|refresh_tokens --all)$",
        r"python -m benchmarks.operations$",
    ]
    assert all(any(re.match(pattern, command) for pattern in tried) for command in commands)


@starts_processes
@pytest.mark.heavy
def test_beat_and_worker_refresh_what_is_due_and_sync_its_profile(newcomer: Newcomer) -> None:
    worker, beat = [command for command, _ in DOCUMENT.commands() if "celery -A" in command]
    newcomer.run("python manage.py check")
    code = (
        "from django_tiktok_business.models import BusinessAccount as B;"
        "B.objects.update(access_token_expires_at=None)"
    )
    newcomer.run(f"python manage.py shell --verbosity 0 -c {shlex.quote(code)}")
    before = _calls(newcomer, PROFILE)
    with newcomer.running(worker), newcomer.running(beat):
        wait_until(lambda: _calls(newcomer, PROFILE) > before)


@starts_processes
@pytest.mark.heavy
def test_what_is_installed_is_there_and_the_whole_table_can_be_refreshed(
    newcomer: Newcomer,
) -> None:
    commands = [command for command, _ in DOCUMENT.commands()]
    installs = [command for command in commands if "pip install" in command]
    assert len(installs) == 2
    for command in installs:
        newcomer.pretend_to_install(command)
    (everything,) = [command for command in commands if command.endswith("--all")]
    assert "refreshed=1 " in newcomer.run(everything)


@starts_processes
@pytest.mark.heavy
def test_cron_lines_run_and_the_database_worker_works_off_what_one_enqueues(
    newcomer: Newcomer,
) -> None:
    lines = [text for text in DOCUMENT.blocks("text") if text.startswith("*/15")]
    assert len(lines) == 2
    for line in lines:
        *when, command = line.split(maxsplit=5)
        assert when == ["*/15", "*", "*", "*", "*"]
        command = command.replace("/srv/mysite", str(newcomer.site))
        newcomer.run(command.replace(".venv/bin/python", "python"))
    (worker,) = [command for command, _ in DOCUMENT.commands() if "db_worker" in command]
    newcomer.run(f"{worker} --batch --no-startup-delay --no-reload")
    code = (
        "from django_tasks_db.models import DBTaskResult;"
        "print(*DBTaskResult.objects.values_list('status', flat=True))"
    )
    statuses = newcomer.run(f"python manage.py shell --verbosity 0 -c {shlex.quote(code)}")
    assert set(statuses.split()) == {"SUCCESSFUL"}


@starts_processes
@pytest.mark.heavy
def test_measured_numbers_can_be_measured_again(newcomer: Newcomer) -> None:
    ((command, shown),) = [each for each in DOCUMENT.commands() if "benchmarks" in each[0]]
    output = newcomer.run(f"{command} --accounts 60 --requests-per-minute 6000")
    for name in ("database statements", "cache operations"):
        pattern = rf"([\d.]+) {name} an account"
        claimed, measured = (re.search(pattern, text) for text in (shown, output))
        assert claimed is not None
        assert measured is not None
        assert float(measured[1]) <= float(claimed[1]) * 1.1
