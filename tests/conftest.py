"""Leaves out what this run cannot do, and says so: nothing is reported as skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import pytest
from django.db import connection

__all__: Sequence[str] = []


def _runs_here(item: pytest.Item, *, browser: bool) -> bool:
    databases = item.get_closest_marker("databases")
    return (databases is None or connection.vendor in databases.args) and (
        browser or item.get_closest_marker("browser") is None
    )


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
