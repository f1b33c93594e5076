"""Leaves out what this run cannot do or need not repeat: nothing is reported as skipped.

Suites run side by side, on several databases and versions. Each is one process, with a database of
its own; what they share beyond that (fixed ports, the processors) is kept apart by locks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import pytest
from django.db import connection

from tests.browser import chromium, site
from tests.utils import forget_ceilings, only_one_suite

__all__: Sequence[str] = ["chromium", "site"]


def _runs_here(item: pytest.Item, *, browser: bool) -> bool:
    is_repeated = "TOX_WHEEL" in os.environ and item.get_closest_marker("once") is not None
    databases = item.get_closest_marker("databases")
    if item.get_closest_marker("heavy") is not None:
        # "elsewhere": what PostgreSQL's suite does beside this one is left to it and to tox.
        wanted = os.environ.get("TEST_HEAVY")
        is_elsewhere = databases is None or "postgresql" in databases.args
        if wanted == "off" or (wanted == "elsewhere" and is_elsewhere):
            return False
    if databases is None:
        # What asks no database gives the same result beside each of them.
        is_place = connection.vendor == "sqlite" or _asks_a_database(item)
    else:
        is_place = connection.vendor in databases.args
    return not is_repeated and is_place and (browser or item.get_closest_marker("browser") is None)


def _asks_a_database(item: pytest.Item) -> bool:
    fixtures: Sequence[str] = getattr(item, "fixturenames", ())
    is_marked = item.get_closest_marker("django_db") is not None
    return is_marked or not {"db", "transactional_db", "live_server"}.isdisjoint(fixtures)


def _browser_wanted() -> bool:
    """TEST_BROWSER: `required`, `off`, or unset for "when Chromium is installed"."""
    wanted = os.environ.get("TEST_BROWSER", "auto")
    return wanted == "required" or (wanted != "off" and shutil.which("chromium") is not None)


def pytest_report_header() -> list[str]:
    browser = "on" if _browser_wanted() else "off (TEST_BROWSER, or no Chromium)"
    return [f"database: {connection.vendor}, browser tests: {browser}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    browser = _browser_wanted()
    config.hook.pytest_deselected(
        items=[item for item in items if not _runs_here(item, browser=browser)]
    )
    items[:] = [item for item in items if _runs_here(item, browser=browser)]


@pytest.fixture(autouse=True)
def _own_ceiling() -> Iterator[None]:
    yield
    forget_ceilings()


@pytest.fixture(autouse=True)
def _heavy_tests_one_at_a_time(request: pytest.FixtureRequest) -> Iterator[None]:
    is_heavy = request.node.get_closest_marker("heavy") is not None
    with only_one_suite("heavy") if is_heavy else nullcontext():
        yield
