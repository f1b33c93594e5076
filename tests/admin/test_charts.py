"""The charts, and their descriptions for people who cannot see them."""

from __future__ import annotations

import re
from datetime import date, timedelta
from xml.etree import ElementTree as ET

import pytest

from django_tiktok_business.admin import charts

FIRST = date(2026, 11, 20)


def drawn(*values: int | None) -> str:
    points = [(FIRST + timedelta(days=number), value) for number, value in enumerate(values)]
    return charts.draw_line("views", "Video <views>", points, "{:,}".format)


def words(picture: str) -> tuple[str, str]:
    """The title and the description that label the picture."""
    root = ET.fromstring(picture)
    labels = root.attrib["aria-labelledby"].split()
    texts = {element.attrib["id"]: element.text or "" for element in root if "id" in element.attrib}
    title, description = (texts[label] for label in labels)
    return title, description


def places(points: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", points)]


def test_line_rises_with_its_values_and_fits_into_the_picture() -> None:
    (line,) = re.findall(r'<polyline class="tiktok-line" points="([^"]+)"', drawn(10, 20, 15))
    (left, lowest), (middle, highest), (right, between) = places(line)
    assert (left, middle, right) == (6, charts.WIDTH / 2, charts.WIDTH - 6)
    assert (highest, between, lowest) == (6, charts.HEIGHT / 2, charts.HEIGHT - 6)


def test_missing_days_are_gaps_not_zeros() -> None:
    picture = drawn(10, 20, None, None, 15, None, 12, 13, 14)
    assert len(re.findall("<polyline", picture)) == 2
    assert len(re.findall("<circle", picture)) == 1
    assert words(picture)[1].endswith("Days without a figure: 3.")


@pytest.mark.parametrize("values", [(7,), (7, 7, 7), (0,), (None, 7, None)])
def test_constant_values_lie_in_the_middle(values: tuple[int | None, ...]) -> None:
    heights = re.findall(r'(?:cy="|,)([\d.]+)', drawn(*values))
    assert set(heights) == {f"{charts.HEIGHT / 2:g}"}


def test_line_is_described_in_words() -> None:
    picture = drawn(1000, 3500, 2000)
    assert words(picture) == (
        "Video <views>",
        "From 11/20/2026 to 11/22/2026: lowest 1,000, highest 3,500, last 2,000.",
    )
    assert "Video &lt;views&gt;" in picture


def test_columns_are_as_high_as_their_values() -> None:
    values = [0] * 23 + [50]
    values[12] = 100
    picture = charts.draw_columns("hours", "By hour", values, str)
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"/>', picture)]
    assert len(heights) == 24
    assert heights[12] > heights[23] > heights[0] == charts.EDGE
    assert words(picture) == ("By hour", "Most at 12:00 UTC, with 100.")


@pytest.mark.parametrize(
    ("fraction", "width"), [(0.25, "25.0"), (-1, "0.0"), (7, "100.0"), (1, "100.0")]
)
def test_bar_stays_within_its_frame(fraction: float, width: str) -> None:
    assert f'<rect class="tiktok-filled" width="{width}" height="8"/>' in charts.draw_bar(fraction)


def test_bar_can_have_a_mark() -> None:
    assert "tiktok-mark" not in charts.draw_bar(0.5)
    assert '<rect class="tiktok-mark" x="24.8"' in charts.draw_bar(0.5, 0.25)
