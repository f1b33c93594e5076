"""Profiles of a whole run: after the tokens, within what is left of the rate limit and the time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.sync import profile
from tests.support.factories import connect
from tests.support.simulator import meanwhile, override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"
OLD_KEY = "test-only-Pq7sL0wXe5RtYz3UiVb8NmKjHgFdSa1C"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        for number in range(6):
            expires_at = timezone.now() + timedelta(minutes=number)
            connect(simulator, f"account_{number}", access_token_expires_at=expires_at)
        yield simulator


def synced() -> int:
    return BusinessAccount.objects.filter(profile_synced_at__isnull=False).count()


def are_live(simulator: Simulator) -> bool:
    return all(
        simulator.live_tokens(account.open_id) == (account.access_token, account.refresh_token)
        for account in BusinessAccount.objects.all()
    )


def test_all_tokens_are_stored_before_the_first_profile_is_fetched(simulator: Simulator) -> None:
    simulator.configure(latency_seconds=0.05)
    report = services.refresh_due_accounts(concurrency=3, sync_profiles=True)
    assert (report.refreshed, synced()) == (6, 6)
    paths = [call.path.removeprefix("/open_api/v1.3") for call in simulator.calls]
    assert paths == [REFRESH] * 6 + [PROFILE] * 6


def test_profiles_end_when_tiktok_is_down(simulator: Simulator) -> None:
    simulator.fail_next("code", code=50000, path=PROFILE, times=None)
    report = services.refresh_due_accounts(concurrency=1, sync_profiles=True)
    assert (report.refreshed, synced()) == (6, 0)
    assert simulator.count(PROFILE) == profile.OUTAGE_THRESHOLD == 5


def test_profiles_are_fetched_in_the_same_pool(simulator: Simulator) -> None:
    simulator.configure(latency_seconds=0.3)
    started = time.monotonic()
    services.refresh_due_accounts(concurrency=6, sync_profiles=True)
    # Twelve calls one after the other would take 3.6 seconds.
    assert time.monotonic() - started < 2.5
    assert synced() == 6


def test_page_of_profiles_is_one_query(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "PAGE_ROWS", 2)
    with CaptureQueriesContext(connection) as queries:
        services.refresh_due_accounts(concurrency=1, sync_profiles=True)
    pages = [query["sql"] for query in queries if query["sql"].endswith("LIMIT 2")]
    assert len(pages) == 4
    assert synced() == 6


def test_profile_that_another_worker_has_synced_is_left_out(simulator: Simulator) -> None:
    def sync(result: services.RefreshResult) -> None:
        if result.open_id == simulator.open_id("account_3"):
            BusinessAccount.objects.filter(pk=result.pk).update(profile_synced_at=timezone.now())

    services.refresh_due_accounts(sync_profiles=True, on_result=sync)
    assert simulator.count(PROFILE) == 5
    assert synced() == 6


def test_profile_of_an_account_that_was_not_refreshed_is_not_fetched(simulator: Simulator) -> None:
    simulator.fail_next("code", code=50000, path=REFRESH)
    report = services.refresh_due_accounts(concurrency=1, sync_profiles=True)
    assert (report.refreshed, report.retry_later) == (5, 1)
    assert (simulator.count(PROFILE), synced()) == (5, 5)


@pytest.mark.parametrize("stopped", ["tiktok_unavailable", "rate_limited"])
def test_run_that_stopped_early_fetches_no_profile(simulator: Simulator, stopped: str) -> None:
    faults: dict[str, dict[str, Any]] = {
        "tiktok_unavailable": {"fault": "connection_refused"},
        "rate_limited": {"fault": "http_429", "retry_after": 900},
    }

    def fail(result: services.RefreshResult) -> None:
        simulator.fail_next(**faults[stopped], path=REFRESH, times=None)

    report = services.refresh_due_accounts(concurrency=1, sync_profiles=True, on_result=fail)
    assert report.stopped == stopped
    assert report.refreshed >= 1
    assert simulator.count(PROFILE) == 0


def test_profile_that_fails_is_logged_and_changes_nothing(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fail_next("code", code=50000, message="No profile today.", path=PROFILE, times=2)
    with caplog.at_level(logging.WARNING, logger="tiktok_business"):
        report = services.refresh_due_accounts(concurrency=1, sync_profiles=True)
    assert report.all_refreshed
    assert synced() == 4
    assert caplog.text.count("was not synced: No profile today.") == 2
    failed = BusinessAccount.objects.filter(profile_synced_at=None)
    assert [account.consecutive_failures for account in failed] == [0, 0]
    assert are_live(simulator)


def test_f22_unreadable_token_in_the_pool_is_logged_and_stops_nothing(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    account = BusinessAccount.objects.get(open_id=simulator.open_id("account_2"))

    with override_tiktok(ENCRYPTION_KEYS=[OLD_KEY]):
        unreadable = account.encrypt("access_token", "act.of-another-key")

    def note(result: services.RefreshResult) -> None:
        if result.pk == account.pk:
            BusinessAccount.objects.filter(pk=account.pk).update(access_token=unreadable)

    with caplog.at_level(logging.WARNING, logger="tiktok_business"):
        report = services.refresh_due_accounts(sync_profiles=True, on_result=note)
    assert report.all_refreshed
    assert (simulator.count(PROFILE), synced()) == (5, 5)
    assert f"The profile of {account.open_id} was not synced" in caplog.text


def test_interrupt_of_a_profile_is_raised_once_the_tokens_are_stored(simulator: Simulator) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def nothing() -> None:
        """Let the six refreshes pass."""

    for event in [*[nothing] * 6, interrupt]:
        meanwhile(event)
    with pytest.raises(KeyboardInterrupt):
        services.refresh_due_accounts(concurrency=1, sync_profiles=True)
    assert are_live(simulator)
    assert synced() == 0


def test_profiles_use_only_slots_that_no_other_call_needs(simulator: Simulator) -> None:
    started = time.monotonic()
    report = services.refresh_due_accounts(
        concurrency=6, sync_profiles=True, requests_per_minute=600
    )
    # Twelve slots, a tenth of a second each; the first may be taken at once.
    assert time.monotonic() - started > 1.0
    assert (report.refreshed, synced()) == (6, 6)


def test_profiles_end_when_the_time_is_up(simulator: Simulator) -> None:
    simulator.configure(latency_seconds=0.3)
    # The tokens take six tenths of a second; the call in flight at the end is finished.
    started = time.monotonic()
    report = services.refresh_due_accounts(concurrency=3, sync_profiles=True, sync_seconds=0.8)
    assert time.monotonic() - started < 10
    assert report.all_refreshed
    assert simulator.count(PROFILE) == synced() < 6
    assert are_live(simulator)


def test_no_profile_is_fetched_when_the_tokens_took_all_the_time(simulator: Simulator) -> None:
    report = services.refresh_due_accounts(sync_profiles=True, sync_seconds=0)
    assert report.all_refreshed
    assert simulator.count(PROFILE) == 0


@pytest.mark.parametrize("latency", [0.0, 0.1])
def test_stop_ends_the_wait_for_a_slot(simulator: Simulator, latency: float) -> None:
    """With a call in flight and without."""
    simulator.configure(latency_seconds=latency)
    stop = threading.Event()

    def nothing() -> None:
        """Let the six refreshes pass."""

    for event in [*[nothing] * 6, stop.set]:
        meanwhile(event)
    report = services.refresh_due_accounts(
        concurrency=2,
        sync_profiles=True,
        stop=stop,
        requests_per_minute=300,
        sync_seconds=math.inf,
    )
    assert (report.refreshed, report.stopped) == (6, None)
    assert 1 <= simulator.count(PROFILE) == synced() < 5
