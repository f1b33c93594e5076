"""Defer OS signals while a token request is in flight, and let them stop a run.

Ctrl-C, the time limit of a Celery task and the end of a worker reach Python code as an exception at
any place, or end the process. In the middle of a call, the pair it was about to bring would be
lost.
"""

from __future__ import annotations

import _thread
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["defer_signals", "set_soon", "stop_on_signal"]

# SIGHUP: a terminal that is closed, or a line that drops. Windows has neither it nor SIGUSR1.
_STOP: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_DEFER: Final = (*_STOP, "SIGUSR1")  # Celery's soft time limit


@contextmanager
def defer_signals(on_signal: Callable[[], object] | None = None) -> Iterator[None]:
    """Let a signal take effect when the block is left; a second one of its kind does so at once.

    ``on_signal`` is called when one arrives. Does nothing in other threads than the main one, which
    no signal interrupts.
    """
    arrived: list[int] = []

    def note(number: int, usual: dict[int, Any]) -> None:
        arrived.append(number)
        signal.signal(number, usual[number])
        if on_signal is not None:
            on_signal()

    try:
        with _handled(_DEFER, note):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM, SIGINT and SIGHUP set; a second signal takes its usual effect."""
    stop = threading.Event()

    def note(number: int, usual: dict[int, Any]) -> None:
        set_soon(stop)
        for each, handler in usual.items():
            signal.signal(each, handler)

    with _handled(_STOP, note):
        yield stop


def set_soon(event: threading.Event) -> None:
    """Set an event from a signal handler: it may interrupt the very wait() that holds the lock."""
    _thread.start_new_thread(event.set, ())


@contextmanager
def _handled(names: tuple[str, ...], note: Callable[[int, dict[int, Any]], None]) -> Iterator[None]:
    """Call ``note`` with a signal's number and the usual handlers; the block ends with those."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # Not what is ignored, as under `nohup`, nor what was set by something else than Python (None),
    # which could not be put back.
    usual = {
        number: handler
        for number in numbers
        if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN)
    }
    try:
        for number in usual:
            signal.signal(number, lambda number, frame: note(number, usual))
    except ValueError:  # a sub-interpreter, as under mod_wsgi: it may set none, and gets none
        usual = {}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
