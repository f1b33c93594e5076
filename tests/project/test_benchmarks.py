"""The benchmarks run and write their table. How fast anything is, is not tested."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def table(tmp_path: Path, lines: str, database_url: str) -> str:
    """What a quick run over these lines writes; it prints the same."""
    output = tmp_path / "RESULTS.md"
    program = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--quick"),
            *("--only", lines, "--output", str(output)),
        ],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    text = output.read_text(encoding="utf-8")
    assert program.stdout == text
    assert str(tmp_path) not in text
    assert os.uname().nodename not in re.findall(r"[\w.-]+", text)
    return text


def numbers(text: str) -> list[str]:
    """The numbers of the measured lines."""
    return re.findall(r"^\| (\d) \| (?!not measured)", text, re.MULTILINE)


def test_lines_without_a_database_are_measured_and_the_others_named(tmp_path: Path) -> None:
    text = table(tmp_path, "3,6,7", "sqlite://:memory:")
    assert numbers(text) == ["6", "6", "7", "7"]
    assert re.search(
        r"^\| 3 \| not measured .* no PostgreSQL \(DATABASE_URL is not", text, re.MULTILINE
    )
    assert "neither requests nor cryptography" in text


@pytest.mark.databases("postgresql")
def test_lines_with_a_database_are_measured_on_postgresql(tmp_path: Path) -> None:
    text = table(tmp_path, "1,2,3,4,5,8,9", os.environ["DATABASE_URL"])
    assert set(numbers(text)) | {"2"} == set("1234589")  # 2 needs Redis as well


def test_an_unknown_line_is_refused() -> None:
    program = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "10"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert program.returncode == 2
    assert "give some of 1,2,3,4,5,6,7,8,9" in program.stderr
