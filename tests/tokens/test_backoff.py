"""When a batch tries an account again after a failure, and what makes it forget failures."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings
from django.utils.http import urlencode

from django_tiktok_business import services
from django_tiktok_business.exceptions import (
    DecryptionError,
    ReauthorizationRequired,
    RetryableError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import stored
from tests.support.factories import connect, make_user
from tests.support.simulator import override_tiktok

REFRESH = "/tt_user/oauth2/refresh_token/"

pytestmark = pytest.mark.django_db(transaction=True)


def backoff_of(account: BusinessAccount) -> timedelta:
    """How long a batch waits after the latest failure of the account."""
    row = stored(account)
    assert row.next_attempt_at is not None
    assert row.last_error_at is not None
    backoff: timedelta = row.next_attempt_at - row.last_error_at
    return backoff


def fail(simulator: Simulator, account: BusinessAccount) -> None:
    simulator.fail_next("code", code=50000, path=REFRESH)
    with pytest.raises(RetryableError):
        services.refresh_account(account)


def test_backoff_doubles_with_each_failure_up_to_an_hour(simulator: Simulator) -> None:
    account = connect(simulator)
    for number in range(9):
        fail(simulator, account)
        longest = min(timedelta(minutes=1) * 2**number, timedelta(hours=1))
        slack = timedelta(seconds=2)
        assert longest / 2 - slack <= backoff_of(account) <= longest + slack
    assert stored(account).consecutive_failures == 9


def test_backoff_of_an_account_that_failed_for_years_is_still_an_hour(
    simulator: Simulator,
) -> None:
    account = connect(simulator, consecutive_failures=2_000_000)
    fail(simulator, account)
    assert timedelta(minutes=29) < backoff_of(account) <= timedelta(minutes=61)
    assert stored(account).consecutive_failures == 2_000_001


def test_accounts_that_fail_together_are_not_tried_together(simulator: Simulator) -> None:
    backoffs = set()
    for number in range(8):
        account = connect(simulator, f"account_{number}", consecutive_failures=9)
        fail(simulator, account)
        backoffs.add(round(backoff_of(account).total_seconds()))
    # Eight of 1,800 possible values: fewer than four different ones practically never happen.
    assert len(backoffs) >= 4


def test_success_forgets_the_failures(simulator: Simulator) -> None:
    account = connect(simulator)
    fail(simulator, account)
    services.refresh_account(account)
    assert (account.next_attempt_at, account.consecutive_failures) == (None, 0)
    row = stored(account)
    assert (row.next_attempt_at, row.consecutive_failures) == (None, 0)
    fail(simulator, account)
    assert backoff_of(account) <= timedelta(minutes=1, seconds=2), "it starts from the beginning"


def test_new_consent_forgets_the_failures(simulator: Simulator) -> None:
    account = connect(simulator)
    fail(simulator, account)
    query = {
        "client_key": settings.TIKTOK_BUSINESS["APP_ID"],
        "scope": "user.info.basic",
        "response_type": "code",
        "redirect_uri": settings.TIKTOK_BUSINESS["REDIRECT_URI"],
        "disable_auto_auth": "1",
    }
    location = simulator.authorize(
        f"https://www.tiktok.com/v2/auth/authorize?{urlencode(query)}", account="harbour_bakery"
    )
    again = services.connect_account(
        make_user(),
        code=parse_qs(urlsplit(location).query)["code"][0],
        redirect_uri=settings.TIKTOK_BUSINESS["REDIRECT_URI"],
    )
    assert again.pk == account.pk
    row = stored(account)
    assert (row.next_attempt_at, row.consecutive_failures, row.last_error_at) == (None, 0, None)


def test_disconnect_forgets_the_failures(simulator: Simulator) -> None:
    account = connect(simulator)
    fail(simulator, account)
    assert services.disconnect_account(account) is None
    row = stored(account)
    assert (row.next_attempt_at, row.consecutive_failures) == (None, 0)


def test_f21_failure_that_involved_no_call_has_no_backoff(simulator: Simulator) -> None:
    """Once the key is restored, the next batch refreshes the account."""
    unreadable, without = connect(simulator, "one"), connect(simulator, "two", refresh_token="")
    with (
        override_tiktok(ENCRYPTION_KEYS=["another key, long enough to pass 0123456789"]),
        pytest.raises(DecryptionError),
    ):
        services.refresh_account(unreadable)
    with pytest.raises(ReauthorizationRequired):
        services.refresh_account(without)
    for account in (unreadable, without):
        row = stored(account)
        assert (row.next_attempt_at, row.consecutive_failures) == (None, 1)
        assert row.last_error_message
    assert simulator.count(REFRESH) == 0
