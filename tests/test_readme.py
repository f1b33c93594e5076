"""README.rst keeps its word: commands run, code works, tables agree with the package.

Commands run as somebody would type them who follows the steps: in a new Django project (`site`) or
in a copy of the parts of this repository that they name (`clone`).
"""

from __future__ import annotations

import ast
import configparser
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import docutils.core
import pytest
import requests
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.urls import resolve, reverse
from docutils import nodes

import django_tiktok_business
from django_tiktok_business import conf, exceptions, services, signals
from django_tiktok_business.exceptions import ReauthorizationRequired
from django_tiktok_business.simulator.__main__ import main as simulator_main
from tests.factories import connect, make_user
from tests.utils import running_simulator

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.rst").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")


def _parsed(text: str) -> tuple[nodes.document, str]:
    """The document, and all that docutils has to say about it."""
    warnings = io.StringIO()
    settings = {"warning_stream": warnings, "report_level": 1, "halt_level": 6}
    document = docutils.core.publish_doctree(text, settings_overrides=settings)
    return document, warnings.getvalue()


DOCUMENT, WARNINGS = _parsed(README)

# They have a SQLite database of their own, whatever DATABASE_URL says: once is enough.
starts_processes = pytest.mark.databases("sqlite")


def _blocks(language: str) -> list[str]:
    return [
        node.astext()
        for node in DOCUMENT.findall(nodes.literal_block)
        if language in node["classes"]
    ]


def _file(name: str, language: str = "python") -> list[str]:
    """The blocks that say in their first line which file they belong to."""
    return [text for text in _blocks(language) if text.startswith(f"# {name}\n")]


def _table(heading: str) -> list[list[str]]:
    """The rows, below their headings, of the table whose first heading this is."""
    tables = [
        [
            [" ".join(entry.astext().split()) for entry in row.findall(nodes.entry)]
            for row in table.findall(nodes.row)
        ]
        for table in DOCUMENT.findall(nodes.table)
    ]
    (rows,) = [rows for rows in tables if rows[0][0] == heading]
    return rows[1:]


def _section(title: str) -> str:
    (section,) = [node for node in DOCUMENT.findall(nodes.section) if node[0].astext() == title]
    return section.astext()


# What it looks like


def test_readme_and_changelog_are_valid_restructuredtext() -> None:
    assert WARNINGS == ""
    assert _parsed(CHANGELOG)[1] == ""
    # The package index shows one after the other, as one document.
    assert _parsed(f"{README}\n{CHANGELOG}")[1] == ""


def test_readme_names_the_supported_versions() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    classifiers = setup["metadata"]["classifiers"]
    pythons = re.findall(r"Python :: (3\.\d+)", classifiers)
    djangos = re.findall(r"Django :: (\d\.\d)", classifiers)
    versions = f"Python {pythons[0]} to {pythons[-1]}; Django {', '.join(djangos[:-1])}"
    assert f"{versions} or {djangos[-1]}; " in README


# Tables and names


def test_settings_table_is_the_one_of_the_package() -> None:
    rows = {key: (default, unit, meaning) for key, default, unit, meaning in _table("Key")}
    assert list(rows) == list(conf.SETTINGS)
    for name, setting in conf.SETTINGS.items():
        shown, unit, meaning = rows[name]
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        assert (shown == "required") == (default is conf.REQUIRED), name
        assert shown == "required" or ast.literal_eval(shown) == default, name
        assert bool(unit) == (type(default) is int), name
        for suffix, word in (("_SECONDS", "seconds"), ("_DAYS", "days")):
            assert not name.endswith(suffix) or unit == word, name
        assert meaning.endswith("."), name


def test_errors_in_the_table_exist() -> None:
    for name, meaning in _table("Catch"):
        mentioned = [name, *re.findall(r"\b[A-Z]\w+Error\b", meaning)]
        assert set(mentioned) <= set(exceptions.__all__)


