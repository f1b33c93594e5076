"""Every answer of TikTok reaches its row: through exceptions, interrupts and lost databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DataError, OperationalError

from django_tiktok_business import services, signals
from django_tiktok_business.api.rate_limit import BATCH, shared_limiter
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import RateLimitError
from django_tiktok_business.interrupts import defer_signals
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import RefreshResult
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import rows, storage
from tests.support.factories import connect, make_user
from tests.support.simulator import (
    meanwhile,
    next_statement,
    override_tiktok,
    running_simulator,
    wait_for_savers,
)
from tests.support.simulator_calls import REDIRECT_URI, authorize_url, query_of

REFRESH = "/tt_user/oauth2/refresh_token/"
ACCOUNTS = ("harbour_bakery", "bike_shop", "tea_house", "book_corner")


@pytest.fixture
def strict() -> Iterator[Simulator]:
    """Each refresh token works once, so a lost answer is a lost account."""
    with running_simulator(rotate="always", old_refresh_valid="no") as simulator:
        for name in ACCOUNTS:
            connect(simulator, name)
        with override_tiktok(REFRESH_WITHIN_SECONDS=86_400):
            yield simulator


def lost(simulator: Simulator) -> int:
    """How many rows lack the pair that TikTok issued last."""
    return sum(
        simulator.live_tokens(account.open_id) != (account.access_token, account.refresh_token)
        for account in BusinessAccount.objects.all()
    )


def claims() -> int:
    return BusinessAccount.objects.exclude(claim_id="").count()


@pytest.mark.django_db(transaction=True)
def test_f14_answer_is_saved_before_failures_of_others_are_written_down(strict: Simulator) -> None:
    strict.fail_next("connection_refused", path=REFRESH)

    def complain(result: RefreshResult) -> None:
        raise LookupError(result.open_id)

    with override_tiktok(MAX_ATTEMPTS=1), pytest.raises(LookupError):
        services.refresh_due_accounts(concurrency=1, on_result=complain)
    assert strict.count(REFRESH) == 2
    assert (lost(strict), claims()) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_f14_interrupt_before_an_answer_is_saved_costs_nothing(
    strict: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_result = storage.store_result
    interrupts = [KeyboardInterrupt()]

    def interrupted(*arguments: Any) -> Any:
        if interrupts:
            raise interrupts.pop()
        return store_result(*arguments)

    monkeypatch.setattr(storage, "store_result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        services.refresh_due_accounts(concurrency=2)
    assert strict.count(REFRESH) >= 1
    assert (lost(strict), claims()) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_f14_answer_that_the_database_refuses_is_saved_in_the_background(
    strict: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_result = storage.store_result
    with next_statement("UPDATE", DataError("out of range")) as refuse:

        def refused(*arguments: Any) -> Any:
            monkeypatch.setattr(storage, "store_result", store_result)
            refuse()
            return store_result(*arguments)

        monkeypatch.setattr(storage, "store_result", refused)
        with pytest.raises(DataError):
            services.refresh_due_accounts(concurrency=1)
    wait_for_savers()
    assert (lost(strict), claims()) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_f14_thread_that_cannot_be_started_costs_no_answer(
    strict: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then the pool has queued the call, and another of its threads may make it."""
    strict.configure(latency_seconds=0.2)
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_two(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) > 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(RuntimeError, match="start new thread"):
        services.refresh_due_accounts(concurrency=4)
    assert strict.count(REFRESH) == 2
    assert (lost(strict), claims()) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_f53_rows_that_need_no_call_do_not_hide_an_outage(strict: Simulator) -> None:
    expiry = BusinessAccount.objects.latest("access_token_expires_at").access_token_expires_at
    for number in range(4):
        connect(strict, f"shop_{number}")
    BusinessAccount.objects.update(access_token_expires_at=expiry)
    fifth = BusinessAccount.objects.order_by("pk")[4]
    BusinessAccount.objects.filter(pk=fifth.pk).update(
        refresh_token=fifth.encrypt("access_token", "")
    )
    strict.fail_next("connection_refused", path=REFRESH, times=None)
    with override_tiktok(MAX_ATTEMPTS=1):
        report = services.refresh_due_accounts(concurrency=1)
    assert report.stopped == "tiktok_unavailable"
    failed = BusinessAccount.objects.filter(consecutive_failures__gt=0)
    assert [account.pk for account in failed] == [fifth.pk]


