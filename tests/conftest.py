"""Deselects what this run need not repeat, and skips what it cannot do (`tests.support.requires`).

Suites run side by side, on several databases and versions, and one that has the machine to itself
runs in several processes. Each has a database of its own; what they share beyond that (fixed ports,
the processors) is kept apart by locks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext

import pytest
from django.db import connection

from tests.support.browser import chromium, site
from tests.support.processes import only_one_suite
from tests.support.requires import some_redis, summary
from tests.support.simulator import forget_limits

__all__: Sequence[str] = ["chromium", "site"]


def _runs_here(item: pytest.Item) -> bool:
    if os.environ.get("TEST_BROWSER") == "off" and item.get_closest_marker("browser") is not None:
        return False
    is_repeated = (
        os.environ.get("TEST_ONCE") == "off" and item.get_closest_marker("once") is not None
    )
    databases = item.get_closest_marker("databases")
    if item.get_closest_marker("heavy") is not None:
        # "elsewhere": the suite on PostgreSQL, which runs beside this one, and tox do these.
        wanted = os.environ.get("TEST_HEAVY")
        is_elsewhere = databases is None or "postgresql" in databases.args
        if wanted == "off" or (wanted == "elsewhere" and is_elsewhere):
            return False
    if databases is None:
        # A test without a database gives the same result in the suite of each.
        is_place = connection.vendor == "sqlite" or _asks_a_database(item)
    else:
        is_place = connection.vendor in databases.args
    return not is_repeated and is_place


def _asks_a_database(item: pytest.Item) -> bool:
    fixtures: Sequence[str] = getattr(item, "fixturenames", ())
    is_marked = item.get_closest_marker("django_db") is not None
    return is_marked or not {"db", "transactional_db", "live_server"}.isdisjoint(fixtures)


def pytest_configure(config: pytest.Config) -> None:
    # Before any module reads where Redis is.
    stack = ExitStack()
    stack.enter_context(some_redis())
    config.add_cleanup(stack.close)


def pytest_report_header() -> list[str]:
    return [f"database: {connection.vendor}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if not _runs_here(item)])
    items[:] = sorted(filter(_runs_here, items), key=_is_light)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _is_light(item: pytest.Item) -> bool:
    return item.get_closest_marker("heavy") is None


def _group(item: pytest.Item) -> str:
    """Name what one of several processes runs as a whole: a module, or all heavy tests.

    That would only wait for itself in another process. It comes first, since it takes longest.
    """
    return item.nodeid.partition("::")[0] if _is_light(item) else "heavy"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    line = summary(terminalreporter.stats.get("skipped", []))
    # As the very last line, below the counts.
    terminalreporter.config.add_cleanup(lambda: terminalreporter.write(line, yellow=True))


@pytest.fixture(autouse=True)
def _own_limits() -> Iterator[None]:
    yield
    forget_limits()


@pytest.fixture(autouse=True)
def _heavy_tests_one_at_a_time(request: pytest.FixtureRequest) -> Iterator[None]:
    is_heavy = request.node.get_closest_marker("heavy") is not None
    with only_one_suite("heavy") if is_heavy else nullcontext():
        yield
