"""SECURITY.md names tests that exist, and ships."""

from __future__ import annotations

import re

import pytest

from tests.support.newcomer import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "lines"),
    [("Who attacks, and what they get", 14), ("How libraries are kept from printing them", 10)],
)
def test_each_claim_names_tests_that_exist(heading: str, lines: int) -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py"))
    )
    existing = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    claims = [line for line in section.splitlines() if line.count(" | ") == 3 and "---" not in line]
    assert len(claims) == lines + 1, "with the line of headings"
    for claim in claims[1:]:
        named = re.findall(r"`(test_\w+)`", claim)
        assert named, claim
        assert set(named) <= existing, claim


def test_each_line_of_a_table_is_a_claim() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    claims = [line for line in rows if line.count(" | ") == 3]
    assert len(rows) - len(claims) == 7, "the table of what there is to steal"
    assert len(claims) == 14 + 10 + 4, "with the lines of headings"


def test_policy_is_shipped() -> None:
    assert "include SECURITY.md" in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
