"""Draw charts as SVG on the server, without scripts or inline styles.

The style sheet sets colours and sizes by class. Each chart has a title and a description in words;
a table beside it has the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


WIDTH, HEIGHT = 360, 120  # in SVG units; the picture scales to its container
EDGE = 6  # margin, so that the ends of a thick line are not cut off
Point = tuple["date", int | None]


def draw_line(
    name: str, title: StrOrPromise, points: Sequence[Point], format_value: Callable[[int], str]
) -> SafeString:
    """Draw a line through the days that have a value, with gaps for the others.

    ``points`` are consecutive days, at least one of them with a value. ``name`` is an id that is
    unique on the page; ``format_value`` formats a value for people.
    """
    values = [value for _day, value in points if value is not None]
    lowest, highest = min(values), max(values)
    runs: list[list[tuple[float, float]]] = [[]]  # uninterrupted stretches
    for number, (_day, value) in enumerate(points):
        if value is None:
            runs.append([])
            continue
        runs[-1].append((_x(number, len(points) - 1), _y(value, lowest, highest)))
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
    missing = len(points) - len(values)
    description = _(
        "From %(first)s to %(last)s: lowest %(lowest)s, highest %(highest)s, last %(latest)s."
    ) % {
        "first": date_format(points[0][0], "SHORT_DATE_FORMAT"),
        "last": date_format(points[-1][0], "SHORT_DATE_FORMAT"),
        "lowest": format_value(lowest),
        "highest": format_value(highest),
        "latest": format_value(values[-1]),
    }
    if missing:
        description += " " + _("Days without a figure: %(count)s.") % {
            "count": format_value(missing)
        }
    return _picture(name, title, description, format_html("{}{}", lines, dots))


def draw_columns(
    name: str, title: StrOrPromise, values: Sequence[int], format_value: Callable[[int], str]
) -> SafeString:
    """Draw a column for each of 24 hours; at least one value is above 0."""
    highest = max(values)
    width = WIDTH / len(values)
    bars = format_html_join(
        "",
        '<rect class="tiktok-column" x="{}" y="{}" width="{}" height="{}"/>',
        (
            (f"{number * width + 1:g}", f"{y:g}", f"{width - 2:g}", f"{HEIGHT - y:g}")
            for number, value in enumerate(values)
            for y in [_y(value, 0, highest)]
        ),
    )
    description = _("Most at %(hour)s:00 UTC, with %(highest)s.") % {
        "hour": values.index(highest),
        "highest": format_value(highest),
    }
    return _picture(name, title, description, bars)


def draw_bar(fraction: float, mark: float | None = None) -> SafeString:
    """Draw a bar filled to ``fraction`` (0 to 1), with a mark at ``mark``."""
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


def _x(number: int, last: int) -> float:
    return round(EDGE + number * (WIDTH - 2 * EDGE) / max(last, 1), 1)


def _y(value: int, lowest: int, highest: int) -> float:
    """The vertical position, which SVG counts from the top; constant values lie in the middle."""
    ratio = (value - lowest) / (highest - lowest) if highest > lowest else 0.5
    return round(HEIGHT - EDGE - ratio * (HEIGHT - 2 * EDGE), 1)