def test_public_functions_and_signals_are_named() -> None:
    functions = {name for name in services.__all__ if name.islower()}
    # Connecting is the business of the views: nobody else gets an authorization code.
    functions -= {"connect_account"}
    assert functions == {name for name in functions if re.search(rf"\b{name}\b", README)}
    assert all(f"``{name}``" in README for name in signals.__all__)


def _options(command: BaseCommand) -> set[str]:
    parser = command.create_parser("manage.py", "refresh_tokens")
    return {option for action in parser._actions for option in action.option_strings}


def test_options_of_refresh_tokens_are_all_named_and_exist() -> None:
    own = _options(load_command_class("django_tiktok_business", "refresh_tokens"))
    of_all_commands = _options(BaseCommand())
    mentioned = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", _section("Refresh on a schedule")))
    mentioned -= {"--now", "--failed"}  # systemctl's
    assert mentioned <= own
    assert mentioned - of_all_commands == own - of_all_commands


def test_options_of_the_simulator_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        simulator_main(["--help"])
    existing = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    text = _section("Develop without TikTok")
    mentioned = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", text))
    assert {"--port", "--strict", "--state", "--local-images"} == mentioned <= existing


# Python


@pytest.mark.django_db(transaction=True)
def test_code_works(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    code = [text for text in _blocks("python") if not re.match(r"# [\w./]+\.py\n", text)]
    with running_simulator() as tiktok:
        account = connect(tiktok, username="harbour_bakery", owner=make_user("ada"))
        namespace: dict[str, Any] = {}
        for text in code:
            exec(compile(text, "README.rst", "exec"), namespace)
        try:
            assert capsys.readouterr().out == "Harbour Bakery 1532\n63\n"
            assert namespace["token"] == tiktok.live_tokens(account.open_id)[0]  # type: ignore[index]
            tiktok.revoke_grant(account.open_id)
            with pytest.raises(ReauthorizationRequired):
                services.refresh_account(account)
        finally:
            signals.reauthorization_required.disconnect(namespace["report_lost_account"])
    (record,) = [record for record in caplog.records if record.name == "shops"]
    assert record.getMessage().startswith(f"{account} has to be connected again by ada: ")


def test_views_can_be_replaced_as_shown(settings: Any) -> None:
    (_, text) = _file("urls.py")
    namespace: dict[str, Any] = {"__name__": "readme_urls"}
    exec(compile(text, "README.rst", "exec"), namespace)
    module = type(sys)("readme_urls")
    vars(module).update(namespace)
    settings.ROOT_URLCONF = module
    match = resolve(reverse("tiktok_business:callback"))
    assert match.func.view_class is namespace["CallbackView"]  # type: ignore[attr-defined]
    assert resolve("/tiktok/").view_name == "tiktok_business:account_list"


def test_access_log_of_nginx_covers_the_callback() -> None:
    (text,) = _blocks("nginx")
    assert f"location = {reverse('tiktok_business:callback')} {{" in text
    assert "$request_method $uri" in text
    assert not re.search(r"\$(request|request_uri|args|query_string|http_referer)\b", text)


# Commands


def _environment(bin_folder: Path) -> dict[str, str]:
    """The environment of a shell whose `python` has the package."""
    # Measuring what other tests cover would make each command take twice as long.
    dropped = ("COVERAGE_", "DATABASE_URL", "DEBUG", "DJANGO_", "MAKE", "SECRET_KEY", "TIKTOK_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(dropped)}
    package = Path(django_tiktok_business.__file__).parent.parent
    return {
        **kept,
        "PATH": f"{bin_folder}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(package),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }


class Newcomer:
    """Somebody who types what README says, with the simulator where TikTok would be."""

    def __init__(self, folder: Path) -> None:
        self.site = folder / "site"
        self.clone = folder / "clone"
        bin_folder = folder / "bin"
        for each in (self.site, self.clone, bin_folder):
            each.mkdir()
        # Not a link: a virtual environment's Python finds its packages by its own path.
        python = bin_folder / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        self.environment = _environment(bin_folder)
        for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.rst", "CHANGELOG.rst"):
            shutil.copy(ROOT / name, self.clone)
        without = shutil.ignore_patterns("__pycache__", ".demo", ".env", "*.sqlite3", "static")
        for name in ("django_tiktok_business", "example_project"):
            shutil.copytree(ROOT / name, self.clone / name, ignore=without)

    def run(self, command: str, **variables: str) -> str:
        """Run a command to its end; returns its stdout."""
        result = subprocess.run(
            command,
            shell=True,
            cwd=self.folder_for(command),
            env={**self.environment, **variables},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert result.returncode == 0, f"$ {command}\n{result.stdout}{result.stderr}"
        return result.stdout

    @contextmanager
    def running(self, command: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command that stays; ends it by SIGTERM."""
        with subprocess.Popen(
            f"exec {command}",
            shell=True,
            cwd=self.folder_for(command),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)

    def folder_for(self, command: str) -> Path:
        return self.clone if "example_project" in command else self.site

    def follow_the_steps(self, tiktok: str) -> None:
        """Make a project and put each block into the file that it names."""
        self.run("python -m django startproject mysite .")
        for name, texts in (
            ("mysite/settings.py", _file("settings.py")),
            ("mysite/urls.py", _file("urls.py")[:1]),
            ("tests.py", _file("tests.py")),
        ):
            with (self.site / name).open("a", encoding="utf-8") as file:
                file.writelines(f"\n{text}\n" for text in texts)
        lines = "\n".join(_file(".env", "ini")).replace("http://127.0.0.1:8420", tiktok)
        values = dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)
        text = "".join(f"{name}={value}\n" for name, value in values.items())
        (self.site / ".env").write_text(text, encoding="utf-8")

    def connect_an_account_that_expires_soon(self, tiktok: str) -> None:
        callback = "http://127.0.0.1:8000/tiktok/callback/"
        control = f"{tiktok}/_simulator"
        form = {
            "client_key": "7000000000000000001",
            "scope": "user.info.basic",
            "response_type": "code",
            "redirect_uri": callback,
            "account": "harbour_bakery",
            "granted": "user.info.basic",
            "decision": "approve",
        }
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(f"{control}/consent", data=form, allow_redirects=False)
            query = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
            code = (
                "from django.contrib.auth.models import User;"
                "from django_tiktok_business import services;"
                "user = User.objects.create_user('ada');"
                f"services.connect_account(user, code={query['code']!r}, redirect_uri={callback!r})"
            )
            session.post(f"{control}/settings", json={"access_token_lifetime_seconds": 1200})
            self.run(f"python manage.py shell -c {shlex.quote(code)}")
            session.post(f"{control}/settings", json={"access_token_lifetime_seconds": 86_400})


def _commands() -> list[tuple[str, str]]:
    """Each command of the console blocks with the output shown below it."""
    found = []
    for text in _blocks("console"):
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    read = ""
    while text not in read:
        line = process.stdout.readline()
        assert line, f"The output ended before {text!r}:\n{read}"
        read += line
    return read


def _await_page(url: str) -> str:
    with requests.Session() as session:
        session.trust_env = False
        deadline = time.monotonic() + 30
        while True:
            try:
                return session.get(url, timeout=30).text
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def _shape(output: str) -> str:
    return re.sub(r'"duration_seconds": [\d.]+', '"duration_seconds": N', output).strip()


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Has gone through the steps, with a simulator started as README says."""
    newcomer = Newcomer(tmp_path_factory.mktemp("newcomer"))
    (command,) = [each for each, _ in _commands() if "simulator" in each]
    with newcomer.running(command.replace("8420", "0")) as simulator:
        started = _read_until(simulator, "Ready.")
        (tiktok,) = re.findall(r"^TikTok simulator on (\S+),", started, re.MULTILINE)
        newcomer.follow_the_steps(tiktok)
        newcomer.run("python manage.py migrate --verbosity 0")
        newcomer.connect_an_account_that_expires_soon(tiktok)
        yield newcomer
    assert simulator.returncode == 0


def _try_command(newcomer: Newcomer, command: str) -> str:
    """Run a command, changed only where it would need a person, the network or a fixed port."""
    if command.startswith("make "):
        # tests/test_example_project.py runs what `make demo` runs, and `make test` is what runs
        # this very test: here it is seen that the targets exist and where they lead.
        result = subprocess.run(
            [*shlex.split(command), "--dry-run"],
            cwd=ROOT,
            env=newcomer.environment,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        leads_to = {"demo": "example_project/demo.py", "test": "pytest", "lint": "ruff"}
        assert leads_to[command.split()[1]] in result.stdout
        return ""
    if "pip install" in command:
        # The index is out of reach of a test, and the environment has the package already.
        offline = "--dry-run --no-deps --no-index --no-build-isolation --quiet"
        newcomer.run(command.replace("path/to/the/clone", f"{offline} {newcomer.clone}"))
        return ""
    if "createsuperuser" in command:
        options = "--noinput --username ada --email ada@example.org"
        return newcomer.run(f"{command} {options}", DJANGO_SUPERUSER_PASSWORD="correct horse")
    if "runserver" in command:
        port = _free_port()
        with newcomer.running(f"{command} --noreload {port}"):
            assert "Example project" in _await_page(f"http://127.0.0.1:{port}/")
        return ""
    if "--every" in command:
        with newcomer.running(command) as process:
            assert "refreshed=" in _read_until(process, "refreshed=")
        assert process.returncode == 0
        return ""
    if "simulator" in command:  # the fixture runs it
        return ""
    return newcomer.run(command)


@starts_processes
def test_each_command_runs_and_prints_what_is_shown(newcomer: Newcomer) -> None:
    commands = _commands()
    assert len(commands) > 15
    for command, shown in commands:
        output = _try_command(newcomer, command)
        if shown and not command.startswith("make "):
            assert _shape(output) == _shape(shown), command
        if "token_urlsafe" in command:
            assert len(output.strip()) >= 64
            _fill_in(newcomer.clone / "example_project" / ".env", output.strip())


def _fill_in(path: Path, key: str) -> None:
    """Do as the text says between two commands; the first time there is no file yet."""
    if path.exists():
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("\nSECRET_KEY=\n", f"\nSECRET_KEY={key}\n"), encoding="utf-8")


@starts_processes
def test_cron_line_runs(newcomer: Newcomer) -> None:
    (line,) = [text for text in _blocks("text") if text.startswith("*/15")]
    *when, command = line.split(maxsplit=5)
    assert when == ["*/15", "*", "*", "*", "*"]
    command = command.replace("/srv/mysite", str(newcomer.site))
    command = command.replace(".venv/bin/python", "python")
    newcomer.run(f"{command} --dry-run")  # another test counts what there is to refresh


def _unit(name: str) -> configparser.ConfigParser:
    (text,) = _file(name, "ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    return unit


@starts_processes
def test_systemd_units_fit_and_run(newcomer: Newcomer) -> None:
    service, timer = _unit("tiktok-tokens.service"), _unit("tiktok-tokens.timer")
    assert "systemctl enable --now tiktok-tokens.timer" in " ".join(README.split())
    assert timer["Timer"]["OnCalendar"] == "*:0/15"
    folder = service["Service"]["WorkingDirectory"]
    command = service["Service"]["ExecStart"]
    assert command.startswith(f"{folder}/.venv/bin/python ")
    command = command.replace(f"{folder}/.venv/bin/", "")
    assert "refreshed=" in newcomer.run(f"{command} --dry-run")
    assert service["Service"]["Type"] == "oneshot"  # the timer waits for the end of a run
