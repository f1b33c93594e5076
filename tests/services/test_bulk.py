"""Act on many selected accounts within one web request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.exceptions import (
    AppCredentialsRejectedError,
    ReauthorizationRequired,
    RetryableError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import bulk
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.sync import metrics
from tests.support.factories import connect
from tests.support.simulator import meanwhile, override_tiktok
from tests.support.visits import failing

REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"

pytestmark = pytest.mark.django_db(transaction=True)


def connected(simulator: Simulator, count: int, **fields: object) -> list[BusinessAccount]:
    return [connect(simulator, f"account_{number}", **fields) for number in range(count)]


def kinds(attempts: bulk.Attempts) -> list[type[Exception] | None]:
    return [type(error) if error else None for _account, error in attempts]


def paths(simulator: Simulator) -> list[str]:
    return [call.path.removeprefix("/open_api/v1.3") for call in simulator.calls]


def test_profiles_are_asked_for_side_by_side(simulator: Simulator) -> None:
    accounts = connected(simulator, 6, metrics_synced_at=None)
    simulator.configure(latency_seconds=0.3)
    with override_tiktok(REFRESH_CONCURRENCY=12):
        attempts = bulk.sync_profiles(accounts)
    assert attempts == [(account, None) for account in accounts]
    assert paths(simulator) == [PROFILE] * 12
    times = [call.at for call in simulator.calls]
    assert max(times) - min(times) < 1.5  # one after the other they would take 3.6 seconds
    assert not BusinessAccount.objects.filter(profile_synced_at=None).exists()


def test_expired_tokens_are_renewed_before_the_first_profile(simulator: Simulator) -> None:
    ago = timezone.now() - timedelta(days=2)
    accounts = connected(simulator, 3, access_token_expires_at=ago)
    assert kinds(bulk.sync_profiles(accounts)) == [None] * 3
    assert paths(simulator) == [REFRESH] * 3 + [PROFILE] * 3


def test_unexpired_token_that_tiktok_rejects_is_refreshed_and_tried_again(
    simulator: Simulator,
) -> None:
    (account,) = connected(simulator, 1)
    simulator.fail_next("code", code=40105, path=PROFILE, times=2)
    assert kinds(bulk.sync_profiles([account])) == [None]
    assert paths(simulator) == [PROFILE, PROFILE, REFRESH, PROFILE]
    account.refresh_from_db()
    assert account.status == account.Status.ACTIVE


def test_account_that_has_to_be_reconnected_does_not_stop_the_others(simulator: Simulator) -> None:
    connected(simulator, 2)
    accounts = list(BusinessAccount.objects.order_by("pk"))
    accounts[0].status = "reauthorization_required"
    accounts[0].save(update_fields=["status"])
    assert kinds(bulk.sync_profiles(accounts)) == [ReauthorizationRequired, None]
    assert simulator.count(PROFILE) == 1


def test_daily_metrics_that_fail_leave_a_synced_profile(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    (account,) = connected(simulator, 1, metrics_synced_at=None)
    meanwhile(lambda: simulator.fail_next(code=50000, message="No metrics."))
    with override_tiktok(REFRESH_CONCURRENCY=1):
        assert kinds(bulk.sync_profiles([account])) == [None]
    assert f"The metrics of {account.open_id} were not synced: No metrics." in caplog.text
    account.refresh_from_db()
    assert account.profile_synced_at is not None
    assert account.metrics_synced_at is None  # asked for again next time


def test_daily_metrics_that_cannot_be_stored_leave_a_synced_profile(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    scopes = [metrics.SCOPE, "user.info.basic"]  # no totals, which come with the profile
    (account,) = connected(simulator, 1, metrics_synced_at=None, scopes=scopes)
    with failing("INSERT", "tiktok_business_dailymetrics"):
        assert kinds(bulk.sync_profiles([account])) == [None]
    assert f"The metrics of {account.open_id} were not stored" in caplog.text


def test_error_of_a_profile_that_cannot_be_stored_does_not_show_the_row(
    simulator: Simulator,
) -> None:
    (account,) = connected(simulator, 1)
    with failing("UPDATE", "tiktok_business_businessaccount"):
        ((_account, error),) = bulk.sync_profiles([account])
    assert isinstance(error, RetryableError)
    assert str(error).startswith("The database failed (")


def test_no_profile_is_requested_when_tiktok_rejects_the_app(simulator: Simulator) -> None:
    ago = timezone.now() - timedelta(days=2)
    accounts = connected(simulator, 3, access_token_expires_at=ago)
    with override_tiktok(APP_SECRET="not-the-secret", REFRESH_CONCURRENCY=1):
        attempts = bulk.sync_profiles(accounts)
    assert kinds(attempts) == [AppCredentialsRejectedError]
    assert simulator.count(PROFILE) == 0


def test_profiles_keep_to_the_rate_limit(simulator: Simulator) -> None:
    accounts = connected(simulator, 3)
    with override_tiktok(REQUESTS_PER_MINUTE=120):
        assert kinds(bulk.sync_profiles(accounts)) == [None] * 3
    times = [call.at for call in simulator.calls]
    assert max(times) - min(times) > 0.5


@pytest.mark.parametrize("act", [bulk.refresh_tokens, bulk.sync_profiles])
def test_long_run_stops_in_time_and_stores_every_answer(
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[list[BusinessAccount]], object],
) -> None:
    monkeypatch.setattr(bulk, "LONGEST_SECONDS", 0.5)
    accounts = connected(simulator, 5)
    simulator.configure(latency_seconds=0.4)
    with override_tiktok(REFRESH_CONCURRENCY=1):
        act(accounts)
    done = (
        5 - BusinessAccount.objects.filter(last_refreshed_at=None, profile_synced_at=None).count()
    )
    assert done == len(simulator.calls)
    assert 0 < done < 5
    for account in BusinessAccount.objects.all():
        live = (account.access_token, account.refresh_token)
        assert simulator.live_tokens(account.open_id) == live


def test_one_by_one_stops_in_time(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LONGEST_SECONDS", 0.0)
    accounts = connected(simulator, 3)
    attempts = bulk.one_by_one(accounts, services.disconnect_account)
    assert attempts == [(accounts[0], None)]
    assert simulator.count("/revoke/") == 1
