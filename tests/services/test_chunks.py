"""Split a refresh into jobs: what is handed out, what a job does, and how it is stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business.db import clock
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import chunks
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import due
from tests.support.factories import connect, make_account
from tests.support.simulator import meanwhile, override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def simulator() -> Iterator[Simulator]:
    keys = {"MAX_ATTEMPTS": 1, "REFRESH_CONCURRENCY": 2}
    with running_simulator(strict=True) as simulator, override_tiktok(**keys):
        yield simulator


def rows(number: int, **overrides: Any) -> list[BusinessAccount]:
    """Due accounts that the simulator does not know, the last one the most urgent."""
    now = timezone.now()
    return [
        make_account(
            **{
                "open_id": f"_{index}",
                "access_token_expires_at": now + timedelta(minutes=number - index),
                **overrides,
            }
        )
        for index in range(number)
    ]


def connect_due(simulator: Simulator, number: int) -> list[BusinessAccount]:
    """Due accounts that the simulator knows."""
    soon = timezone.now() + timedelta(minutes=5)
    return [
        connect(simulator, f"account_{index}", access_token_expires_at=soon)
        for index in range(number)
    ]


def is_live(simulator: Simulator, account: BusinessAccount) -> bool:
    row = BusinessAccount.objects.get(pk=account.pk)
    return (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)


# Handing out


def test_due_accounts_come_in_chunks_the_most_urgent_first() -> None:
    known = [account.pk for account in reversed(rows(7))]
    unknown = [make_account(open_id=f"_u{n}", access_token_expires_at=None).pk for n in range(3)]
    found = list(chunks.due_chunks(chunk_size=3))
    assert [pk for chunk in found for pk in chunk] == unknown + known
    assert [len(chunk) for chunk in found] == [3, 3, 3, 1]


def test_accounts_that_expire_at_the_same_moment_are_all_handed_out() -> None:
    same = timezone.now()
    expected = [account.pk for account in rows(7, access_token_expires_at=same)]
    found = list(chunks.due_chunks(chunk_size=3))
    assert [pk for chunk in found for pk in chunk] == expected


def test_account_of_another_app_or_not_active_or_not_due_is_not_handed_out() -> None:
    soon = timezone.now()
    make_account(open_id="_another_app", app_id="7000000000000000009", access_token_expires_at=soon)
    make_account(open_id="_lost", status="reauthorization_required", access_token_expires_at=soon)
    make_account(open_id="_revoked", status="revoked", access_token_expires_at=None)
    later = make_account(open_id="_later", access_token_expires_at=soon + timedelta(hours=7))
    assert list(chunks.due_chunks()) == []
    assert list(chunks.due_chunks(within_seconds=8 * 3600)) == [[later.pk]]


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 9])
def test_limit_bounds_the_number_handed_out(limit: int) -> None:
    make_account(open_id="_unknown", access_token_expires_at=None)
    rows(6)
    found = list(chunks.due_chunks(chunk_size=2, limit=limit))
    assert sum(len(chunk) for chunk in found) == min(limit, 7)


def test_accounts_that_back_off_are_not_handed_out() -> None:
    waiting, tried = rows(2)
    later = timezone.now() + timedelta(minutes=1)
    BusinessAccount.objects.filter(pk=waiting.pk).update(next_attempt_at=later)
    assert list(chunks.due_chunks()) == [[tried.pk]]


def test_chunks_are_read_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "PAGE_ROWS", 3)
    rows(6)
    clock.synchronize("default")  # makes a query of its own now and then
    with CaptureQueriesContext(connection) as queries:
        found = chunks.due_chunks(chunk_size=2)
        assert len(queries) == 0
        next(found)
        assert len(queries) == 2  # the first looks for accounts of unknown expiry: there are none
        next(found)
        assert len(queries) == 3


def test_hand_out_returns_the_numbers_sent() -> None:
    pks = {account.pk for account in rows(5)}
    sent: list[list[int]] = []
    assert chunks.hand_out(sent.append, chunk_size=2) == {
        "accounts": 5,
        "chunks": 3,
        "stopped": None,
    }
    assert {pk for chunk in sent for pk in chunk} == pks


def test_no_more_is_handed_out_than_the_rate_limit_allows_before_the_messages_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "MESSAGE_LIFETIME_SECONDS", 60)
    rows(5)
    with override_tiktok(REQUESTS_PER_MINUTE=3):
        assert chunks.hand_out(lambda pks: None, chunk_size=2)["accounts"] == 3


def test_message_is_stale_after_its_lifetime() -> None:
    now = timezone.now()
    lifetime = timedelta(seconds=chunks.MESSAGE_LIFETIME_SECONDS)
    assert not chunks.is_stale(now)
    assert not chunks.is_stale(None)
    assert chunks.is_stale(now - lifetime - timedelta(seconds=1))


# Refreshing and syncing a chunk


def test_chunk_refreshes_the_accounts_that_are_still_due_and_no_others(
    simulator: Simulator,
) -> None:
    accounts = connect_due(simulator, 4)
    other = connect(simulator, "other", access_token_expires_at=timezone.now())
    pks = [account.pk for account in accounts]
    BusinessAccount.objects.filter(pk=pks[0]).update(
        access_token_expires_at=timezone.now() + timedelta(hours=20)
    )
    refreshed: list[int] = []

    counts = chunks.refresh_chunk(pks, then=lambda pks, since: refreshed.extend(pks))

    assert counts == {
        "refreshed": 3,
        "retry_later": 0,
        "reauthorization_required": 0,
        "undecryptable": 0,
        "skipped": 0,
        "backing_off": 0,
        "stopped": None,
    }
    assert sorted(refreshed) == pks[1:]
    assert all(is_live(simulator, account) for account in [*accounts, other])
    assert simulator.count(REFRESH) == 3


def test_chunk_that_comes_twice_makes_no_second_call(simulator: Simulator) -> None:
    pks = [account.pk for account in connect_due(simulator, 2)]
    chunks.refresh_chunk(pks)
    chunks.refresh_chunk(pks, then=lambda pks, since: pytest.fail("There was nothing to refresh."))
    assert simulator.count(REFRESH) == 2


def test_within_seconds_overrides_the_setting(simulator: Simulator) -> None:
    account = connect(simulator)
    assert chunks.refresh_chunk([account.pk])["refreshed"] == 0
    assert chunks.refresh_chunk([account.pk], within_seconds=2 * 86400)["refreshed"] == 1


def test_chunk_of_another_app_is_left_alone(simulator: Simulator) -> None:
    account = connect(simulator, app_id="7000000000000000009", access_token_expires_at=None)
    assert chunks.refresh_chunk([account.pk])["refreshed"] == 0
    assert chunks.sync_chunk([account.pk], since=0) == {"synced": 0, "stopped": None}
    assert simulator.calls == []


def test_profiles_of_refreshed_accounts_are_synced_once(simulator: Simulator) -> None:
    pks = [account.pk for account in connect_due(simulator, 4)]
    wanted: list[tuple[list[int], float]] = []
    chunks.refresh_chunk(pks[:3], then=lambda pks, since: wanted.append((pks, since)))
    ((refreshed, since),) = wanted
    assert sorted(refreshed) == pks[:3]

    assert chunks.sync_chunk(pks, since=since) == {"synced": 3, "stopped": None}
    assert chunks.sync_chunk(pks, since=since) == {"synced": 0, "stopped": None}
    assert simulator.count(PROFILE) == 3
    synced = BusinessAccount.objects.exclude(profile_synced_at=None)
    assert sorted(synced.values_list("pk", flat=True)) == pks[:3]


# When TikTok is down, or rejects the app


def test_chunks_after_one_that_found_tiktok_down_make_no_call(simulator: Simulator) -> None:
    accounts = connect_due(simulator, 8)
    pks = [account.pk for account in accounts]
    simulator.fail_next(http_status=502, times=None)
    assert chunks.refresh_chunk(pks)["stopped"] == "tiktok_unavailable"
    made = len(simulator.calls)

    nothing = {"refreshed": 0, "stopped": "tiktok_unavailable"}
    assert nothing.items() <= chunks.refresh_chunk(pks).items()
    assert chunks.sync_chunk(pks, since=0) == {"synced": 0, "stopped": "tiktok_unavailable"}
    sent: list[list[int]] = []
    counts = {"accounts": 0, "chunks": 0, "stopped": "tiktok_unavailable"}
    assert chunks.hand_out(sent.append) == counts
    assert sent == []
    assert len(simulator.calls) == made


def test_halt_ends_by_itself(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "HALT_SECONDS", 0.05)
    pks = [account.pk for account in connect_due(simulator, 2)]
    with override_tiktok(APP_SECRET="wrong-secret-of-the-app"):
        assert chunks.refresh_chunk(pks)["stopped"] == "app_credentials_rejected"
    time.sleep(0.1)
    assert chunks.refresh_chunk(pks)["refreshed"] == 2


def test_cache_that_is_down_stops_nothing(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache"}}
    pks = [account.pk for account in connect_due(simulator, 6)]
    assert chunks.refresh_chunk(pks[:1])["refreshed"] == 1
    simulator.fail_next(http_status=502, times=None)
    assert chunks.refresh_chunk(pks)["stopped"] == "tiktok_unavailable"
    texts = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("The cache 'default' does not answer") for text in texts)


# Stopping


def test_chunk_that_takes_too_long_leaves_the_rest(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough to begin on a busy machine, and for less than half of the accounts.
    monkeypatch.setattr(chunks, "LONGEST_RUN_SECONDS", 1.2)
    simulator.configure(latency_seconds=0.6)
    accounts = connect_due(simulator, 48)
    counts = chunks.refresh_chunk([account.pk for account in accounts])
    assert counts["stopped"] == "interrupted"
    assert 0 < counts["refreshed"] < 48
    assert all(is_live(simulator, account) for account in accounts)
    monkeypatch.undo()
    assert chunks.refresh_chunk([account.pk for account in accounts])["stopped"] is None


def test_sync_that_takes_too_long_leaves_the_rest(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LONGEST_RUN_SECONDS", 0.1)
    simulator.configure(latency_seconds=0.2)
    just_now = timezone.now()
    accounts = [
        connect(simulator, f"account_{number}", last_refreshed_at=just_now) for number in range(12)
    ]
    counts = chunks.sync_chunk([account.pk for account in accounts], since=just_now.timestamp() - 1)
    assert counts["stopped"] == "interrupted"
    assert 0 < counts["synced"] < 12


class InterruptedByWorkerError(Exception):
    """Raised by a worker's own signal handler, in the middle of any statement."""


