"""CONTRIBUTING.md is true: its tree is the package's, its paths exist, its commands work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
from environ import Env

from tests.project.test_architecture import FOR_ALL, PACKAGE, ROWS
from tests.support.newcomer import ROOT, starts_processes

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
(TREE,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
# The names at the beginning of each line, without what is said about them.
LINES = [re.split(r"  +", line)[0].split() for line in TREE.splitlines()]
ROOMS = [name.removesuffix("/").removesuffix(".py") for line in LINES for name in line]
PATHS = {path for path in re.findall(r"`([\w./]+)`", TEXT) if "/" in path or path.endswith(".rst")}
COMMANDS = re.findall(r"^\$ (.+)$", TEXT, re.MULTILINE)
OF_MAKE = [command for command in COMMANDS if command.startswith("make ")]
# Without the variables before them; the database is looked at below.
OF_PYTHON = {command[command.index(".venv/") :] for command in COMMANDS if command not in OF_MAKE}
# What a target of the Makefile leads to.
LEADS_TO = {
    "test": "-m pytest",
    "lint": "ruff check",
    "demo": "example_project/demo.py",
    ".venv/.postgres": "requirements-postgres.txt",
    ".venv/.mariadb": "requirements-mariadb.txt",
}
ENGINES = {
    "postgres": "django.db.backends.postgresql",
    "mariadb": "django.db.backends.mysql",
}


def test_tree_is_the_one_of_the_package() -> None:
    assert sorted(ROOMS) == sorted(set(ROWS) - {""})
    assert [name for line in LINES for name in line if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_from_above_and_from_its_left(room: str) -> None:
    assert ROWS[room] <= {*ROOMS[: ROOMS.index(room)], *FOR_ALL}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_path_exists(path: str) -> None:
    pattern = path.replace("GROUP", "*").replace("TOPIC", "*")
    assert [*ROOT.glob(pattern), *PACKAGE.glob(pattern)]


@pytest.mark.parametrize("command", OF_MAKE)
def test_target_leads_where_it_should(command: str) -> None:
    _, target, *more = shlex.split(command)
    recipe = subprocess.run(
        ["make", target, *more, "--dry-run", "--always-make"],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if not name.startswith("MAKE")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert LEADS_TO[target] in recipe
    for argument in more:
        assert argument.partition("=")[2] in recipe


@starts_processes
@pytest.mark.once
@pytest.mark.parametrize("command", sorted(OF_PYTHON))
def test_command_finds_tests(command: str) -> None:
    python, *arguments = shlex.split(command)
    assert python == ".venv/bin/python"
    # The suite around this test may leave some out, or spread them.
    ours = ("DATABASE_URL", "PYTEST_", "TEST_BROWSER", "TEST_HEAVY", "TEST_ONCE")
    subprocess.run(
        [sys.executable, *arguments, "--collect-only", "--quiet", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if not name.startswith(ours)},
        stdout=subprocess.DEVNULL,
        check=True,  # also for finding none
    )


def test_addresses_of_databases_are_of_the_drivers_named() -> None:
    urls = re.findall(r"^\$ make \.venv/\.(\w+)\n\$ DATABASE_URL=(\S+) ", TEXT, re.MULTILINE)
    named = {driver: Env.db_url_config(url)["ENGINE"] for driver, url in urls}
    assert named == ENGINES


def test_guide_is_shipped() -> None:
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    assert "include CONTRIBUTING.md" in lines
