"""What a reviewer looks for in the sources before running anything."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.audit import verdict

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "django_tiktok_business").rglob("*.py"))

# What makes code of data, or starts a program.
DANGEROUS_MODULES = {"ctypes", "dill", "marshal", "pickle", "shelve", "subprocess", "yaml"}
DANGEROUS_CALLS = {"__import__", "compile", "eval", "exec", "mark_safe", "popen", "system"}


def dangers_in(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
        elif isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", getattr(function, "attr", ""))
            is_pattern = isinstance(function, ast.Attribute) and name == "compile"
            found += [name] if name in DANGEROUS_CALLS and not is_pattern else []
    dangerous = DANGEROUS_MODULES | DANGEROUS_CALLS
    return [name for name in found if name.partition(".")[0] in dangerous]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_outside_data_can_become_code(path: Path) -> None:
    assert dangers_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "eval(text)", "import yaml.loader"),
        *("os.system(text)", "builtins.exec(text)", "mark_safe(text)", "compile(text, '', 'exec')"),
    ],
)
def test_review_notices_what_it_looks_for(source: str) -> None:
    assert dangers_in(source) != []


def test_security_rules_of_the_linter_hold_for_all_but_the_tests() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lint = settings["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert not [rule for rule in lint["ignore"] if re.fullmatch(r"S\d*", rule)]
    exempt = {
        pattern
        for pattern, rules in lint["per-file-ignores"].items()
        if any(re.fullmatch(r"S\d*", rule) for rule in rules)
    }
    assert exempt == {"tests/**/*.py", "example_project/**/*.py"}


def test_every_exception_from_the_security_rules_in_the_package_gives_its_reason() -> None:
    exceptions = [
        (path.name, line.strip())
        for path in SOURCES
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"noqa: [^-]*\bS\d", line)
    ]
    assert exceptions
    assert [found for found in exceptions if " -- " not in found[1]] == []


# The audit of what is installed


def audit(text: str) -> tuple[int, str]:
    program = subprocess.run(
        [sys.executable, "-m", "tests.support.audit"],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert program.stderr == ""
    return program.returncode, program.stdout


def test_known_hole_fails_the_build_and_is_named() -> None:
    hole = {"id": "CVE-2026-1", "fix_versions": ["1.2"], "aliases": [], "description": ""}
    known = {"name": "fine", "version": "1.0", "vulns": []}
    status, output = audit(
        json.dumps({"dependencies": [known, {"name": "odd", "version": "1.1", "vulns": [hole]}]})
    )
    assert status == 1
    assert output == (
        "audit: 2 packages were audited, 1 holes found.\n"
        "audit: odd 1.1: CVE-2026-1, mended in 1.2\n"
    )


def test_packages_that_cannot_be_audited_are_named() -> None:
    known = {"name": "fine", "version": "1.0", "vulns": []}
    unknown = {"name": "ours", "skip_reason": "not found on PyPI"}
    assert verdict(json.dumps({"dependencies": [known, unknown]})) == (
        0,
        [
            "1 packages were audited, 0 holes found.",
            "Not audited, because the index does not know them: ours.",
        ],
    )


@pytest.mark.parametrize(
    "text", ["", '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}']
)
def test_audit_that_was_not_possible_is_told(text: str) -> None:
    assert verdict(text) == (
        0,
        ["Nothing was audited: no package index that knows of holes can be reached."],
    )


def test_lint_compiles_reviews_and_audits() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.partition("\nlint:")[2].partition("\n\n")[0]
    for step in ("ruff check .", "compileall", "pip_audit", "tests.support.audit", "mypy"):
        assert step in recipe, step