@pytest.fixture(params=[signal.SIGTERM, signal.SIGUSR1])
def impatient(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal whose handler raises at once, as in the child processes of Celery."""

    def interrupt(number: int, frame: object) -> None:
        raise InterruptedByWorkerError

    previous = signal.signal(request.param, interrupt)
    yield request.param
    signal.signal(request.param, previous)


def test_signal_takes_effect_after_the_answers_are_stored(
    simulator: Simulator, impatient: signal.Signals
) -> None:
    simulator.configure(latency_seconds=0.2)
    accounts = connect_due(simulator, 12)
    refreshed: list[int] = []
    meanwhile(lambda: signal.raise_signal(impatient))
    with pytest.raises(InterruptedByWorkerError):
        chunks.refresh_chunk(
            [account.pk for account in accounts], then=lambda pks, since: refreshed.extend(pks)
        )
    assert 0 < simulator.count(REFRESH) == len(refreshed) < 12
    assert all(is_live(simulator, account) for account in accounts)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()


def test_second_signal_takes_effect_immediately(impatient: signal.Signals) -> None:
    def work() -> None:
        with chunks._stoppable() as stop:
            signal.raise_signal(impatient)
            assert stop.wait(5)
            with pytest.raises(InterruptedByWorkerError):
                signal.raise_signal(impatient)

    with pytest.raises(InterruptedByWorkerError):
        work()


def test_stop_running_stops_jobs_in_other_threads(simulator: Simulator) -> None:
    simulator.configure(latency_seconds=0.2)
    accounts = connect_due(simulator, 12)
    before = signal.getsignal(signal.SIGTERM)
    found: list[dict[str, Any]] = []

    def work() -> None:
        try:
            found.append(chunks.refresh_chunk([account.pk for account in accounts]))
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 20
    while not simulator.count(REFRESH) and time.monotonic() < deadline:
        time.sleep(0.01)
    chunks.stop_running()
    thread.join()
    assert found[0]["stopped"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is before
    assert all(is_live(simulator, account) for account in accounts)
