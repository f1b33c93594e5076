"""What TikTok's answer to a refresh changes in the row, also when the row has changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.api import factory
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountGoneError,
    APIError,
    AppCredentialsRejectedError,
    ConnectionFailedError,
    DecryptionError,
    InvalidResponseError,
    RateLimitError,
    ReauthorizationRequired,
    RejectionUnconfirmedError,
    ServerError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import claims
from tests.support.accounts import pair, stored, values
from tests.support.factories import connect
from tests.support.simulator import forget_limits, meanwhile, override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_f01_rejected_pair_that_was_replaced_is_not_recorded(simulator: Simulator) -> None:
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
        connections["default"].close()  # loses what was not committed
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


TEMPORARY: list[tuple[str, dict[str, Any], type[TikTokBusinessError]]] = [
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


@pytest.mark.parametrize(("fault", "details", "expected"), TEMPORARY)
def test_f06_f07_f08_other_failures_keep_the_pair_and_the_status(
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
        # F55: the row records the failure, with TikTok's code and request id. Too many calls of the
        # app are not counted as a failure of this account.
        assert row.consecutive_failures == (expected is not RateLimitError)
        assert row.last_error_at is not None
        assert row.last_error_message
        assert row.last_error_code == details.get("code", row.last_error_code)
        assert row.last_error_request_id == getattr(caught.value, "request_id", "")

        forget_limits()  # ends a pause that TikTok has asked for
        services.refresh_account(account)
        assert stored(account).consecutive_failures == 0


@pytest.mark.parametrize("code", [40103, 40107, 40131])
def test_f06_rejected_refresh_token_requires_reauthorization(
    simulator: Simulator, code: int
) -> None:
    account = connect(simulator)
    heard: list[Any] = []

    def receiver(account: BusinessAccount, error: Exception, **kwargs: Any) -> None:
        heard.append((account.pk, type(error), stored(account).status))

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
    assert heard == [(account.pk, ReauthorizationRequired, Status.REAUTHORIZATION_REQUIRED)]


def test_f08_answer_lost_after_rotation_is_recovered_by_the_next_run() -> None:
    with (
        running_simulator(rotate="always", old_refresh_valid="until_successor_used") as simulator,
        override_tiktok(MAX_ATTEMPTS=3),
    ):
        account = connect(simulator)
        simulator.fail_next("timeout_after", path=REFRESH)
        with pytest.raises(ConnectionFailedError, match="may have acted"):
            services.refresh_account(account)
        assert simulator.count(REFRESH) == 1, (
            "a request that TikTok may be processing is not sent again"
        )
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


def test_deletion_during_a_refresh_is_reported(simulator: Simulator) -> None:
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
    """The claim of one worker expires before its answer arrives, and another one takes over."""
    account = connect(simulator)
    other = stored(account)
    seen: list[str] = []

    def take_over() -> None:
        BusinessAccount.objects.filter(pk=account.pk).update(
            claim_expires_at=timezone.now() - timedelta(hours=1)
        )
        # TikTok has rotated the pair for the first worker, so it rejects what is stored.
        with pytest.raises(RejectionUnconfirmedError):
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
    with pytest.raises(RejectionUnconfirmedError, match="code 40107"):
        services.refresh_account(account)
    with pytest.raises(ReauthorizationRequired):
        services.refresh_account(account)
    assert stored(account).status == Status.REAUTHORIZATION_REQUIRED


def test_rejection_that_outlives_its_claim_is_not_recorded(simulator: Simulator) -> None:
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


def test_account_without_a_refresh_token_raises_and_keeps_its_status(
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


def test_call_without_a_free_slot_changes_nothing_in_the_row(
    simulator: Simulator,
) -> None:
    account = connect(simulator, access_token_expires_at=timezone.now())
    before = values(account)
    heard: list[Any] = []

    def listen(**kwargs: Any) -> None:
        heard.append(kwargs)

    error = RateLimitError("Requests are temporarily restricted.", code=40100)
    paused = factory.limiter_from_settings().refused(error, sent_at=timezone.now().timestamp())
    assert paused == 300
    signals.refresh_failed.connect(listen)
    try:
        with pytest.raises(RateLimitError, match="No call to TikTok is free") as caught:
            services.get_access_token(account)
        listen(proof="it is heard")
    finally:
        signals.refresh_failed.disconnect(listen)
    assert caught.value.retry_after == pytest.approx(290, abs=5)
    assert (caught.value.code, caught.value.http_status) == (None, None)
    assert values(account) == before, "the claim included"
    assert heard == [{"proof": "it is heard"}]
    assert simulator.calls == []


def test_refusal_for_the_rate_is_recorded_but_not_as_a_failure(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    simulator.fail_next("http_429", path=REFRESH, retry_after=120)
    with pytest.raises(RateLimitError) as caught:
        services.refresh_account(account)
    assert caught.value.retry_after == 120
    row = stored(account)
    assert (row.consecutive_failures, row.next_attempt_at, row.claim_id) == (0, None, "")
    assert row.last_error_code == 40100
    assert row.last_error_at is not None
