"""The simulator behind SESSION_FACTORY_PATH, settings that merge, and what happens meanwhile."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import cache
from django.db import connection, connections
from django.test import override_settings

from django_tiktok_business import cache as shared_cache
from django_tiktok_business.api import rate_limit
from django_tiktok_business.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import requests

_current: list[Simulator] = []
_while_in_flight: list[Callable[[], object]] = []


def simulator_session() -> requests.Session:
    """Return a session of the current simulator: the session factory of the test settings."""
    session = _current[-1].session()
    session.hooks["response"].append(_happen)
    return session


def meanwhile(event: Callable[[], object]) -> None:
    """Make something happen after TikTok has acted on the next call, before its answer arrives."""
    _while_in_flight.append(event)


def _happen(response: requests.Response, **kwargs: Any) -> None:
    if _while_in_flight:
        _while_in_flight.pop(0)()
        if threading.current_thread() is not threading.main_thread():
            connections.close_all()


def next_statement(start: str, error: BaseException) -> AbstractContextManager[Callable[[], None]]:
    """Yield a function that makes this thread's next statement with this start fail."""
    armed: list[BaseException] = []

    def execute(run: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if armed and sql.startswith(start):
            raise armed.pop()
        return run(sql, *arguments)

    @contextmanager
    def wrapped() -> Iterator[Callable[[], None]]:
        with connection.execute_wrapper(execute):
            yield lambda: armed.append(error)

    return wrapped()


def forget_limits() -> None:
    """Forget the rate limits: every slot taken, and every pause that TikTok asked for."""
    rate_limit.shared_limiter.cache_clear()
    cache.clear()
    shared_cache._warned_at.clear()


def wait_for_savers() -> None:
    """Wait for the threads that save in the background what could not be saved at once."""
    for thread in threading.enumerate():
        if thread.name.startswith("tiktok_business"):
            thread.join(timeout=30)
            assert not thread.is_alive()


@contextmanager
def running_simulator(**options: Any) -> Iterator[Simulator]:
    """Use a new simulator as TikTok inside the block."""
    simulator = Simulator(**options)
    _current.append(simulator)
    try:
        yield simulator
    finally:
        _current.remove(simulator)


def override_tiktok(**keys: Any) -> override_settings:
    """Override some keys of TIKTOK_BUSINESS and keep the rest."""
    return override_settings(TIKTOK_BUSINESS={**settings.TIKTOK_BUSINESS, **keys})
