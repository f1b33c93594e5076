"""A batch that TikTok asks for fewer calls: it pauses, tries again and finally stops."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import requests

from django_tiktok_business import services
from django_tiktok_business.api import factory, rate_limit
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import RefreshResult
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import claims
from tests.support.batches import are_live, claimed_rows, make_due
from tests.support.simulator import (
    forget_limits,
    override_tiktok,
    simulator_session,
)

REFRESH = "/tt_user/oauth2/refresh_token/"


@pytest.mark.django_db(transaction=True)
def test_f53_refused_call_pauses_the_run_and_is_made_again_after_it(paced: Simulator) -> None:
    paced.fail_next("rate_limited", path=REFRESH)
    outcomes: list[str] = []
    report = services.refresh_due_accounts(
        concurrency=1, on_result=lambda result: outcomes.append(result.outcome)
    )
    refused, again, *_ = paced.calls
    assert (refused.code, again.code) == (40100, 0)
    assert 0.6 <= again.at - refused.at < 5
    assert (report.refreshed, report.stopped, report.failures) == (4, None, [])
    assert outcomes == ["refreshed"] * 4, "each account is reported once"
    assert are_live(paced)


@pytest.mark.django_db(transaction=True)
def test_f53_refusals_of_all_that_is_in_flight_are_one_pause(paced: Simulator) -> None:
    paced.configure(latency_seconds=0.2)
    paced.fail_next("rate_limited", path=REFRESH, times=4)
    started = time.monotonic()
    report = services.refresh_due_accounts(concurrency=4)
    assert 0.6 < time.monotonic() - started < 10
    assert (report.refreshed, report.stopped) == (4, None)
    assert paced.count(REFRESH) == 8
    assert are_live(paced)


@pytest.mark.django_db(transaction=True)
def test_f53_slot_that_is_left_over_is_not_used_in_a_pause(paced: Simulator) -> None:
    first, second, *_ = BusinessAccount.objects.order_by("access_token_expires_at")
    assert claims.claim([second.pk], "default") != []  # so it needs no call: its slot is left
    paced.fail_next("rate_limited", path=REFRESH)
    report = services.refresh_due_accounts(concurrency=2, accounts=[first, second])
    assert (report.refreshed, report.skipped, report.stopped) == (1, 1, None)
    refused, again = paced.calls
    assert again.at - refused.at >= 0.6


@pytest.mark.django_db(transaction=True)
def test_slot_that_is_left_over_is_not_used_after_its_time(paced: Simulator) -> None:
    """Another worker has taken the next one by then: both calls would break the rate limit."""
    first, second, *_ = BusinessAccount.objects.order_by("access_token_expires_at")
    assert claims.claim([first.pk], "default") != []  # so it needs no call: its slot is left
    taken_at: list[float] = []

    def hold_up(result: RefreshResult) -> None:
        if result.outcome == "skipped":
            time.sleep(1.3)
            somebody_else = factory.limiter_from_settings(60)
            time.sleep(somebody_else.wait_seconds(rate_limit.WHEN_IDLE) + 0.02)
            assert somebody_else.reserve(rate_limit.WHEN_IDLE) is not None
            taken_at.append(time.time())

    report = services.refresh_due_accounts(
        accounts=[first, second], requests_per_minute=60, concurrency=1, on_result=hold_up
    )
    assert (report.refreshed, report.skipped) == (1, 1)
    (call,) = paced.calls
    assert call.at - taken_at[0] > 0.4


@pytest.mark.django_db(transaction=True)
def test_f53_run_that_is_refused_after_three_pauses_stops(paced: Simulator) -> None:
    paced.fail_next("rate_limited", path=REFRESH, times=None)
    report = services.refresh_due_accounts(concurrency=1)
    assert (report.refreshed, report.retry_later, report.stopped) == (0, 1, "rate_limited")
    assert paced.count(REFRESH) == 4
    (failure,) = report.failures
    assert (failure.outcome, failure.code) == ("retry_later", 40100)
    assert claimed_rows() == 0
    # They are all still due, the refused one too.
    assert not BusinessAccount.objects.exclude(status="active", next_attempt_at=None).exists()
    forget_limits()
    paced.clear_faults()
    assert services.refresh_due_accounts().refreshed == 4
    assert are_live(paced)


@pytest.mark.django_db(transaction=True)
def test_pause_that_is_longer_than_a_run_waits_stops_it_at_once(paced: Simulator) -> None:
    paced.fail_next("http_429", path=REFRESH, retry_after=900)
    started = time.monotonic()
    report = services.refresh_due_accounts(concurrency=1)
    assert time.monotonic() - started < 10
    assert (report.refreshed, report.retry_later, report.stopped) == (0, 1, "rate_limited")
    assert claimed_rows() == 0


@pytest.mark.django_db(transaction=True)
def test_run_can_be_stopped_in_a_pause(paced: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FIVE_MINUTES", 300)
    paced.fail_next("rate_limited", path=REFRESH)
    stop = threading.Event()
    timer = threading.Timer(0.4, stop.set)
    timer.start()
    report = services.refresh_due_accounts(concurrency=1, stop=stop)
    timer.join()
    assert (report.retry_later, report.stopped) == (1, "interrupted")
    assert paced.count(REFRESH) == 1
    assert claimed_rows() == 0


def session_slow_to_grant() -> requests.Session:
    """A session factory whose grants arrive later than refusals, so that those are known first."""
    session = simulator_session()

    def dawdle(response: requests.Response, **kwargs: Any) -> None:
        time.sleep(0 if response.json()["code"] else 0.3)

    session.hooks["response"].append(dawdle)
    return session


@pytest.mark.django_db(transaction=True)
def test_f53_calls_that_wait_for_a_thread_are_not_made_in_a_pause(paced: Simulator) -> None:
    for number in range(8):
        make_due(paced, f"account_{number}", 10 + number)
    paced.configure(latency_seconds=0.2)
    paced.fail_next("rate_limited", path=REFRESH)
    with override_tiktok(SESSION_FACTORY_PATH=f"{__name__}.session_slow_to_grant"):
        report = services.refresh_due_accounts(concurrency=4)
    assert (report.refreshed, report.stopped) == (12, None)
    (refused,) = [call for call in paced.calls if call.code]
    later = [call.at - refused.at for call in paced.calls if call.at - refused.at > 0.15]
    assert min(later) >= 0.6
    assert are_live(paced)
