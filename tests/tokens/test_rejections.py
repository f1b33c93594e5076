"""A connection is lost by the second rejection of TikTok's refresh endpoint, not by the first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import ReauthorizationRequired, RejectionUnconfirmedError
from django_tiktok_business.models import BusinessAccount, Health
from django_tiktok_business.presentation import advice
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import Listener, pair, stored
from tests.support.factories import connect, make_user
from tests.support.notices import LOCMEM, OPS, connect_again, mailing_with
from tests.support.simulator import meanwhile, override_tiktok

REFRESH = "/tt_user/oauth2/refresh_token/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def confirmed_after_ten_minutes() -> Iterator[None]:
    changes = override_tiktok(REJECTION_CONFIRM_SECONDS=600, NOTIFY=[OPS])
    with changes, mailing_with(LOCMEM):
        yield


@pytest.fixture
def account(simulator: Simulator) -> BusinessAccount:
    return connect(simulator, owner=make_user("ada"))


def reject(simulator: Simulator, code: int = 40107) -> None:
    simulator.fail_next("code", code=code, path=REFRESH)


def rejected_earlier(account: BusinessAccount, **before: float) -> None:
    """Let the recorded rejection be older, and its next attempt due."""
    instant = timezone.now() - timedelta(**before)
    BusinessAccount.objects.filter(pk=account.pk).update(
        rejected_at=instant, next_attempt_at=instant
    )


def facts(account: BusinessAccount) -> tuple[str, Health, bool]:
    row = stored(account)
    return row.status, row.health, row.rejected_at is not None


def test_first_rejection_is_recorded_and_troubles_nobody(
    simulator: Simulator, account: BusinessAccount
) -> None:
    reject(simulator)
    with (
        Listener(signals.reauthorization_required) as heard,
        pytest.raises(
            RejectionUnconfirmedError, match=r"We ask once more at .* UTC before"
        ) as caught,
    ):
        services.refresh_account(account)
    row = stored(account)
    assert (caught.value.code, row.last_error_code) == (40107, 40107)
    assert caught.value.request_id == row.last_error_request_id != ""
    assert facts(account) == (Status.ACTIVE, Health.RETRYING, True)
    assert row.rejected_at is not None
    assert row.next_attempt_at == row.rejected_at + timedelta(seconds=600)
    assert (heard, mail.outbox) == ([], [])
    assert services.get_access_token(row) == row.access_token, "it is still valid"
    assert "TikTok rejected this connection at" in advice(row)
    assert "before calling it lost" in row.last_error_message


def test_batch_leaves_the_account_alone_until_the_second_attempt(
    simulator: Simulator, account: BusinessAccount
) -> None:
    reject(simulator)
    report = services.refresh_due_accounts(within=timedelta(days=3))
    assert (report.retry_later, report.reauthorization_required) == (1, 0)
    assert services.refresh_due_accounts(within=timedelta(days=3)).backing_off == 1
    assert simulator.count(REFRESH) == 1
    rejected_earlier(account, seconds=601)
    reject(simulator)
    report = services.refresh_due_accounts(within=timedelta(days=3))
    assert (report.retry_later, report.reauthorization_required) == (0, 1)
    assert facts(account)[:2] == (Status.REAUTHORIZATION_REQUIRED, Health.RECONNECT_NEEDED)
    assert len(mail.outbox) == 1


def test_second_rejection_too_soon_confirms_nothing(
    simulator: Simulator, account: BusinessAccount
) -> None:
    reject(simulator)
    with pytest.raises(RejectionUnconfirmedError):
        services.refresh_account(account)
    rejected_earlier(account, seconds=590)
    first = stored(account).rejected_at
    reject(simulator)
    with pytest.raises(RejectionUnconfirmedError):
        services.refresh_account(account)
    assert facts(account) == (Status.ACTIVE, Health.RETRYING, True)
    assert stored(account).rejected_at == first


def test_second_rejection_is_final_and_said_once(
    simulator: Simulator, account: BusinessAccount
) -> None:
    simulator.revoke_grant(account.open_id)
    with Listener(signals.reauthorization_required) as heard:
        with pytest.raises(RejectionUnconfirmedError):
            services.refresh_account(account)
        rejected_earlier(account, minutes=11)
        for _ in range(2):
            with pytest.raises(ReauthorizationRequired):
                services.refresh_account(account)
    assert stored(account).status == Status.REAUTHORIZATION_REQUIRED
    assert [event["account"] for event in heard] == [account]
    assert len(mail.outbox) == 1


@pytest.mark.parametrize("how", ["refresh", "reconnect", "assigned"])
def test_new_pair_starts_from_the_beginning(
    simulator: Simulator, account: BusinessAccount, how: str
) -> None:
    reject(simulator)
    with pytest.raises(RejectionUnconfirmedError):
        services.refresh_account(account)
    rejected_earlier(account, hours=1)
    if how == "refresh":
        services.refresh_account(account)
    elif how == "reconnect":
        connect_again(User.objects.get(), simulator)
    else:
        row = stored(account)
        row.access_token, row.refresh_token = row.access_token, row.refresh_token
        row.save()
    assert stored(account).rejected_at is None
    reject(simulator)
    with pytest.raises(RejectionUnconfirmedError):
        services.refresh_account(stored(account))
    assert stored(account).status == Status.ACTIVE


@pytest.mark.parametrize(
    ("ends_in", "final"), [({"seconds": -1}, True), ({"days": 30}, False), (None, False)]
)
def test_expired_refresh_token_is_final_at_once_only_if_we_expected_it(
    simulator: Simulator, ends_in: dict[str, Any] | None, final: bool
) -> None:
    ends_at = None if ends_in is None else timezone.now() + timedelta(**ends_in)
    account = connect(simulator, refresh_token_expires_at=ends_at)
    reject(simulator, code=40103)
    with pytest.raises(ReauthorizationRequired if final else RejectionUnconfirmedError):
        services.refresh_account(account)
    expected = Status.REAUTHORIZATION_REQUIRED if final else Status.ACTIVE
    assert stored(account).status == expected


def test_rejection_of_an_account_that_is_lost_already_is_no_first_one(
    simulator: Simulator,
) -> None:
    account = connect(simulator, status=Status.REAUTHORIZATION_REQUIRED)
    reject(simulator)
    with pytest.raises(ReauthorizationRequired):
        services.refresh_account(account)
    assert stored(account).status == Status.REAUTHORIZATION_REQUIRED


def test_advice_of_other_failures_is_that_of_the_state(account: BusinessAccount) -> None:
    assert advice(account) == Health.HEALTHY.advice
    account.consecutive_failures = 1
    assert advice(account) == Health.RETRYING.advice


@pytest.mark.parametrize("columns", [["access_token", "refresh_token"], ["refresh_token"]])
def test_pair_that_is_saved_alone_starts_from_the_beginning(
    simulator: Simulator, account: BusinessAccount, columns: list[str]
) -> None:
    reject(simulator)
    with pytest.raises(RejectionUnconfirmedError):
        services.refresh_account(account)
    rejected_earlier(account, hours=1)
    row = stored(account)
    for name in columns:
        setattr(row, name, getattr(row, name))
    row.save(update_fields=columns)
    assert stored(account).rejected_at is None
    assert stored(account).credentials_version == account.credentials_version + 1


def test_rejection_of_a_pair_that_a_reconnect_has_replaced_is_no_failure(
    simulator: Simulator, account: BusinessAccount
) -> None:
    reject(simulator)
    meanwhile(lambda: connect_again(User.objects.get(), simulator))
    with Listener(signals.refresh_failed) as heard:
        services.refresh_account(account)
    assert pair(account) == pair(stored(account)) == simulator.live_tokens(account.open_id)
    assert (facts(account), heard) == ((Status.ACTIVE, Health.HEALTHY, False), [])


def test_rejection_that_a_wrong_clock_dated_delays_nothing(
    simulator: Simulator, account: BusinessAccount
) -> None:
    rejected_earlier(account, days=-365)
    reject(simulator)
    with pytest.raises(RejectionUnconfirmedError):
        services.refresh_account(account)
    row = stored(account)
    assert row.rejected_at is not None
    assert row.rejected_at <= timezone.now()
    assert row.next_attempt_at == row.rejected_at + timedelta(seconds=600)


def test_batch_asks_again_though_the_token_is_not_due(
    simulator: Simulator, account: BusinessAccount
) -> None:
    reject(simulator)
    with pytest.raises(RejectionUnconfirmedError):
        services.refresh_account(account)
    assert services.refresh_due_accounts().backing_off == 1
    rejected_earlier(account, seconds=601)
    reject(simulator)
    assert services.refresh_due_accounts().reauthorization_required == 1
    assert simulator.count(REFRESH) == 2


def test_disconnect_forgets_a_rejection(simulator: Simulator, account: BusinessAccount) -> None:
    reject(simulator)
    with pytest.raises(RejectionUnconfirmedError):
        services.refresh_account(account)
    simulator.fail_next("code", code=50000, path="/tt_user/oauth2/revoke/")
    services.disconnect_account(account)
    row = stored(account)
    assert row.last_error_code == 50000
    assert (row.rejected_at, row.next_attempt_at) == (None, None)
