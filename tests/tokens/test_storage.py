"""What a failure leaves in the row: when a batch tries again, and when that is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone
from django.utils.http import urlencode

from django_tiktok_business import events, services, signals
from django_tiktok_business.api import factory
from django_tiktok_business.exceptions import (
    DecryptionError,
    RateLimitError,
    ReauthorizationRequired,
    RetryableError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_user
from tests.support.simulator import override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator


def stored(account: BusinessAccount) -> BusinessAccount:
    return BusinessAccount.objects.get(pk=account.pk)


def values(account: BusinessAccount) -> dict[str, Any]:
    return dict(BusinessAccount.objects.values().get(pk=account.pk))


def backoff_of(account: BusinessAccount) -> timedelta:
    """How long a batch leaves the account alone after the failure that has just happened."""
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
    # Of 1,800 seconds to choose from; all eight the same two or three times happens never.
    assert len(backoffs) >= 4


def test_success_forgets_the_failures(simulator: Simulator) -> None:
    account = connect(simulator)
    fail(simulator, account)
    services.refresh_account(account)
    assert (account.next_attempt_at, account.consecutive_failures) == (None, 0)
    row = stored(account)
    assert (row.next_attempt_at, row.consecutive_failures) == (None, 0)
    fail(simulator, account)
    assert backoff_of(account) <= timedelta(minutes=1, seconds=2), "it starts anew"


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


def test_f21_what_was_found_out_without_tiktok_has_no_backoff(simulator: Simulator) -> None:
    """A key that is restored helps at once."""
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


def test_call_for_which_there_is_no_turn_says_nothing_about_the_account(
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


def test_refusal_for_the_rate_is_noted_and_is_no_failure(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("http_429", path=REFRESH, retry_after=120)
    with pytest.raises(RateLimitError) as caught:
        services.refresh_account(account)
    assert caught.value.retry_after == 120
    row = stored(account)
    assert (row.consecutive_failures, row.next_attempt_at, row.claim_id) == (0, None, "")
    assert row.last_error_code == 40100
    assert row.last_error_at is not None


def test_signal_outside_autocommit_is_sent_at_once(simulator: Simulator) -> None:
    """Where the caller manages transactions by hand, nobody can say when they are committed."""
    account = connect(simulator)
    heard: list[int] = []

    def listen(account: BusinessAccount, **kwargs: Any) -> None:
        heard.append(account.pk)

    signals.account_disconnected.connect(listen)
    connection.set_autocommit(False)
    try:
        events.announce(signals.account_disconnected, account, "default", kind=None, error=None)
        assert heard == [account.pk]
    finally:
        connection.rollback()
        connection.set_autocommit(True)
        signals.account_disconnected.disconnect(listen)
