"""The table, and the machine that it was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

__all__ = ["Line", "document"]

_HEADINGS = ("", "What", "Ours", "Against", "Result", "Aim", "")


@dataclass(frozen=True)
class Line:
    """One line of the table. ``is_met`` is None without an aim or a measurement."""

    number: str
    what: str
    ours: str
    against: str
    result: str
    aim: str = "none"
    is_met: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "**missed**", None: ""}[self.is_met]


def document(
    lines: Sequence[Line], notes: Sequence[str], *, databases: Sequence[str], is_quick: bool
) -> str:
    """The whole of RESULTS.md."""
    rows = [
        (line.number, line.what, line.ours, line.against, line.result, line.aim, line.verdict)
        for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    table = [
        "| " + " | ".join(map(str.ljust, row, widths)) + " |"
        for row in (_HEADINGS, tuple("-" * width for width in widths), *rows)
    ]
    warning = (
        ["", "**A quick run: too few calls for numbers that mean anything.**"] if is_quick else []
    )
    missed = [line.number for line in lines if line.is_met is False]
    verdict = f"Missed: {', '.join(missed)}." if missed else "No aim of a measured line is missed."
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`. Each result sets two things against each other that were",
            "measured in the same run; unless a note says otherwise, numbers are medians of five.",
            *warning,
            "",
            *table,
            "",
            verdict,
            "",
            "## Notes",
            "",
            *(f"- {note}" for note in notes),
            "",
            "## Machine",
            "",
            *(f"- {fact}" for fact in _machine(databases)),
            "",
        ]
    )


def _machine(databases: Sequence[str]) -> list[str]:
    """What the numbers depend on, and nothing that identifies the machine."""
    version_of = {found.name.lower(): found.version for found in distributions()}
    packages = ("django", "requests", "urllib3", "cryptography", "psycopg", "python-tiktok")
    return [
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"{_cpu_model()}, {os.cpu_count()} cores, {_memory()} of memory",
        f"{platform.system()} {platform.release()} ({platform.machine()})",
        f"{platform.python_implementation()} {platform.python_version()}, "
        + ", ".join(f"{name} {version_of[name]}" for name in packages if name in version_of),
        ", ".join(databases) or "no database",
    ]


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return "an unknown amount"
    return f"{size / 2**30:.0f} GiB"
