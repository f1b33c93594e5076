"""Signals that arrive during a token request, and signals that stop a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from django_tiktok_business.interrupts import defer_signals, set_soon, stop_on_signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def arrived() -> Iterator[list[int]]:
    """The signals that took effect, by handlers that only note them."""
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    yield arrived
    assert {signal.getsignal(number) for number in SIGNALS} == {note}
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_deferred_signal_takes_effect_after_the_block(arrived: list[int], number: int) -> None:
    with defer_signals():
        signal.raise_signal(number)
        assert arrived == []
    assert arrived == [number]


@pytest.mark.parametrize("number", SIGNALS)
def test_second_signal_of_a_kind_takes_effect_at_once(arrived: list[int], number: int) -> None:
    with defer_signals():
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert arrived == [number]
    assert arrived == [number, number]


def test_signals_of_different_kinds_are_deferred_in_order(arrived: list[int]) -> None:
    with defer_signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert arrived == []
    assert arrived == [signal.SIGTERM, signal.SIGINT]


def test_signal_is_announced_when_it_arrives() -> None:
    announced: list[str] = []
    with defer_signals(lambda: announced.append("now")):
        assert announced == []
        signal.raise_signal(signal.SIGTERM)
        assert announced == ["now"]


def test_deferred_signal_takes_effect_although_the_block_raises(arrived: list[int]) -> None:
    def fail() -> None:
        with defer_signals():
            signal.raise_signal(signal.SIGTERM)
            raise LookupError("in the block")

    with pytest.raises(LookupError, match="in the block"):
        fail()
    assert arrived == [signal.SIGTERM]


def test_inner_block_leaves_a_deferred_signal_to_the_outer_one(arrived: list[int]) -> None:
    with defer_signals():
        with defer_signals():
            signal.raise_signal(signal.SIGTERM)
        assert arrived == []
    assert arrived == [signal.SIGTERM]


def test_ignored_signal_stays_ignored(arrived: list[int]) -> None:
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with defer_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, handler)
    assert arrived == []


def test_other_threads_set_no_handlers() -> None:
    handlers = [signal.getsignal(number) for number in SIGNALS]

    def handlers_inside() -> list[object]:
        with defer_signals(), stop_on_signal() as stop:
            assert not stop.is_set()
            return [signal.getsignal(number) for number in SIGNALS]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(handlers_inside).result() == handlers


def test_interpreter_that_may_set_no_handlers_sets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a sub-interpreter under mod_wsgi."""

    def refuse(number: int, handler: object) -> None:
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(signal, "signal", refuse)
    with defer_signals(), stop_on_signal() as stop:
        assert not stop.is_set()
    monkeypatch.undo()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_is_set_by_a_signal_and_the_second_takes_effect(
    arrived: list[int], number: int
) -> None:
    with stop_on_signal() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.wait(10)
        assert arrived == []
        signal.raise_signal(number)
        assert arrived == [number]


def test_stop_is_not_set_by_the_time_limit_of_a_task(arrived: list[int]) -> None:
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert not stop.is_set()
    assert arrived == [signal.SIGUSR1]


def test_signal_ends_the_wait_that_it_interrupts() -> None:
    """Set by the handler itself, the event would wait for the lock that the wait holds."""
    with stop_on_signal() as stop:
        to_main_thread = [threading.main_thread().ident, signal.SIGTERM]
        threading.Timer(0.1, signal.pthread_kill, to_main_thread).start()
        assert stop.wait(10)


def test_event_is_set_by_another_thread() -> None:
    event = threading.Event()
    set_soon(event)
    assert event.wait(10)
