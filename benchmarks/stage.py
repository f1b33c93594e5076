"""Where measurements run: databases, the simulator, and separate processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import environ

from django_tiktok_business.simulator import Simulator

__all__ = ["NotHereError", "ProbeError", "Stage", "Tiktok", "report_progress"]

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_DATABASE_URL = "postgres://postgres@127.0.0.1:5432/test"
DEFAULT_CACHE_URL = "redis://127.0.0.1:6379/13"


class NotHereError(Exception):
    """Something that a line needs is missing on this machine."""


class ProbeError(Exception):
    """A process did not do what it should have."""


def report_progress(text: str) -> None:
    """Report progress on stderr."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


class Tiktok:
    """A simulator in a separate process, and the tokens it has issued."""

    def __init__(self, base_url: str, grants_path: Path) -> None:
        self.base_url = base_url
        self.grants_path = grants_path

    def control(self, name: str, **document: Any) -> Any:
        """Ask the simulator's remote control; a document is posted."""
        body = json.dumps(document).encode() if document else None
        request = Request(  # noqa: S310 -- 127.0.0.1
            f"{self.base_url}/_simulator/{name}", body, {"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)


class Stage:
    """One run of the benchmarks; it removes everything it made when it ends."""

    def __init__(self, folder: Path, database: dict[str, Any] | None, reason: str) -> None:
        self.folder = folder
        self._database = database
        self._reason = reason  # why there is no database
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        }

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[Stage]:
        url = os.environ.get("DATABASE_URL") or DEFAULT_DATABASE_URL
        config: dict[str, Any] | None = dict(environ.Env.db_url_config(url))
        with tempfile.TemporaryDirectory(prefix="tiktok-bench-") as folder:
            if config is not None and "postgresql" in config["ENGINE"]:
                name = f"{config['NAME']}_bench_{os.getpid()}"
                reason = _run_sql(config, f'CREATE DATABASE "{name}"')
                config = None if reason else {**config, "NAME": name}
            else:
                reason, config = "DATABASE_URL is not PostgreSQL's", None
            stage = cls(Path(folder), config, reason)
            try:
                if config is not None:
                    stage.run("-m", "django", "migrate", "--run-syncdb", "--verbosity=0")
                yield stage
            finally:
                if config is not None:
                    _run_sql(config, f'DROP DATABASE "{config["NAME"]}" WITH (FORCE)')

    @property
    def database_name(self) -> str:
        """Name and version of the database, "" if there is none."""
        if self._database is None:
            return ""
        return str(self.measure("database")["version"])

    def need_postgres(self) -> None:
        if self._database is None:
            raise NotHereError(f"no PostgreSQL ({self._reason})")

    # Processes

    def environment(self, tiktok: Tiktok | None = None, **variables: str) -> dict[str, str]:
        """The environment of a process of ours, which always keeps its compiled code."""
        database = self._database or {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        return {
            **self._environment,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "BENCH_DATABASE": json.dumps(database),
            "BENCH_CACHE": json.dumps({"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}),
            "BENCH_TIKTOK": tiktok.base_url if tiktok else "http://127.0.0.1:9",
            "BENCH_REQUESTS_PER_MINUTE": "0",
            "BENCH_KEYS": json.dumps(["benchmarks-only-Hs6Vm1XcJr8TfNb3KqGw5Ze"]),
            **variables,
        }

    def start(
        self, *arguments: str, tiktok: Tiktok | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603 -- our own programs
            [sys.executable, *arguments],
            env=self.environment(tiktok, **variables),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, tiktok: Tiktok | None = None, **variables: str) -> str:
        """Run a process, which has to succeed; return its stdout."""
        process = self.start(*arguments, tiktok=tiktok, **variables)
        output, _ = process.communicate()
        if process.returncode != 0:
            raise ProbeError(f"{' '.join(arguments)} ended with {process.returncode}")
        return output

    def measure(self, *arguments: str, tiktok: Tiktok | None = None, **variables: str) -> Any:
        """Run a part of `benchmarks.probe` in a separate process; return its result."""
        output = self.run("-m", "benchmarks.probe", *arguments, tiktok=tiktok, **variables)
        return json.loads(output.splitlines()[-1])

    def redis(self) -> tuple[dict[str, Any], str]:
        """The settings of a cache that processes share, and its name and version."""
        url = os.environ.get("CACHE_URL") or DEFAULT_CACHE_URL
        cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
        answer = self.measure("cache", BENCH_CACHE=json.dumps(cache))
        if answer["error"]:
            raise NotHereError(f"no Redis ({answer['error']})")
        return cache, answer["version"]

    # The simulator

    @contextmanager
    def tiktok(
        self, accounts: int, *options: str, latency_seconds: float = 0.0
    ) -> Iterator[Tiktok]:
        """A simulator that rotates all tokens and has this many accounts, with due rows."""
        state, grants = self._grants(accounts)
        process = self.start(
            *("-m", "django_tiktok_business.simulator", "--port", "0", "--quiet"),
            *("--no-rate-limits", "--rotate", "always", "--latency", str(latency_seconds)),
            *("--state", str(state), "--no-save", *options),
        )
        assert process.stdout is not None  # noqa: S101 -- a pipe, see start()
        try:
            base_url = ""
            for line in process.stdout:
                if " on http://" in line:
                    base_url = line.partition(" on ")[2].partition(",")[0]
                if line.strip() == "Ready.":
                    break
            tiktok = Tiktok(base_url, grants)
            if self._database is not None:
                self.measure("fill", str(grants))
            yield tiktok
        finally:
            process.terminate()
            process.communicate()

    def _grants(self, accounts: int) -> tuple[Path, Path]:
        """A state file for the simulator, and its tokens for us; made once per number."""
        state = self.folder / f"state-{accounts}.json"
        grants = self.folder / f"grants-{accounts}.json"
        if not grants.exists():
            simulator = Simulator()
            issued = [simulator.issue_grant(f"account{number}") for number in range(accounts)]
            simulator.save(state)
            grants.write_text(json.dumps(issued), encoding="utf-8")
        return state, grants


def _run_sql(config: dict[str, Any], statement: str) -> str:
    """Run a statement outside the database; return why it failed, "" for success."""
    try:
        import psycopg
    except ImportError:
        return "psycopg is not installed"
    try:
        with psycopg.connect(
            host=config["HOST"] or None,
            port=config["PORT"] or None,
            user=config["USER"] or None,
            password=config["PASSWORD"] or None,
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        ) as connection:
            connection.execute(statement.encode())
    except psycopg.Error as error:
        return type(error).__name__
    return ""
