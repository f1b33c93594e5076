"""Defer OS signals during a token request, and let signals stop a run.

Ctrl-C, the time limit of a Celery task and the shutdown of a worker raise an exception at any place
of the code, or end the process. In the middle of a request, the new pair of tokens would be lost.
"""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["defer_signals", "set_soon", "stop_on_signal"]

# SIGHUP: a terminal closes, or its connection breaks. Windows has neither SIGHUP nor SIGUSR1.
_STOP: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_DEFER: Final = (*_STOP, "SIGUSR1")  # Celery's soft time limit


@contextmanager
def defer_signals(on_signal: Callable[[], object] | None = None) -> Iterator[None]:
    """Defer signals to the end of the block; a second one of the same kind takes effect at once.

    Calls ``on_signal`` when a signal arrives. Does nothing outside the main thread, since signals
    interrupt only that one.
    """
    deferred: list[int] = []

    def defer(number: int, usual: dict[int, Any]) -> None:
        deferred.append(number)
        signal.signal(number, usual[number])
        if on_signal is not None:
            on_signal()

    try:
        with _handled(_DEFER, defer):
            yield
    finally:
        for number in deferred:
            signal.raise_signal(number)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM, SIGINT or SIGHUP sets; a second signal has its usual effect."""
    stop = threading.Event()

    def set_stop(number: int, usual: dict[int, Any]) -> None:
        set_soon(stop)
        for each, handler in usual.items():
            signal.signal(each, handler)

    with _handled(_STOP, set_stop):
        yield stop


def set_soon(event: threading.Event) -> None:
    """Set an event from a signal handler: the interrupted code may hold its lock in wait()."""
    _thread.start_new_thread(event.set, ())


@contextmanager
def _handled(
    names: tuple[str, ...], handle: Callable[[int, dict[int, Any]], None]
) -> Iterator[None]:
    """Call ``handle`` with a signal's number and the usual handlers, restored after the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # Not signals that are ignored, as under `nohup`, nor handlers that Python did not install
    # (None) and could not restore.
    usual = {
        number: handler
        for number in numbers
        if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN)
    }
    try:
        for number in usual:
            signal.signal(number, lambda number, frame: handle(number, usual))
    except ValueError:  # a sub-interpreter, as under mod_wsgi, can neither set nor get any
        usual = {}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
