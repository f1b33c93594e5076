"""Refresh one account, once across all workers, or wait for the worker that does it."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountGoneError,
    ConfigurationError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import claims, refresh
from tests.support.accounts import pair, stored
from tests.support.factories import connect, make_account
from tests.support.simulator import override_tiktok

REFRESH = "/tt_user/oauth2/refresh_token/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


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
    """Another worker changes it after it was read and before it is claimed."""
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
    answers = iter([False, True])  # not when it is read, but once it is claimed
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


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.REAUTHORIZATION_REQUIRED])
def test_worker_that_waits_for_another_process_shares_its_failure(
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
