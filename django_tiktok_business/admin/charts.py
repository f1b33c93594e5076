"""Draw charts as SVG on the server, without script, style or colour of their own.

Colours and sizes come from the style sheet, by class. Each chart has a title and says in words what
it shows; the numbers are in a table beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from django.utils.safestring import SafeString
    from django_stubs_ext import StrOrPromise


__all__ = ["columns", "line", "share"]

WIDTH, HEIGHT = 360, 120  # units of the pictures; they are scaled to the room there is
EDGE = 6  # room for the ends of a line, which is as thick as that
Point = tuple["date", int | None]


def line(
    name: str, title: StrOrPromise, points: Sequence[Point], told: Callable[[int], str]
) -> SafeString:
    """A line through the days that have a figure; the others are gaps.

    ``points`` are consecutive days; at least one has a figure. ``name`` is an id for the page,
    ``told`` writes a figure for people.
    """
    figures = [figure for _day, figure in points if figure is not None]
    lowest, highest = min(figures), max(figures)
    runs: list[list[tuple[float, float]]] = [[]]  # days that follow each other
    for number, (_day, figure) in enumerate(points):
        if figure is None:
            runs.append([])
            continue
        runs[-1].append((_place(number, len(points) - 1), _height(figure, lowest, highest)))
    lines = format_html_join(
        "",
        '<polyline class="tiktok-line" points="{}"/>',
        ((" ".join(f"{x:g},{y:g}" for x, y in run),) for run in runs if len(run) > 1),
    )
    dots = format_html_join(
        "",
        '<circle class="tiktok-point" cx="{}" cy="{}" r="3"/>',
        ((f"{x:g}", f"{y:g}") for run in runs for x, y in run if len(run) == 1),
    )
    missing = len(points) - len(figures)
    description = _(
        "From %(first)s to %(last)s: lowest %(lowest)s, highest %(highest)s, last %(latest)s."
    ) % {
        "first": date_format(points[0][0], "SHORT_DATE_FORMAT"),
        "last": date_format(points[-1][0], "SHORT_DATE_FORMAT"),
        "lowest": told(lowest),
        "highest": told(highest),
        "latest": told(figures[-1]),
    }
    if missing:
        description += " " + _("Days without a figure: %(count)s.") % {"count": told(missing)}
    return _picture(name, title, description, format_html("{}{}", lines, dots))


def columns(
    name: str, title: StrOrPromise, figures: Sequence[int], told: Callable[[int], str]
) -> SafeString:
    """A column for each of 24 hours, of which at least one has a figure above 0."""
    highest = max(figures)
    width = WIDTH / len(figures)
    bars = format_html_join(
        "",
        '<rect class="tiktok-column" x="{}" y="{}" width="{}" height="{}"/>',
        (
            (f"{number * width + 1:g}", f"{y:g}", f"{width - 2:g}", f"{HEIGHT - y:g}")
            for number, figure in enumerate(figures)
            for y in [_height(figure, 0, highest)]
        ),
    )
    description = _("Most at %(hour)s:00 UTC, with %(highest)s.") % {
        "hour": figures.index(highest),
        "highest": told(highest),
    }
    return _picture(name, title, description, bars)


def share(fraction: float, mark: float | None = None) -> SafeString:
    """A bar that is filled from 0 to 1; ``mark`` is a place on it. The words stand beside it."""
    marks = (
        format_html('<rect class="tiktok-mark" x="{}" width="1" height="8"/>', f"{mark * 99:.1f}")
        if mark is not None
        else ""
    )
    return format_html(
        '<svg class="tiktok-share" viewBox="0 0 100 8" preserveAspectRatio="none" '
        'aria-hidden="true"><rect class="tiktok-filled" width="{}" height="8"/>{}</svg>',
        f"{min(max(fraction, 0), 1) * 100:.1f}",
        marks,
    )


def _picture(name: str, title: StrOrPromise, description: str, content: SafeString) -> SafeString:
    return format_html(
        '<svg class="tiktok-chart" viewBox="0 0 {} {}" role="img" '
        'aria-labelledby="{}-title {}-description"><title id="{}-title">{}</title>'
        '<desc id="{}-description">{}</desc>{}</svg>',
        *(WIDTH, HEIGHT, name, name, name, title, name, description, content),
    )


def _place(number: int, last: int) -> float:
    return round(EDGE + number * (WIDTH - 2 * EDGE) / max(last, 1), 1)


def _height(figure: int, lowest: int, highest: int) -> float:
    """Downwards, as SVG counts; what never changes lies in the middle."""
    part = (figure - lowest) / (highest - lowest) if highest > lowest else 0.5
    return round(HEIGHT - EDGE - part * (HEIGHT - 2 * EDGE), 1)
