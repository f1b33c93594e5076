"""A database that an earlier version made goes on working: it migrates, decrypts and refreshes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from django_tiktok_business.simulator import Simulator
from tests.support.engine import REFRESH, environment, finish, start

FIXTURES = Path(__file__).with_name("upgrade")
KEY = "test-only-Zr8vN2kXq5TgWb9YhJ4mLc7PdFs3RuEa"  # under which the dump's tokens are encrypted

pytestmark = [pytest.mark.django_db, pytest.mark.databases("sqlite")]

# Prints each row with its tokens as the current code reads them.
READ_ROWS = """
import django, json
django.setup()
from django_tiktok_business.models import BusinessAccount
print(json.dumps([
    [row.open_id, row.status, row.health, row.access_token, row.refresh_token, row.owner.username]
    for row in BusinessAccount.objects.order_by("pk")
]))
"""


class OldProject:
    """The dump as a database in a file of its own, and TikTok as it was at that time."""

    def __init__(self, path: Path, simulator: Simulator, base_url: str) -> None:
        self.path = path
        self.simulator = simulator
        server = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}
        self.environment = environment(base_url, server=server, ENCRYPTION_KEYS=[KEY])

    def run(self, *arguments: str) -> str:
        """Run the current code in a process of its own; return its stdout."""
        status, stdout, stderr = finish(start(*arguments, env=self.environment))
        assert status == 0, stdout + stderr
        return stdout

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(sql).fetchall()

    def read_rows(self) -> list[list[str]]:
        rows: list[list[str]] = json.loads(self.run("-c", READ_ROWS))
        return rows


@pytest.fixture
def project(tmp_path: Path) -> Iterator[OldProject]:
    path = tmp_path / "old.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((FIXTURES / "database.sql").read_text(encoding="utf-8"))
    simulator = Simulator(strict=True, state_path=FIXTURES / "simulator.json", saves_state=False)
    with simulator.serve() as base_url:
        yield OldProject(path, simulator, base_url)


def test_old_database_migrates_and_needs_no_further_migration(project: OldProject) -> None:
    project.run("-m", "django", "migrate", "--no-input")
    project.run("-m", "django", "makemigrations", "--check", "--dry-run")
    for model, rows in (("connectionevent", 6), ("notice", 1), ("dailymetrics", 3)):
        assert project.query(f"SELECT count(*) FROM tiktok_business_{model}") == [(rows,)]


def test_migrations_that_the_old_database_names_still_exist(project: OldProject) -> None:
    applied = project.query("SELECT app, name FROM django_migrations")
    assert ("tiktok_business", "0005_newest_first") in applied
    assert set(applied) <= set(MigrationLoader(connection).disk_migrations)


def test_old_rows_are_decrypted(project: OldProject) -> None:
    project.run("-m", "django", "migrate", "--no-input")
    active, disconnected, rejected = project.read_rows()
    assert active[1:3] == ["active", "healthy"]
    assert tuple(active[3:5]) == project.simulator.live_tokens(active[0])
    assert disconnected[1:5] == ["revoked", "revoked", "", ""]
    assert rejected[1:3] == ["reauthorization_required", "reconnect_needed"]
    assert [token[:3] for token in rejected[3:5]] == ["act", "rft"], "kept, and readable"
    assert {row[5] for row in (active, disconnected, rejected)} == {"ada"}


def test_old_account_is_refreshed(project: OldProject) -> None:
    project.run("-m", "django", "migrate", "--no-input")
    before = project.read_rows()[0]
    report = json.loads(project.run("-m", "django", "refresh_tokens", "--all", "--json"))
    assert (report["refreshed"], report["failures"]) == (1, [])
    assert project.simulator.count(REFRESH) == 1
    after = project.read_rows()[0]
    assert tuple(after[3:5]) == project.simulator.live_tokens(after[0])
    assert (after[3], after[4]) != (before[3], before[4])
    sql = "SELECT credentials_version FROM tiktok_business_businessaccount WHERE id = 1"
    assert project.query(sql) == [(4,)], "the old version had stored three pairs"
