"""The example project and its tour, run as a newcomer runs them: processes and real HTTP.

They run from a copy, beside whose manage.py lies an ``.env`` with somebody's real credentials.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import IO
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
import requests
from django.contrib.sessions.backends.db import SessionStore
from django.test import override_settings

import django_tiktok_business
from django_tiktok_business.conf.settings import SETTINGS
from tests.support.leaks import Search
from tests.support.processes import only_one_suite

# The processes have a SQLite database of their own, whatever DATABASE_URL says: once is enough.
pytestmark = pytest.mark.databases("sqlite")

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "example_project"
REAL = {
    "SECRET_KEY": "real-secret-key-of-somebody",
    "DATABASE_URL": "sqlite:////nowhere/real.sqlite3",
    "TIKTOK_BUSINESS_APP_ID": "7999999999999999999",
    "TIKTOK_BUSINESS_APP_SECRET": "real-app-secret-of-somebody",
    "TIKTOK_BUSINESS_API_BASE_URL": "https://business-api.tiktok.com/open_api/v1.3",
    "TIKTOK_BUSINESS_SCOPES": "video.publish",
}
SERVING = "Ctrl-C stops everything."


def _environment(**variables: str) -> dict[str, str]:
    """The environment of a shell in which the package is installed."""
    names = re.findall(r"^#?([A-Z_]+)=", _read(PROJECT / ".env.example"), re.MULTILINE)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in (*names, "DJANGO_SETTINGS_MODULE", "ENV_FILE")
        # Measuring what other tests cover would make the tour take twice as long.
        and not name.startswith("COVERAGE_")
    }
    # The copy under test: the checkout, or where tox has installed the wheel.
    package = Path(django_tiktok_business.__file__).parent.parent
    return {**kept, "PYTHONPATH": str(package), "PYTHONUTF8": "1", **variables}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _copy(folder: Path) -> Path:
    without = shutil.ignore_patterns(".demo", ".env", "*.sqlite3", "static", "__pycache__")
    return Path(shutil.copytree(PROJECT, folder / PROJECT.name, ignore=without))


@contextmanager
def _demo(folder: Path, *options: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start the tour in a folder that holds a copy; kill it should it hang."""
    with subprocess.Popen(
        [sys.executable, "example_project/demo.py", *options],
        cwd=folder,
        env=_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.terminate()


def _read_until(stream: IO[str] | None, text: str) -> str:
    assert stream is not None
    read = ""
    while text not in read:
        line = stream.readline()
        assert line, f"The output ended before {text!r}:\n{read}"
        read += line
    return read


def _is_listening(port: str | int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def _ports(output: str) -> tuple[str, str]:
    """The ports of the simulator and of the site, as the tour has printed them."""
    simulator, site = re.findall(r"runs on http://127\.0\.0\.1:(\d+)$", output, re.MULTILINE)
    return simulator, site


@dataclass(frozen=True)
class Tour:
    folder: Path
    output: str
    state: Path

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{_ports(self.output)[1]}"

    @property
    def files(self) -> Path:
        return self.folder / "example_project" / ".demo" / self.web.rpartition(":")[2]

    @property
    def settings(self) -> dict[str, str]:
        lines = _read(self.files / ".env").splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module", autouse=True)
def _one_suite_at_a_time() -> Iterator[None]:
    """A demo looks for free ports before it takes them: those of two suites would take the same."""
    with only_one_suite("demo"):
        yield


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    """A demo that has done its tour and serves."""
    folder = tmp_path_factory.mktemp("newcomer")
    lines = "".join(f"{name}={value}\n" for name, value in REAL.items())
    (_copy(folder) / ".env").write_text(lines, encoding="utf-8")
    state = folder / "tiktok.json"
    with _demo(folder, "--state", str(state), **REAL) as process:
        tour = Tour(folder, _read_until(process.stdout, SERVING), state)
        yield tour
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert (process.returncode, rest, errors) == (0, "\nStopped.\n", "")
    assert not any(map(_is_listening, _ports(tour.output)))


# The tour


def _shape(output: str) -> str:
    """The output without what differs from run to run: ports, ids and ciphertext."""
    for pattern, stand_in in (
        (r"(127\.0\.0\.1:|\.demo/)\d+", r"\g<1>PORT"),
        (r"request id \w+", "request id ID"),
        (r"ttb1:[0-9a-f]{8}:gAAAA[\w-]+", "CIPHERTEXT"),
    ):
        output = re.sub(pattern, stand_in, output)
    return output


def test_demo_prints_every_step(tour: Tour) -> None:
    steps = re.findall(r"^ ?\d+\. (.+)$", tour.output, re.MULTILINE)
    expected = [
        r"A new SQLite database: example_project/\.demo/\d+/db\.sqlite3",
        r"TikTok, simulated, runs on http://127\.0\.0\.1:\d+",
        r"The example project runs on http://127\.0\.0\.1:\d+",
        r"Logged in to the admin as demo",
        r"Connected Harbour Bakery \(.+ 1,532 followers\), access token good for 24 hours",
        r"Connected Galaxy Gadgets \(.+ followers\), access token good for 20 minutes",
        r"Connected Alpine Vélo .+ \(.+ followers\), access token good for 24 hours",
        r'Pressed "Deny" once: the page says ".+", nothing is stored',
        r"Renewed what expires within 6 hours:",
        r"The holder of @alpine_velo removed the app in TikTok:",
        r"In the database an access token reads ttb1:[0-9a-f]{8}:gAAAA[\w-]+\.\.\.",
        r"More accounts, so that the admin shows every state of health:",
    ]
    assert len(steps) == len(expected)
    for step, pattern in zip(steps, expected, strict=True):
        assert re.fullmatch(pattern, step)
    summary = "refreshed=1 retry_later=0 reauthorization_required=0 undecryptable=0 skipped=0"
    assert f"    {summary} stopped=no\n    (exit status 0)\n" in tour.output
    assert "The token of Galaxy Gadgets is good for 24 hours again." in tour.output
    assert f"Admin     {tour.web}/admin/   user: demo   password: demo\n" in tour.output


def test_demo_once_ends_with_success_and_leaves_nothing_running(tour: Tour) -> None:
    with _demo(tour.folder, "--once", "--port", tour.web.rpartition(":")[2]) as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert output.endswith("\nDone. Both servers are stopped.\n")
    # The ports that were asked for serve the other demo: the next free ones are taken.
    assert not set(_ports(output)) & set(_ports(tour.output))
    assert not any(map(_is_listening, _ports(output)))
    assert _is_listening(_ports(tour.output)[1])
    tour_alone = tour.output.rpartition("\n    Admin ")[0]
    assert _shape(output) == f"{_shape(tour_alone)}\nDone. Both servers are stopped.\n"


def test_readme_shows_what_the_demo_prints(tour: Tour) -> None:
    (shown,) = re.findall(
        r"^    \$ make demo ONCE=1\n((?:    .*\n|\n)+)", _read(ROOT / "README.rst"), re.MULTILINE
    )
    tour_alone = tour.output.rpartition("\n    Admin ")[0]
    printed = f"{tour_alone}\nDone. Both servers are stopped.\n"
    assert _shape(textwrap.dedent(shown)).strip() == _shape(printed).strip()


def test_demo_command_for_a_second_terminal_works(tour: Tour) -> None:
    (command,) = re.findall(r"^    Command   (.+)$", tour.output, re.MULTILINE)
    result = subprocess.run(
        command,
        shell=True,
        cwd=tour.folder,
        env=_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    summary = "refreshed=3 retry_later=0 reauthorization_required=0 undecryptable=1 "
    assert f"\n{summary}" in result.stdout
    assert result.returncode == 1
    assert " DEBUG " not in result.stderr


def test_demo_takes_no_credentials_from_the_environment_or_an_env_file(tour: Tour) -> None:
    settings = tour.settings
    assert not set(settings.values()) & set(REAL.values())
    assert settings["TIKTOK_BUSINESS_APP_SECRET"] == "simulator-app-secret-not-real"
    assert not (tour.folder / "example_project" / "db.sqlite3").exists()
    written = b"".join(path.read_bytes() for path in tour.files.iterdir())
    assert not [value for value in REAL.values() if value.encode() in written]


def test_demo_stopped_half_way_ends_its_processes_and_fails(tmp_path: Path) -> None:
    _copy(tmp_path)
    with _demo(tmp_path) as process:
        output = _read_until(process.stdout, "The example project runs on")
        assert all(map(_is_listening, _ports(output)))
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate()
    assert (process.returncode, errors) == (1, "")
    assert rest.endswith("\nStopped before the end.\n")
    assert not any(map(_is_listening, _ports(output)))


def test_demo_failing_step_is_told_and_exits_1(tmp_path: Path) -> None:
    _copy(tmp_path)
    state = tmp_path / "holiday.json"
    state.write_text("{}", encoding="utf-8")
    with _demo(tmp_path, "--once", "--state", str(state)) as process:
        output, errors = process.communicate()
    assert process.returncode == 1
    assert "Done" not in output
    assert errors.startswith("\nThe demo failed: The simulator has ended:\n")
    assert f"{state} is not a state file of the TikTok simulator\n" in errors
    assert re.search(r"^Logs: example_project/\.demo/\d+$", errors, re.MULTILINE)


def test_demo_without_a_free_port_says_how_to_choose_another(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65_535))
        taken.listen()
        _copy(tmp_path)
        with _demo(tmp_path, "--once", "--port", "65535") as process:
            _, errors = process.communicate()
    assert process.returncode == 1
    assert "no free port from 65535 on; choose another: make demo PORT=9000" in errors


# What is left behind: nothing may hold a token, a code or a secret


def _secrets(tour: Tour) -> set[str]:
    state = json.loads(_read(tour.state))
    own = {
        value
        for name, value in tour.settings.items()
        if name.endswith(("SECRET", "SECRET_KEY", "ENCRYPTION_KEYS"))
    }
    assert len(own) == 3

    def issued(part: object) -> Iterator[str]:
        if isinstance(part, Mapping):
            for key, value in part.items():
                yield from (*issued(key), *issued(value))
        elif isinstance(part, list):
            for value in part:
                yield from issued(value)
        elif isinstance(part, str) and part.startswith(("act.", "rft.", "SIMcode_")):
            yield part

    known = set(issued(state))
    # Two accounts are left, each with a code and a refresh token; one has been refreshed.
    assert len(known) >= 7
    # What the simulator has forgotten, as that of the revoked account, begins like this too.
    return own | known | {"act.SIM", "rft.SIM", "SIMcode_"}


@pytest.fixture(scope="module")
def search(tour: Tour) -> Search:
    return Search(_secrets(tour))


def test_search_finds_what_the_simulator_has_issued(tour: Tour, search: Search) -> None:
    assert search.found_in(tour.state.read_bytes())
    for secret in _secrets(tour):
        assert search.found_in(base64.b64encode(f"code={secret}".encode()))
    assert not search.found_in(b"nothing of that sort")


def test_f38_database_file_holds_no_token_code_or_secret(tour: Tour, search: Search) -> None:
    files = list(tour.files.glob("db.sqlite3*"))
    assert not search.found_in(b"".join(path.read_bytes() for path in files))
    with closing(sqlite3.connect(tour.files / "db.sqlite3")) as database:
        rows = database.execute(
            "SELECT access_token, refresh_token FROM tiktok_business_businessaccount"
        ).fetchall()
    assert len(rows) == 6
    assert rows.count(("", "")) == 1, "of the one that was disconnected"
    assert all(text.startswith("ttb1:") for row in rows for text in row if text)


def test_f37_server_log_at_debug_holds_no_token_code_or_secret(tour: Tour, search: Search) -> None:
    log = (tour.files / "server.log").read_bytes()
    assert b" DEBUG django.db.backends: " in log
    assert b" DEBUG urllib3.connectionpool: " in log
    assert log.count(b'"GET /tiktok/callback/?<redacted> HTTP/1.1"') == 7
    assert not search.found_in(log)
    assert not search.found_in((tour.files / "simulator.log").read_bytes())


def test_session_table_holds_no_token_code_or_secret(tour: Tour, search: Search) -> None:
    with closing(sqlite3.connect(tour.files / "db.sqlite3")) as database:
        rows = database.execute("SELECT session_data FROM django_session").fetchall()
    with override_settings(SECRET_KEY=tour.settings["SECRET_KEY"]):
        sessions = [SessionStore().decode(row[0]) for row in rows]
    assert any("_auth_user_id" in session for session in sessions)
    assert not search.found_in(json.dumps(sessions).encode())


def _log_in(web: str, session: requests.Session) -> None:
    login = f"{web}/admin/login/"
    page = session.get(login, timeout=30).text
    (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    form = {"csrfmiddlewaretoken": token, "username": "demo", "password": "demo"}
    answer = session.post(login, data=form, headers={"Referer": login}, timeout=30)
    answer.raise_for_status()
    assert urlsplit(answer.url).path == "/"


def _pages(web: str) -> dict[str, bytes]:
    """Every page of the site that links lead to, each with headers; queries one step deep."""
    pages: dict[str, bytes] = {}
    waiting = [f"{web}/", f"{web}/admin/"]
    with requests.Session() as session:
        session.trust_env = False
        _log_in(web, session)
        while waiting:
            url = waiting.pop()
            if url in pages:
                continue
            answer = session.get(url, timeout=30)
            assert answer.status_code == 200, url
            headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
            pages[url] = headers.encode() + answer.content
            if urlsplit(url).query:
                continue
            for target in re.findall(r'href="([^"]+)"', answer.text):
                link = urldefrag(urljoin(url, unescape(target))).url
                if link.startswith(f"{web}/") and "/static/" not in link:
                    waiting.append(link)
    return pages


def test_f36_no_page_of_the_site_shows_a_token_code_or_secret(tour: Tour, search: Search) -> None:
    pages = _pages(tour.web)
    paths = {urlsplit(url).path for url in pages}
    accounts = "/admin/tiktok_business/businessaccount/"
    assert {"/", "/tiktok/", "/admin/", accounts} <= paths
    changes = {path for path in paths if re.fullmatch(rf"{accounts}\d+/change/", path)}
    assert len(changes) == 6
    for change in changes:
        assert {change.replace("/change/", f"/{page}/") for page in ("history", "delete")} <= paths
    assert b"Harbour Bakery" in pages[f"{tour.web}{accounts}"]
    assert b"Harbour Bakery" in pages[f"{tour.web}/tiktok/"]
    assert {url: found for url, text in pages.items() if (found := search.found_in(text))} == {}


# The settings


def _manage(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project,
        env=_environment(**variables),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def _check_ids(result: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"\(([a-z_]+\.[A-Z]\d+)\)", result.stdout + result.stderr))


def test_settings_without_a_file_say_what_to_copy(tmp_path: Path) -> None:
    result = _manage(_copy(tmp_path), "check")
    assert result.returncode == 1
    assert "SECRET_KEY is not set. Copy example_project/.env.example to" in result.stderr


def test_settings_filled_in_as_explained_pass_the_checks(tmp_path: Path) -> None:
    project = _copy(tmp_path)
    text = _read(project / ".env.example")
    for name, value in (
        ("SECRET_KEY", "Zk4mXw8nQv2bLs6tRy9cHd3fJg7pKe5aUo1iWxTqBzNhVr0u-example"),
        ("TIKTOK_BUSINESS_ENCRYPTION_KEYS", "pT7kRw2mXc9vBn4sLd6gHj8qZf3yKa5uEo1iNxWtVbQrMz0h"),
    ):
        text, count = re.subn(rf"^{name}=$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1
    (project / ".env").write_text(text, encoding="utf-8")
    result = _manage(project, "check")
    assert result.returncode == 0
    # TikTok would not take the address of the simulator's redirect.
    assert _check_ids(result) == {"tiktok_business.W001"}


PRODUCTION = {
    "SECRET_KEY": "Zk4mXw8nQv2bLs6tRy9cHd3fJg7pKe5aUo1iWxTqBzNhVr0u-example",
    "ALLOWED_HOSTS": "shop.example",
    "BEHIND_HTTPS_PROXY": "True",
    "TIKTOK_BUSINESS_APP_ID": "7999999999999999999",
    "TIKTOK_BUSINESS_APP_SECRET": "0123456789abcdef",
    "TIKTOK_BUSINESS_ENCRYPTION_KEYS": "pT7kRw2mXc9vBn4sLd6gHj8qZf3yKa5uEo1iNxWtVbQrMz0h",
    "TIKTOK_BUSINESS_REDIRECT_URI": "https://shop.example/tiktok/callback/",
    "CACHE_URL": "rediscache://cache.example:6379/1",
}


def test_settings_for_the_real_tiktok_pass_the_deployment_checks(tmp_path: Path) -> None:
    result = _manage(_copy(tmp_path), "check", "--deploy", **PRODUCTION)
    assert result.returncode == 0
    # Whether subdomains and the browsers' preload lists are affected is the domain owner's choice.
    assert _check_ids(result) == {"security.W005", "security.W021"}


def test_settings_read_from_the_environment(tmp_path: Path) -> None:
    names = ["DEBUG", "SECURE_SSL_REDIRECT", "DATABASES", "CACHES", "TIKTOK_BUSINESS"]
    code = (
        f"import json, example.settings as s; print(json.dumps([getattr(s, n) for n in {names}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=_copy(tmp_path),
        env=_environment(
            **PRODUCTION,
            DATABASE_URL="postgres://ada:pw@db.example:5432/shop",
        ),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    debug, redirect, databases, caches, tiktok_business = json.loads(result.stdout)
    assert (debug, redirect) == (False, True)
    assert databases["default"]["ENGINE"] == "django.db.backends.postgresql"
    assert databases["default"]["HOST"] == "db.example"
    assert "cache.example" in caches["default"]["LOCATION"]
    assert tiktok_business["ENCRYPTION_KEYS"] == [PRODUCTION["TIKTOK_BUSINESS_ENCRYPTION_KEYS"]]


def test_env_example_explains_every_setting() -> None:
    example = _read(PROJECT / ".env.example")
    explained = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', _read(PROJECT / "example/settings.py")))
    assert "SECRET_KEY" in read
    assert explained == (read - {"ENV_FILE"}) | {f"TIKTOK_BUSINESS_{name}" for name in SETTINGS}


def test_env_example_shows_the_defaults() -> None:
    example = _read(PROJECT / ".env.example")
    shown = dict(re.findall(r"^#TIKTOK_BUSINESS_([A-Z_]+)=(.+)$", example, re.MULTILINE))
    del shown["CONNECT_REDIRECT_URL"]  # None by default; what stands there is an example
    assert {name: SETTINGS[name].parse(text) for name, text in shown.items()} == {
        name: list(default) if isinstance(default := SETTINGS[name].default, tuple) else default
        for name in shown
    }
