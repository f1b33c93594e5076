"""README.rst is true: commands run, code works, tables agree with the package.

Commands run as somebody would type them who follows the steps: in a new Django project (`site`) or
in a copy of the parts of this repository that they name (`clone`).
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.urls import resolve, reverse

from django_tiktok_business import exceptions, services, signals
from django_tiktok_business.conf.settings import SETTINGS
from django_tiktok_business.conf.validators import REQUIRED
from django_tiktok_business.exceptions import ReauthorizationRequired
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator.__main__ import main as simulator_main
from tests.support.factories import connect, make_user
from tests.support.newcomer import (
    ROOT,
    Document,
    Newcomer,
    await_page,
    free_port,
    newcomer_to_a_site,
    parsed,
    read_until,
    starts_processes,
)
from tests.support.simulator import running_simulator

CHANGELOG = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")


DOCUMENT = Document("README.rst")
README = DOCUMENT.text

# What it looks like


def test_readme_and_changelog_are_valid_restructuredtext() -> None:
    assert DOCUMENT.warnings == ""
    assert parsed(CHANGELOG)[1] == ""
    # The package index shows one after the other, as one document.
    assert parsed(f"{README}\n{CHANGELOG}")[1] == ""


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
    rows = {key: (default, unit, meaning) for key, default, unit, meaning in DOCUMENT.table("Key")}
    assert list(rows) == list(SETTINGS)
    for name, setting in SETTINGS.items():
        shown, unit, meaning = rows[name]
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        assert (shown == "required") == (default is REQUIRED), name
        assert shown == "required" or ast.literal_eval(shown) == default, name
        assert bool(unit) == (type(default) is int), name
        for suffix, word in (("_SECONDS", "seconds"), ("_DAYS", "days")):
            assert not name.endswith(suffix) or unit == word, name
        assert meaning.endswith("."), name


def test_errors_in_the_table_exist() -> None:
    for name, meaning in DOCUMENT.table("Catch"):
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
    mentioned = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", DOCUMENT.section("Refresh on a schedule")))
    mentioned -= {"--now", "--failed"}  # systemctl's
    assert mentioned <= own
    assert mentioned - of_all_commands == own - of_all_commands


def test_options_of_the_simulator_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        simulator_main(["--help"])
    existing = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    text = DOCUMENT.section("Develop without TikTok")
    mentioned = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", text))
    assert {"--port", "--strict", "--state", "--local-images"} == mentioned <= existing


# Python


@contextmanager
def posts() -> Iterator[tuple[str, list[Any]]]:
    """A server: its address, and the JSON that is posted to it."""
    posted: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- http.server's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", posted
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.django_db(transaction=True)
def test_code_works(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    code = [text for text in DOCUMENT.blocks("python") if not re.match(r"# [\w./]+\.py\n", text)]
    with running_simulator() as tiktok:
        account = connect(tiktok, username="harbour_bakery", owner=make_user("ada"))
        namespace: dict[str, Any] = {}
        for text in code:
            exec(compile(text, "README.rst", "exec"), namespace)
        request = {"url": "https://shop.example/tiktok/callback/", "query_string": "code=1"}
        event = namespace["without_callback_query"]({"request": request}, {})
        assert event == {"request": {"url": "https://shop.example/tiktok/callback/"}}
        try:
            assert capsys.readouterr().out == "Harbour Bakery 1532\n63\n"
            assert namespace["token"] == tiktok.live_tokens(account.open_id)[0]  # type: ignore[index]
            tiktok.revoke_grant(account.open_id)
            with pytest.raises(ReauthorizationRequired):
                services.refresh_account(account)
            with posts() as (namespace["SLACK_URL"], posted):
                ((_, failure),) = signals.consent_ends_soon.send_robust(
                    BusinessAccount,
                    account=BusinessAccount(display_name="A <B>"),
                    ends_at=datetime(2027, 3, 1, tzinfo=UTC),
                )
            assert failure is None
            assert posted == [{"text": "Please connect A &lt;B&gt; again before 01 March 2027."}]
        finally:
            signals.reauthorization_required.disconnect(namespace["report_lost_account"])
            signals.consent_ends_soon.disconnect(namespace["tell_slack"])
    (record,) = [record for record in caplog.records if record.name == "shops"]
    assert record.getMessage().startswith(f"{account} has to be connected again by ada: ")


def test_views_can_be_replaced_as_shown(settings: Any) -> None:
    (_, text) = DOCUMENT.file("urls.py")
    namespace: dict[str, Any] = {"__name__": "readme_urls"}
    exec(compile(text, "README.rst", "exec"), namespace)
    module = type(sys)("readme_urls")
    vars(module).update(namespace)
    settings.ROOT_URLCONF = module
    match = resolve(reverse("tiktok_business:callback"))
    assert match.func.view_class is namespace["CallbackView"]  # type: ignore[attr-defined]
    assert resolve("/tiktok/").view_name == "tiktok_business:account_list"


def test_access_log_of_nginx_covers_the_callback() -> None:
    (text,) = DOCUMENT.blocks("nginx")
    assert f"location = {reverse('tiktok_business:callback')} {{" in text
    assert "$request_method $uri" in text
    assert not re.search(r"\$(request|request_uri|args|query_string|http_referer)\b", text)


# Commands


def _shape(output: str) -> str:
    return re.sub(r'"duration_seconds": [\d.]+', '"duration_seconds": N', output).strip()


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    with newcomer_to_a_site(tmp_path_factory.mktemp("newcomer")) as newcomer:
        yield newcomer


def _try_command(newcomer: Newcomer, command: str) -> str:
    """Run a command, changed only where it would need a person, the network or a fixed port."""
    if command.startswith("make "):
        # tests/project/test_example_project.py runs what `make demo` runs, and `make test` runs
        # this very test: check only that the targets exist and where they lead.
        result = subprocess.run(
            [*shlex.split(command), "--dry-run"],
            cwd=ROOT,
            env=newcomer.environment,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        leads_to = {
            "demo": "example_project/demo.py",
            "test": "pytest",
            "fuzz": "TEST_HYPOTHESIS=nightly",
            "lint": "ruff",
        }
        assert leads_to[command.split()[1]] in result.stdout
        return ""
    if "pip install" in command:
        newcomer.pretend_to_install(command)
        return ""
    if "createsuperuser" in command:
        options = "--noinput --username ada --email ada@example.org"
        return newcomer.run(f"{command} {options}", DJANGO_SUPERUSER_PASSWORD="correct horse")
    if "runserver" in command:
        port = free_port()
        with newcomer.running(f"{command} --noreload {port}"):
            assert "Example project" in await_page(f"http://127.0.0.1:{port}/")
        return ""
    if "tiktok_doctor" in command:  # it warns of settings that are fit for development only
        output = newcomer.run(f"{command} || test $? -eq 1")
        assert "✓ TikTok accepts APP_ID and APP_SECRET." in output
        return output
    if "--every" in command:
        with newcomer.running(command) as process:
            assert "refreshed=" in read_until(process, "refreshed=")
        assert process.returncode == 0
        return ""
    if "simulator" in command:  # the fixture runs it
        return ""
    return newcomer.run(command)


@starts_processes
def test_each_command_runs_and_prints_what_is_shown(newcomer: Newcomer) -> None:
    commands = DOCUMENT.commands()
    assert len(commands) > 15
    for command, shown in commands:
        output = _try_command(newcomer, command)
        if shown and not command.startswith("make "):
            assert _shape(output) == _shape(shown), command
        if "token_urlsafe" in command:
            assert len(output.strip()) >= 64
            _fill_in(newcomer.clone / "example_project" / ".env", output.strip())


def _fill_in(path: Path, key: str) -> None:
    """Do what the text says between two commands; the first time there is no file yet."""
    if path.exists():
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("\nSECRET_KEY=\n", f"\nSECRET_KEY={key}\n"), encoding="utf-8")


@starts_processes
def test_cron_line_runs(newcomer: Newcomer) -> None:
    (line,) = [text for text in DOCUMENT.blocks("text") if text.startswith("*/15")]
    *when, command = line.split(maxsplit=5)
    assert when == ["*/15", "*", "*", "*", "*"]
    command = command.replace("/srv/mysite", str(newcomer.site))
    command = command.replace(".venv/bin/python", "python")
    newcomer.run(f"{command} --dry-run")  # another test counts what there is to refresh


def _unit(name: str) -> configparser.ConfigParser:
    (text,) = DOCUMENT.file(name, "ini")
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
