"""One account: claim, call, save. What happens when something else happens meanwhile."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountGoneError,
    APIError,
    AppCredentialsRejectedError,
    ConfigurationError,
    ConnectionFailedError,
    DecryptionError,
    InvalidResponseError,
    RateLimitError,
    ReauthorizationRequired,
    RetryableError,
    ServerError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import claims, refresh, single_flight
from tests.support.factories import connect, make_account
from tests.support.processes import wait_until
from tests.support.simulator import forget_ceilings, meanwhile, override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """The hardest TikTok: each token works once, and the old ones die at once."""
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator


def stored(account: BusinessAccount) -> BusinessAccount:
    return BusinessAccount.objects.get(pk=account.pk)


def pair(account: BusinessAccount) -> tuple[str, str]:
    return account.access_token, account.refresh_token


def values(account: BusinessAccount) -> dict[str, Any]:
    return dict(BusinessAccount.objects.values().get(pk=account.pk))


def test_f02_both_rotated_tokens_and_both_expiries_are_stored(simulator: Simulator) -> None:
    account = connect(simulator)
    before = pair(account)
    simulator.clock.advance(3600)

    services.refresh_account(account)

    row = stored(account)
    assert pair(row) == pair(account) == simulator.live_tokens(account.open_id) != before
    assert row.access_token_expires_at is not None
    assert row.refresh_token_expires_at is not None
    lifetime = row.access_token_expires_at - timezone.now()
    assert timedelta(hours=23, minutes=59) < lifetime <= timedelta(hours=24)
    # The year counts down from the consent; a refresh does not extend it.
    assert row.refresh_token_expires_at - timezone.now() < timedelta(days=365, minutes=-59)
    assert row.claim_id == ""
    assert row.claim_expires_at is None


def test_success_clears_the_record_of_failures(simulator: Simulator) -> None:
    account = connect(
        simulator,
        last_error_at=timezone.now(),
        last_error_code=50000,
        last_error_message="System error",
        last_error_request_id="2026",
        consecutive_failures=3,
    )
    services.refresh_account(account)
    row = stored(account)
    assert (row.last_error_at, row.last_error_code, row.consecutive_failures) == (None, None, 0)
    assert (row.last_error_message, row.last_error_request_id) == ("", "")
    assert row.last_refreshed_at is not None


def test_f01_rejection_is_judged_after_rereading_the_row(simulator: Simulator) -> None:
    account = connect(simulator)
    newer = BusinessAccount(app_id=account.app_id, open_id=account.open_id)

    def another_worker_saves() -> None:
        BusinessAccount.objects.filter(pk=account.pk).update(
            access_token=newer.encrypt("access_token", "act.newer"),
            refresh_token=newer.encrypt("refresh_token", "rft.newer"),
            credentials_version=7,
        )

    simulator.fail_next("code", code=40107, path=REFRESH)
    meanwhile(another_worker_saves)
    services.refresh_account(account)

    row = stored(account)
    assert row.status == Status.ACTIVE
    assert pair(row) == pair(account) == ("act.newer", "rft.newer")


def test_f03_tokens_are_committed_before_any_receiver_runs(simulator: Simulator) -> None:
    account = connect(simulator)
    seen: list[tuple[str, str]] = []

    def receiver(account: BusinessAccount, **kwargs: Any) -> None:
        connections["default"].close()  # whatever was not committed is gone
        seen.append(pair(stored(account)))
        raise ZeroDivisionError

    signals.tokens_refreshed.connect(receiver)
    try:
        services.refresh_account(account)
    finally:
        signals.tokens_refreshed.disconnect(receiver)
    assert seen == [simulator.live_tokens(account.open_id)]


@pytest.mark.parametrize("field", ["refresh_token", "refresh_token_expires_in", "scope"])
@pytest.mark.parametrize("fault", ["missing_field", "empty_field"])
def test_f04_missing_or_empty_field_does_not_overwrite(field: str, fault: str) -> None:
    with running_simulator(rotate="never") as simulator:
        account = connect(simulator)
        simulator.fail_next(fault, field=field, path=REFRESH)
        services.refresh_account(account)
        row = stored(account)
        assert pair(row) == simulator.live_tokens(account.open_id)
        assert row.refresh_token_expires_at == account.refresh_token_expires_at
        assert row.refresh_token_expires_at is not None
        assert row.scopes == account.scopes != []


@pytest.mark.parametrize("fault", ["missing_field", "empty_field"])
def test_f05_answer_without_an_access_token_changes_no_token(
    simulator: Simulator, fault: str
) -> None:
    account = connect(simulator)
    before = values(account)
    simulator.fail_next(fault, field="access_token", path=REFRESH)
    with pytest.raises(InvalidResponseError, match="it has no access_token"):
        services.refresh_account(account)
    after = values(account)
    for name in ("access_token", "refresh_token", "access_token_expires_at", "status"):
        assert after[name] == before[name]


def test_f17_unknown_lifetime_is_stored_as_unknown_and_treated_as_due(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    simulator.fail_next("missing_field", field="expires_in", path=REFRESH)
    services.refresh_account(account)
    row = stored(account)
    assert row.access_token_expires_at is None
    assert BusinessAccount.objects.due_for_refresh(timedelta(0)).get() == row
    assert pair(row) == simulator.live_tokens(account.open_id)


PASSING: list[tuple[str, dict[str, Any], type[TikTokBusinessError]]] = [
    ("code", {"code": 40000}, APIError),
    ("code", {"code": 40001}, APIError),
    ("code", {"code": 40100}, RateLimitError),
    ("code", {"code": 40102}, APIError),
    ("code", {"code": 40105}, APIError),
    ("code", {"code": 40110}, APIError),
    ("code", {"code": 40130}, APIError),
    ("code", {"code": 49999}, APIError),
    ("code", {"code": 50000}, ServerError),
    ("code", {"code": 51065}, ServerError),
    ("code", {"code": 60001}, ServerError),
    ("http_status", {"http_status": 401}, InvalidResponseError),
    ("http_status", {"http_status": 403}, InvalidResponseError),
    ("http_status", {"http_status": 503}, ServerError),
    ("http_429", {"retry_after": 120}, RateLimitError),
    ("rate_limited", {}, RateLimitError),
    ("html", {}, InvalidResponseError),
    ("empty", {}, InvalidResponseError),
    ("null_data", {}, InvalidResponseError),
    ("wrong_shape", {}, InvalidResponseError),
    ("truncated", {}, InvalidResponseError),
    ("connection_refused", {}, ConnectionFailedError),
    ("dns_failure", {}, ConnectionFailedError),
    ("tls_failure", {}, ConnectionFailedError),
    ("timeout_before", {}, ConnectionFailedError),
    ("timeout_after", {}, ConnectionFailedError),
    ("reset_after", {}, ConnectionFailedError),
    ("altered_field", {"field": "open_id", "value": "_000SomebodyElse"}, InvalidResponseError),
]


@pytest.mark.parametrize(("fault", "details", "expected"), PASSING)
def test_f06_f07_f08_whatever_is_no_verdict_keeps_the_pair_and_the_status(
    fault: str, details: dict[str, Any], expected: type[TikTokBusinessError]
) -> None:
    with running_simulator(rotate="never") as simulator, override_tiktok(MAX_ATTEMPTS=1):
        account = connect(simulator)
        before = values(account)
        simulator.fail_next(fault, path=REFRESH, **details)

        with pytest.raises(expected) as caught:
            services.refresh_account(account)

        row = stored(account)
        assert not isinstance(caught.value, ReauthorizationRequired)
        assert row.status == Status.ACTIVE
        assert pair(row) == pair(account)
        assert row.access_token_expires_at == before["access_token_expires_at"]
        assert row.claim_id == ""
        # F55: what failed stands in the row, TikTok's code and request id included.
        # Too many calls of the app are no failure of this account.
        assert row.consecutive_failures == (expected is not RateLimitError)
        assert row.last_error_at is not None
        assert row.last_error_message
        assert row.last_error_code == details.get("code", row.last_error_code)
        assert row.last_error_request_id == getattr(caught.value, "request_id", "")

        forget_ceilings()  # where TikTok has asked for a pause, it is over
        services.refresh_account(account)
        assert stored(account).consecutive_failures == 0


@pytest.mark.parametrize("code", [40103, 40107, 40131])
def test_f06_verdict_on_the_refresh_token_requires_reauthorization(
    simulator: Simulator, code: int
) -> None:
    account = connect(simulator)
    told: list[Any] = []

    def receiver(account: BusinessAccount, error: Exception, **kwargs: Any) -> None:
        told.append((account.pk, type(error), stored(account).status))

    signals.reauthorization_required.connect(receiver)
    simulator.fail_next("code", code=code, message="No more.", path=REFRESH)
    try:
        with pytest.raises(ReauthorizationRequired) as caught:
            services.refresh_account(account)
    finally:
        signals.reauthorization_required.disconnect(receiver)

    row = stored(account)
    assert caught.value.code == row.last_error_code == code
    assert caught.value.request_id == row.last_error_request_id != ""
    assert row.status == Status.REAUTHORIZATION_REQUIRED
    assert pair(row) == pair(account), "the pair is kept: TikTok may have been wrong"
    assert told == [(account.pk, ReauthorizationRequired, Status.REAUTHORIZATION_REQUIRED)]


def test_f08_answer_lost_after_rotation_is_recovered_by_the_next_run() -> None:
    with (
        running_simulator(rotate="always", old_refresh_valid="until_successor_used") as simulator,
        override_tiktok(MAX_ATTEMPTS=3),
    ):
        account = connect(simulator)
        simulator.fail_next("timeout_after", path=REFRESH)
        with pytest.raises(ConnectionFailedError, match="may have acted"):
            services.refresh_account(account)
        assert simulator.count(REFRESH) == 1, "a request that may be at work is not repeated"
        services.refresh_account(account)
        assert pair(stored(account)) == simulator.live_tokens(account.open_id)


@pytest.mark.parametrize("code", [40101, 40113, 40124, 40125])
def test_f09_wrong_app_credentials_touch_no_account(simulator: Simulator, code: int) -> None:
    account = connect(simulator)
    before = values(account)
    simulator.fail_next("code", code=code, path=REFRESH)
    with pytest.raises(AppCredentialsRejectedError):
        services.refresh_account(account)
    assert values(account) == before


def test_f10_reconnect_during_a_refresh_wins(simulator: Simulator) -> None:
    account = connect(simulator)
    issued: list[Any] = []

    def reconnect() -> None:
        grant = simulator.issue_grant("harbour_bakery")
        issued.append((grant["access_token"], grant["refresh_token"]))
        row = BusinessAccount(app_id=account.app_id, open_id=account.open_id)
        BusinessAccount.objects.filter(pk=account.pk).update(
            access_token=row.encrypt("access_token", grant["access_token"]),
            refresh_token=row.encrypt("refresh_token", grant["refresh_token"]),
            connected_at=timezone.now(),
            claim_id="",
            claim_expires_at=None,
            credentials_version=2,
        )

    meanwhile(reconnect)
    services.refresh_account(account)
    assert [pair(stored(account))] == [pair(account)] == issued


def test_f10_disconnect_during_a_refresh_wins(simulator: Simulator) -> None:
    account = connect(simulator)
    other = stored(account)
    meanwhile(lambda: services.disconnect_account(other))
    with pytest.raises(ReauthorizationRequired, match="disconnected during the refresh"):
        services.refresh_account(account)
    row = stored(account)
    assert (row.status, pair(row)) == (Status.REVOKED, ("", ""))


def test_deletion_during_a_refresh_is_told(simulator: Simulator) -> None:
    account = connect(simulator)
    meanwhile(lambda: BusinessAccount.objects.all().delete())
    with pytest.raises(AccountGoneError, match="deleted during the refresh"):
        services.refresh_account(account)


@pytest.mark.parametrize("code", [40107, 50000])
def test_deletion_during_a_refresh_that_fails_does_not_hide_the_failure(
    simulator: Simulator, code: int
) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=code, path=REFRESH)
    meanwhile(lambda: BusinessAccount.objects.all().delete())
    with pytest.raises((ServerError, AccountGoneError)):
        services.refresh_account(account)


def test_f11_edits_that_happen_during_a_refresh_are_kept(simulator: Simulator) -> None:
    account = connect(simulator)
    meanwhile(lambda: BusinessAccount.objects.filter(pk=account.pk).update(bio="edited"))
    services.refresh_account(account)
    row = stored(account)
    assert row.bio == "edited"
    assert pair(row) == simulator.live_tokens(account.open_id)


def test_f12_claim_of_a_dead_worker_is_free_after_its_time(simulator: Simulator) -> None:
    account = connect(simulator)
    with override_tiktok(CLAIM_SECONDS=1):
        started = time.monotonic()
        assert claims.claim([account.pk], "default") != []
        assert claims.claim([account.pk], "default") == []
        services.refresh_account(account)
        assert time.monotonic() - started > 0.8
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_answer_that_outlives_its_claim_is_saved_and_leaves_the_new_claim_alone(
    simulator: Simulator,
) -> None:
    account = connect(simulator)

    def take_over() -> None:
        BusinessAccount.objects.filter(pk=account.pk).update(claim_id="another worker")

    meanwhile(take_over)
    services.refresh_account(account)
    row = stored(account)
    assert pair(row) == simulator.live_tokens(account.open_id)
    assert row.claim_id == "another worker"


def test_f01_rejection_counts_when_no_slower_worker_can_hold_newer_tokens(
    simulator: Simulator,
) -> None:
    """The claim of one worker expires before its answer is there; another one takes over."""
    account = connect(simulator)
    other = stored(account)
    seen: list[str] = []

    def take_over() -> None:
        BusinessAccount.objects.filter(pk=account.pk).update(
            claim_expires_at=timezone.now() - timedelta(hours=1)
        )
        # TikTok has rotated the pair for the first worker, so it rejects what is stored.
        with pytest.raises(AccountBusyError, match="may hold newer tokens"):
            services.refresh_account(other)
        seen.append(stored(account).status)

    meanwhile(take_over)
    services.refresh_account(account)
    assert seen == [Status.ACTIVE]
    row = stored(account)
    assert (row.status, row.consecutive_failures) == (Status.ACTIVE, 0)
    assert pair(row) == simulator.live_tokens(account.open_id)


def test_rejection_counts_the_second_time_when_the_slower_worker_has_died(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    with override_tiktok(CLAIM_SECONDS=1):
        assert claims.claim([account.pk], "default") != []
    simulator.revoke_grant(account.open_id)
    with pytest.raises(AccountBusyError, match="code 40107"):
        services.refresh_account(account)
    with pytest.raises(ReauthorizationRequired):
        services.refresh_account(account)
    assert stored(account).status == Status.REAUTHORIZATION_REQUIRED


def test_rejection_that_outlives_its_claim_is_no_verdict(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40107, path=REFRESH)
    meanwhile(
        lambda: BusinessAccount.objects.filter(pk=account.pk).update(claim_id="another worker")
    )
    with pytest.raises(AccountBusyError, match="taken the account over"):
        services.refresh_account(account)
    assert stored(account).status == Status.ACTIVE


def test_f21_undecryptable_token_is_reported_and_kept(simulator: Simulator) -> None:
    account = connect(simulator)
    before = values(account)["refresh_token"]
    with (
        override_tiktok(ENCRYPTION_KEYS=["another key, long enough to pass 0123456789"]),
        pytest.raises(DecryptionError, match=account.open_id),
    ):
        services.refresh_account(account)
    assert values(account)["refresh_token"] == before
    assert stored(account).status == Status.ACTIVE
    assert simulator.count(REFRESH) == 0
    services.refresh_account(account)
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_account_without_a_refresh_token_needs_its_holder_but_is_not_judged(
    simulator: Simulator,
) -> None:
    account = connect(simulator, refresh_token="")
    with pytest.raises(ReauthorizationRequired, match="no refresh token"):
        services.refresh_account(account)
    assert stored(account).status == Status.ACTIVE


def test_rejected_account_is_active_again_when_tiktok_accepts_it_after_all(
    simulator: Simulator,
) -> None:
    account = connect(simulator, status=Status.REAUTHORIZATION_REQUIRED)
    services.refresh_account(account)
    assert stored(account).status == Status.ACTIVE


def test_account_of_another_app_is_not_refreshed(simulator: Simulator) -> None:
    account = make_account(app_id="42")
    with pytest.raises(ReauthorizationRequired, match="connected to app 42"):
        services.refresh_account(account)
    assert simulator.calls == []


def test_unsaved_account_is_not_refreshed(simulator: Simulator) -> None:
    account = connect(simulator)
    BusinessAccount.objects.all().delete()
    with pytest.raises(AccountGoneError, match="gone"):
        services.refresh_account(account)


@pytest.mark.parametrize("status", [Status.REVOKED, Status.REAUTHORIZATION_REQUIRED])
def test_f20_row_that_changes_before_the_claim_is_seen(simulator: Simulator, status: str) -> None:
    """What another worker does between the look and the claim decides."""
    account = connect(simulator)
    looks: list[BusinessAccount] = []

    def change_after_first_look(row: BusinessAccount) -> bool:
        looks.append(row)
        if len(looks) == 1:
            BusinessAccount.objects.filter(pk=account.pk).update(
                status=status, claim_id="x", claim_expires_at=timezone.now() + timedelta(hours=1)
            )
        return False

    with pytest.raises(ReauthorizationRequired):
        refresh.refresh_once(account.pk, "default", is_fresh_enough=change_after_first_look)
    assert simulator.count(REFRESH) == 0


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"SESSION_FACTORY_PATH": "nowhere.at_all"}, ImportError),
        ({"SESSION_FACTORY_PATH": "tests.tokens.test_refresh.no_session"}, ZeroDivisionError),
        ({"ENCRYPTION_KEYS": "not a list"}, ConfigurationError),
    ],
)
def test_wrong_setting_does_not_leave_a_claim_behind(
    simulator: Simulator, keys: dict[str, Any], error: type[Exception]
) -> None:
    account = connect(simulator)
    with override_tiktok(**keys), pytest.raises(error):
        services.refresh_account(account)
    assert stored(account).claim_id == ""
    services.refresh_account(account)
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def no_session() -> None:
    """A session factory with a bug."""
    raise ZeroDivisionError


def test_claim_won_after_another_worker_has_finished_is_given_back(simulator: Simulator) -> None:
    account = connect(simulator)
    answers = iter([False, True])  # not good at the look, good under the claim
    row = refresh.refresh_once(account.pk, "default", is_fresh_enough=lambda row: next(answers))
    assert stored(account).claim_id == ""
    assert simulator.count(REFRESH) == 0
    assert row.pk == account.pk


def test_waiting_ends_when_the_claim_is_not_given_back(simulator: Simulator) -> None:
    account = connect(simulator)
    with override_tiktok(CLAIM_SECONDS=86400):
        assert claims.claim([account.pk], "default") != []
    with override_tiktok(CLAIM_SECONDS=1), pytest.raises(AccountBusyError, match="holds"):
        services.refresh_account(account)


def test_those_who_wait_share_a_failure_instead_of_repeating_it() -> None:
    with (
        running_simulator(latency_seconds=0.5) as simulator,
        override_tiktok(MAX_ATTEMPTS=1),
    ):
        account = connect(simulator)
        simulator.fail_next("code", code=50000, path=REFRESH, times=None)
        outcomes = in_threads(5, lambda: outcome_of(stored(account)))
        assert simulator.count(REFRESH) == 1
        assert outcomes == ["ServerError"] * 5


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.REAUTHORIZATION_REQUIRED])
def test_those_who_wait_share_a_success_instead_of_repeating_it(status: str) -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.5) as simulator,
        override_tiktok(MAX_ATTEMPTS=1),
    ):
        account = connect(simulator, status=status)
        refreshed = in_threads(5, lambda: services.refresh_account(stored(account)))
        assert simulator.count(REFRESH) == 1
        live = simulator.live_tokens(account.open_id)
        assert [pair(row) for row in refreshed] == [live] * 5
        assert {row.status for row in refreshed} == {Status.ACTIVE}


def test_those_who_wait_share_a_rejection_of_an_account_that_was_rejected_before() -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.5) as simulator,
        override_tiktok(MAX_ATTEMPTS=1),
    ):
        account = connect(simulator, status=Status.REAUTHORIZATION_REQUIRED)
        simulator.revoke_grant(account.open_id)

        def work() -> str:
            with pytest.raises(ReauthorizationRequired) as caught:
                services.refresh_account(stored(account))
            return type(caught.value).__name__

        in_threads(4, work)
        assert simulator.count(REFRESH) == 1


@pytest.mark.parametrize("latency", [0.0, 0.3])
def test_f01_f20_many_threads_share_one_refresh(latency: float) -> None:
    with running_simulator(strict=True, latency_seconds=latency) as simulator:
        account = connect(simulator, access_token_expires_at=timezone.now())
        tokens = in_threads(12, lambda: services.get_access_token(stored(account)))
        assert simulator.count(REFRESH) == 1
        live = simulator.live_tokens(account.open_id)
        assert live is not None
        assert set(tokens) == {live[0]}


def outcome_of(account: BusinessAccount) -> str:
    with pytest.raises(RetryableError) as caught:
        services.refresh_account(account)
    return type(caught.value).__name__


def in_threads(count: int, work: Any) -> list[Any]:
    """Run ``work`` in threads that begin together, each with its own database connection."""
    barrier = threading.Barrier(count)

    def run() -> Any:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=30)
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(run) for _ in range(count)]]


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.REAUTHORIZATION_REQUIRED])
def test_those_who_wait_for_another_process_share_its_failure(
    simulator: Simulator, status: str
) -> None:
    account = connect(simulator)
    assert claims.claim([account.pk], "default") != []
    waiting = BusinessAccount.objects.filter(pk=account.pk)

    def fail() -> None:
        waiting.update(
            claim_id="",
            claim_expires_at=None,
            status=status,
            consecutive_failures=1,
            last_error_message="Not today.",
        )
        connections.close_all()

    timer = threading.Timer(0.3, fail)
    timer.start()
    expected: type[TikTokBusinessError] = AccountBusyError
    if status == Status.REAUTHORIZATION_REQUIRED:
        expected = ReauthorizationRequired
    with pytest.raises(expected, match=r"failed to .* just now: Not today\.|has just rejected"):
        services.refresh_account(account)
    timer.join()
    assert simulator.count(REFRESH) == 0


# One flight at a time in a process


def flights() -> int:
    return len(single_flight.shared_refreshes.under_way)


def flights_and_lock() -> int:
    """How many flights there are, and one more when the lock is held."""
    return flights() + single_flight.shared_refreshes.lock.locked()


@contextmanager
def leading(work: Callable[[], object]) -> Iterator[list[Any]]:
    """Another thread does the work meanwhile; gives what it returned or raised."""
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(work())
        except Exception as error:  # noqa: BLE001 -- to be looked at
            outcomes.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: flights() == 1)
        yield outcomes
    finally:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_thread_that_waits_for_another_takes_no_query_and_shares_the_row() -> None:
    with running_simulator(strict=True, latency_seconds=0.6) as simulator:
        account = connect(simulator)
        follower = stored(account)
        with leading(lambda: services.refresh_account(account)) as led:
            wait_until(lambda: simulator.count(REFRESH) == 1)
            with CaptureQueriesContext(connection) as queries:
                services.refresh_account(follower)
        assert len(queries) == 0
        assert led == [account]
        assert simulator.count(REFRESH) == 1
        assert pair(follower) == pair(account) == simulator.live_tokens(account.open_id)
        assert flights() == 0


def test_thread_that_waits_for_another_shares_a_copy_of_its_error() -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.6) as simulator,
        override_tiktok(MAX_ATTEMPTS=1),
    ):
        account = connect(simulator)
        follower = stored(account)
        simulator.fail_next("code", code=50000, path=REFRESH)
        with (
            leading(lambda: services.refresh_account(account)) as led,
            pytest.raises(ServerError) as caught,
        ):
            services.refresh_account(follower)
        (error,) = led
        assert type(error) is ServerError
        assert caught.value is not error, "a traceback belongs to one thread"
        assert (caught.value.code, caught.value.request_id) == (error.code, error.request_id)
        assert simulator.count(REFRESH) == 1
        assert stored(account).consecutive_failures == 1


def test_what_is_good_enough_for_one_may_not_be_for_another(simulator: Simulator) -> None:
    """Who needs a token for longer than the first refreshes it by itself."""
    in_an_hour = timezone.now() + timedelta(hours=1)
    account = connect(simulator, access_token_expires_at=in_an_hour)
    follower = stored(account)
    follower.access_token_expires_at = timezone.now()
    may_look = threading.Event()

    def is_fresh_enough(row: BusinessAccount) -> bool:
        assert may_look.wait(timeout=30)
        return row.is_access_token_valid_for(timedelta(minutes=5))

    with leading(
        lambda: refresh.refresh_once(account.pk, "default", is_fresh_enough=is_fresh_enough)
    ) as led:
        timer = threading.Timer(0.3, may_look.set)
        timer.start()
        token = services.get_access_token(follower, min_validity_seconds=7200)
        timer.join()
    assert pair(led[0]) == pair(account) != pair(follower)
    assert simulator.count(REFRESH) == 1
    live = simulator.live_tokens(account.open_id)
    assert live is not None
    assert token == live[0]


def test_opinion_of_one_caller_is_not_the_error_of_the_others(simulator: Simulator) -> None:
    account = connect(simulator, status=Status.REAUTHORIZATION_REQUIRED)
    follower = stored(account)
    may_look = threading.Event()

    def is_fresh_enough(row: BusinessAccount) -> bool:
        assert may_look.wait(timeout=30)
        raise ReauthorizationRequired("Not for me.")

    with leading(
        lambda: refresh.refresh_once(account.pk, "default", is_fresh_enough=is_fresh_enough)
    ) as led:
        timer = threading.Timer(0.3, may_look.set)
        timer.start()
        services.refresh_account(follower)  # to see whether TikTok accepts it after all
        timer.join()
    assert [str(error) for error in led] == ["Not for me."]
    assert stored(account).status == Status.ACTIVE
    assert simulator.count(REFRESH) == 1


def test_thread_that_fell_over_lets_the_next_one_try(simulator: Simulator) -> None:
    account = connect(simulator)
    follower = stored(account)
    may_look = threading.Event()

    def fall_over() -> None:
        flight = single_flight.SharedRefresh()  # one that ends before it has seen the row
        single_flight.shared_refreshes.under_way["default", account.pk] = flight
        assert may_look.wait(timeout=30)
        del single_flight.shared_refreshes.under_way["default", account.pk]
        flight.done.set()
        assert flight.result(lambda row: True) is None

    with leading(fall_over) as led:
        timer = threading.Timer(0.3, may_look.set)
        timer.start()
        services.refresh_account(follower)
        timer.join()
    assert led == [None]
    assert simulator.count(REFRESH) == 1
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_waiting_for_another_thread_is_bounded_by_the_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refresh, "LOCK_PATIENCE_SECONDS", 0)
    with running_simulator(strict=True, latency_seconds=3) as simulator:
        account = connect(simulator)
        follower = stored(account)
        with leading(lambda: services.refresh_account(account)) as led:
            wait_until(lambda: simulator.count(REFRESH) == 1)
            with (
                override_tiktok(CLAIM_SECONDS=1),
                pytest.raises(AccountBusyError, match="Another thread holds the account"),
            ):
                services.refresh_account(follower)
        assert led == [account]
        assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_receiver_that_asks_for_the_account_again_is_answered(simulator: Simulator) -> None:
    """It runs inside the flight of its own thread, so to wait for that would never end."""
    account = connect(simulator)
    tokens: list[str] = []

    def receiver(account: BusinessAccount, **kwargs: Any) -> None:
        assert flights() == 1
        signals.tokens_refreshed.disconnect(receiver)
        services.refresh_account(account)
        tokens.append(services.get_access_token(account))

    signals.tokens_refreshed.connect(receiver)
    try:
        services.refresh_account(account)
    finally:
        signals.tokens_refreshed.disconnect(receiver)
    assert simulator.count(REFRESH) == 2
    live = simulator.live_tokens(account.open_id)
    assert live is not None
    assert tokens == [live[0]]
    assert pair(stored(account)) == live
    assert flights() == 0


def test_child_process_has_none_of_its_parent_s_flights() -> None:
    """Nobody there would ever end them, nor give their lock back."""
    with (
        running_simulator(strict=True, latency_seconds=0.6) as simulator,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        account = connect(simulator)
        with leading(lambda: services.refresh_account(account)):
            wait_until(lambda: simulator.count(REFRESH) == 1)
            with single_flight.shared_refreshes.lock:
                child = os.fork() or os._exit(flights_and_lock())
                assert flights_and_lock() == 2
            _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