@pytest.mark.django_db(transaction=True)
def test_f14_database_that_goes_away_before_the_signals_is_waited_for(
    strict: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    reloads: list[None] = []

    def listen(account: BusinessAccount, **kwargs: Any) -> None:
        heard.append(account.pk)

    with next_statement("SELECT", OperationalError("terminating connection")) as lose:

        def reloaded(*arguments: Any) -> bool:
            monkeypatch.setattr(storage, "reload", rows.reload)
            reloads.append(lose())
            return rows.reload(*arguments)

        monkeypatch.setattr(storage, "reload", reloaded)
        signals.tokens_refreshed.connect(listen)
        try:
            report = services.refresh_due_accounts()
        finally:
            signals.tokens_refreshed.disconnect(listen)
    assert (report.refreshed, report.stopped) == (4, None)
    assert reloads == [None], "the database went away"
    assert len(heard) == 4
    assert lost(strict) == 0


def test_f53_pause_that_a_wrong_clock_began_ends_when_the_clock_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limiter = shared_limiter(0, app_id="app", cache_alias="default")
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: time.time() + 86_400)
        limiter.refused(RateLimitError("App reaches the QPS limit."), sent_at=clock.now())
        assert limiter.reserve(BATCH) is None
    assert limiter.reserve(BATCH) == 0


# In a separate process


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            """
del os.fork, os.register_at_fork, signal.SIGUSR1
django.setup()
from django_tiktok_business import services
from django_tiktok_business.services import chunks
""",
            id="as_on_windows",
        ),
        pytest.param(
            """
django.setup()
from django_tiktok_business.api.rate_limit import shared_limiter
shared_limiter(0, app_id="app", cache_alias="default")._lock.acquire()  # as another thread might
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1])
signal.alarm(20)
assert shared_limiter(0, app_id="app", cache_alias="default").reserve(0) == 0
""",
            id="forked_while_a_thread_takes_a_turn",
        ),
        pytest.param(
            """
django.setup()
from django_tiktok_business.interrupts import stop_on_signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # this may run under nohup
with stop_on_signal() as stop:
    signal.raise_signal(signal.SIGHUP)
    assert stop.wait(20)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with stop_on_signal() as stop:
    signal.raise_signal(signal.SIGHUP)
    assert not stop.wait(0.2)
""",
            id="closed_terminal",
        ),
    ],
)
def test_process_that_is_another_than_usual_can_refresh(code: str) -> None:
    subprocess.run(
        [sys.executable, "-c", f"import os, signal, sys, django{code}"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        check=True,
        timeout=60,
    )


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As on a terminal; a shell lets what it starts in the background ignore SIGINT."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.django_db(transaction=True)
def test_interrupt_during_a_call_on_demand_takes_effect_when_its_answer_is_saved(
    strict: Simulator,
) -> None:
    account = BusinessAccount.objects.earliest("pk")
    meanwhile(lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        services.refresh_account(account)
    assert strict.count(REFRESH) == 1
    assert (lost(strict), claims()) == (0, 0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
@pytest.mark.django_db(transaction=True)
def test_interrupt_during_the_exchange_of_a_code_takes_effect_when_the_account_is_stored() -> None:
    with running_simulator(rotate="always", old_refresh_valid="no") as simulator:
        code = query_of(simulator.authorize(authorize_url()))["code"]
        user = make_user()
        meanwhile(lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            services.connect_account(user, code=code, redirect_uri=REDIRECT_URI)
        (account,) = BusinessAccount.objects.all()
        assert account.owner == user
        assert lost(simulator) == 0


@pytest.mark.usefixtures("interruptible")
def test_second_signal_takes_effect_at_once() -> None:
    begun = []

    def interrupted_twice() -> None:
        with defer_signals():
            signal.raise_signal(signal.SIGINT)
            begun.append("after the first")
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert begun == ["after the first"]


@pytest.mark.django_db(transaction=True)
def test_interpreter_that_may_set_no_signal_handler_refreshes_all_the_same(
    strict: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int, handler: Any) -> None:
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(signal, "signal", refuse)
    services.refresh_account(BusinessAccount.objects.earliest("pk"))
    assert strict.count(REFRESH) == 1
    assert (lost(strict), claims()) == (0, 0)
