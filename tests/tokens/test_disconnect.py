"""Disconnect an account, also when TikTok does not confirm it."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountGoneError,
    ConfigurationError,
    DecryptionError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import Listener, pair, stored
from tests.support.factories import connect, make_account
from tests.support.simulator import meanwhile, override_tiktok

REVOKE = "/tt_user/oauth2/revoke/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("fault", ["connection_refused", "timeout_after", "html", "rate_limited"])
def test_f50_disconnect_erases_the_tokens_also_when_tiktok_does_not_confirm(
    simulator: Simulator, fault: str
) -> None:
    account = connect(simulator)
    simulator.fail_next(fault, path=REVOKE)
    error = services.disconnect_account(account)
    row = stored(account)
    assert error is not None
    assert (row.status, pair(row)) == (Status.REVOKED, ("", ""))
    assert row.last_error_message


def test_disconnect_revokes_with_the_token_of_the_row_not_of_a_stale_instance(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    stale = stored(account)
    services.refresh_account(account)
    assert services.disconnect_account(stale) is None
    assert simulator.live_tokens(account.open_id) is None


def test_disconnecting_an_unreadable_account_erases_its_tokens(simulator: Simulator) -> None:
    account = connect(simulator)
    with override_tiktok(ENCRYPTION_KEYS=["another key, long enough to pass 0123456789"]):
        assert isinstance(services.disconnect_account(account), DecryptionError)
    assert pair(stored(account)) == ("", "")
    assert simulator.count(REVOKE) == 0


def test_disconnecting_an_account_of_another_app_makes_no_call(simulator: Simulator) -> None:
    account = make_account(app_id="42")
    error = services.disconnect_account(account)
    assert "connected to app 42" in str(error)
    assert stored(account).status == Status.REVOKED
    assert simulator.calls == []


@pytest.mark.parametrize("overrides", [{}, {"app_id": "42"}, {"access_token": ""}])
def test_wrong_setting_is_raised_before_anything_is_erased(
    simulator: Simulator, overrides: dict[str, str]
) -> None:
    account = make_account(**overrides)
    before = pair(account)
    with override_tiktok(MAX_ATTEMPTS="many"), pytest.raises(ConfigurationError):
        services.disconnect_account(account)
    row = stored(account)
    assert (row.status, pair(row)) == (Status.ACTIVE, before)
    assert simulator.calls == []


def test_disconnecting_twice_is_harmless(simulator: Simulator) -> None:
    account = connect(simulator)
    services.disconnect_account(account)
    assert services.disconnect_account(account) is None
    assert simulator.count(REVOKE) == 1


def test_f10_reconnect_during_a_disconnect_keeps_its_tokens(simulator: Simulator) -> None:
    account = connect(simulator)
    meanwhile(lambda: BusinessAccount.objects.update(connected_at=timezone.now()))
    with pytest.raises(AccountBusyError, match="connected again"):
        services.disconnect_account(account)
    assert pair(stored(account)) == pair(account)


@pytest.mark.databases("postgresql", "mysql")
def test_disconnecting_a_row_that_the_caller_has_locked_revokes_nothing(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    with transaction.atomic():
        BusinessAccount.objects.filter(pk=account.pk).update(bio="locked")
        with pytest.raises(AccountBusyError, match="locked the account"):
            services.disconnect_account(account)
    assert simulator.count(REVOKE) == 0
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


@pytest.mark.databases("postgresql", "mysql")
def test_f15_disconnect_survives_the_rollback_of_the_caller(simulator: Simulator) -> None:
    account = connect(simulator)
    with Listener(signals.account_disconnected) as heard, transaction.atomic():
        assert services.disconnect_account(account) is None
        transaction.set_rollback(True)
    row = stored(account)
    assert (row.status, pair(row)) == (Status.REVOKED, ("", ""))
    assert simulator.live_tokens(account.open_id) is None
    assert heard == [{"account": account, "error": None}]


@pytest.mark.databases("sqlite")
def test_disconnect_inside_a_transaction_is_announced_after_the_commit(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    with Listener(signals.account_disconnected) as heard:
        with transaction.atomic():
            services.disconnect_account(account)
            assert heard == []
        assert heard == [{"account": account, "error": None}]


def test_disconnecting_a_deleted_account_is_reported(simulator: Simulator) -> None:
    account = connect(simulator)
    BusinessAccount.objects.all().delete()
    with pytest.raises(AccountGoneError, match="deleted already"):
        services.disconnect_account(account)
