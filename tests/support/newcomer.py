"""A newcomer who follows the documentation: reads its files and types its commands."""

from __future__ import annotations

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
from urllib.parse import parse_qsl, urlsplit

import docutils.core
import pytest
import requests
from docutils import nodes

import django_tiktok_business

ROOT = Path(__file__).resolve().parents[2]

# They use their own SQLite database, whatever DATABASE_URL says: once is enough.
starts_processes = pytest.mark.databases("sqlite")


def parsed(text: str) -> tuple[nodes.document, str]:
    """The document, and the warnings of docutils about it."""
    warnings = io.StringIO()
    settings = {"warning_stream": warnings, "report_level": 1, "halt_level": 6}
    document = docutils.core.publish_doctree(text, settings_overrides=settings)
    return document, warnings.getvalue()


class Document:
    """A reStructuredText file of this repository."""

    def __init__(self, name: str) -> None:
        self.text = (ROOT / name).read_text(encoding="utf-8")
        self._document, self.warnings = parsed(self.text)

    def blocks(self, language: str) -> list[str]:
        return [
            node.astext()
            for node in self._document.findall(nodes.literal_block)
            if language in node["classes"]
        ]

    def file(self, name: str, language: str = "python") -> list[str]:
        """The blocks whose first line names this file."""
        return [text for text in self.blocks(language) if text.startswith(f"# {name}\n")]

    def table(self, heading: str) -> list[list[str]]:
        """The rows, without the headings, of the table that begins with this heading."""
        tables = [
            [
                [" ".join(entry.astext().split()) for entry in row.findall(nodes.entry)]
                for row in table.findall(nodes.row)
            ]
            for table in self._document.findall(nodes.table)
        ]
        (rows,) = [rows for rows in tables if rows[0][0] == heading]
        return rows[1:]

    def section(self, title: str) -> str:
        (section,) = [
            node for node in self._document.findall(nodes.section) if node[0].astext() == title
        ]
        return section.astext()

    def commands(self) -> list[tuple[str, str]]:
        """Each command of the console blocks with the output shown below it."""
        found = []
        for text in self.blocks("console"):
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                found.append((command, output))
        return found


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
    """Somebody who types what README says, with the simulator in place of TikTok."""

    tiktok: str  # its address

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
        for name in ("benchmarks", "django_tiktok_business", "example_project"):
            shutil.copytree(ROOT / name, self.clone / name, ignore=without)

    def run(self, command: str, **variables: str) -> str:
        """Run a command to its end; return its stdout."""
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

    def pretend_to_install(self, command: str) -> None:
        """Run a command of pip without the index, which a test cannot reach.

        The environment has everything already.
        """
        offline = "--dry-run --no-deps --no-index --no-build-isolation --quiet"
        command = command.replace("path/to/the/clone", str(self.clone))
        self.run(command.replace("pip install", f"pip install {offline}"))

    @contextmanager
    def running(self, command: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command that keeps running; end it by SIGTERM."""
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
                process.wait(60)  # a hung one fails the test instead of blocking the suite

    def folder_for(self, command: str) -> Path:
        in_clone = "example_project" in command or "benchmarks" in command
        return self.clone if in_clone else self.site

    def follow_the_steps(self, readme: Document, tiktok: str) -> None:
        """Make a project and put each block into the file that it names."""
        self.run("python -m django startproject mysite .")
        for name, texts in (
            ("mysite/settings.py", readme.file("settings.py")),
            ("mysite/urls.py", readme.file("urls.py")[:1]),
            ("tests.py", readme.file("tests.py")),
        ):
            with (self.site / name).open("a", encoding="utf-8") as file:
                file.writelines(f"\n{text}\n" for text in texts)
        lines = "\n".join(readme.file(".env", "ini")).replace("http://127.0.0.1:8420", tiktok)
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    read = ""
    while text not in read:
        line = process.stdout.readline()
        assert line, f"The output ended before {text!r}:\n{read}"
        read += line
    return read


def await_page(url: str) -> str:
    with requests.Session() as session:
        session.trust_env = False
        deadline = time.monotonic() + 30
        while True:
            try:
                return session.get(url, timeout=30).text
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


@contextmanager
def newcomer_to_a_site(folder: Path) -> Iterator[Newcomer]:
    """A newcomer who has followed README's steps, with a simulator started as it says."""
    readme = Document("README.rst")
    newcomer = Newcomer(folder)
    (command,) = [each for each, _ in readme.commands() if "simulator" in each]
    with newcomer.running(command.replace("8420", "0")) as simulator:
        started = read_until(simulator, "Ready.")
        (tiktok,) = re.findall(r"^TikTok simulator on (\S+),", started, re.MULTILINE)
        newcomer.tiktok = tiktok
        newcomer.follow_the_steps(readme, tiktok)
        newcomer.run("python manage.py migrate --verbosity 0")
        newcomer.connect_an_account_that_expires_soon(tiktok)
        yield newcomer
    assert simulator.returncode == 0
