"""Put signals off while TikTok is asked for tokens, until its answer is saved.

Ctrl-C, the time limit of a Celery task and the end of a worker reach Python code as an exception at
any place, or end the process: in the middle of a call, the pair that it was about to bring is lost.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["put_off"]

# SIGUSR1: Celery's soft time limit. Windows has neither it nor SIGHUP.
_SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)


@contextmanager
def put_off(on_signal: Callable[[], object] | None = None) -> Iterator[None]:
    """Let a signal take effect when the block is left; a second one of its kind does so at once.

    ``on_signal`` is called when one arrives. Does nothing in other threads than the main one, which
    no signal interrupts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None: set by something else than Python, which could not be put back.
    usual = {
        number: handler
        for number in _SIGNALS
        if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN)
    }
    arrived: list[int] = []

    def note(number: int, frame: object) -> None:
        arrived.append(number)
        signal.signal(number, usual[number])
        if on_signal is not None:
            on_signal()

    try:
        for number in usual:
            signal.signal(number, note)
    except ValueError:  # a sub-interpreter, as under mod_wsgi: it may set none, and gets none
        usual = {}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)
