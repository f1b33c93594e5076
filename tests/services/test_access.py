"""Get access tokens that are valid, and refresh accounts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import (
    ConnectionFailedError,
    DecryptionError,
    ReauthorizationRequired,
    ServerError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import pair, stored
from tests.support.factories import connect, make_user
from tests.support.simulator import meanwhile, override_tiktok

REFRESH = "/tt_user/oauth2/refresh_token/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


# get_access_token


def test_fresh_token_takes_no_query_and_no_call(
    simulator: Simulator, django_assert_num_queries: Any
) -> None:
    account = stored(connect(simulator))
    with django_assert_num_queries(0):
        token = services.get_access_token(account)
    live = simulator.live_tokens(account.open_id)
    assert live is not None
    assert token == live[0]
    assert simulator.calls == []
    assert isinstance(token, str)
    assert token not in repr(token)


@pytest.mark.parametrize(
    ("expires_in_seconds", "min_validity_seconds", "is_refreshed"),
    [(400, None, False), (200, None, True), (200, 100, False), (400, 500, True), (-1, 0, True)],
)
def test_f19_token_that_ends_within_the_margin_is_refreshed(
    simulator: Simulator,
    expires_in_seconds: int,
    min_validity_seconds: int | None,
    is_refreshed: bool,
) -> None:
    soon = timezone.now() + timedelta(seconds=expires_in_seconds)
    account = connect(simulator, access_token_expires_at=soon)
    token = services.get_access_token(account, min_validity_seconds=min_validity_seconds)
    live = simulator.live_tokens(account.open_id)
    assert live is not None
    assert token == live[0] == stored(account).access_token == account.access_token
    assert bool(simulator.count(REFRESH)) is is_refreshed


@pytest.mark.parametrize("seconds", [-1, 86400, 10**9])
def test_validity_that_no_token_has_is_refused(simulator: Simulator, seconds: int) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 86400"):
        services.get_access_token(connect(simulator), min_validity_seconds=seconds)


@pytest.mark.parametrize("expiry", [None, datetime(2999, 1, 1)])  # noqa: DTZ001 -- naive on purpose
def test_f17_unknown_or_naive_expiry_is_refreshed(
    simulator: Simulator, expiry: datetime | None
) -> None:
    account = connect(simulator)
    account.access_token_expires_at = expiry
    BusinessAccount.objects.update(access_token_expires_at=None)
    services.get_access_token(account)
    assert simulator.count(REFRESH) == 1


def test_stale_instance_takes_over_what_another_worker_stored(simulator: Simulator) -> None:
    account = connect(simulator, access_token_expires_at=timezone.now())
    stale = stored(account)
    stale.display_name = "not saved yet"
    services.refresh_account(account)
    assert services.get_access_token(stale) == account.access_token
    assert simulator.count(REFRESH) == 1
    assert stale.display_name == "not saved yet"


@pytest.mark.parametrize(
    ("status", "message"),
    [(Status.REVOKED, "disconnected"), (Status.REAUTHORIZATION_REQUIRED, "No more.")],
)
def test_f20_dead_account_hands_out_nothing(
    simulator: Simulator, status: str, message: str
) -> None:
    account = connect(
        simulator, status=status, last_error_message="No more.", last_error_code=40107
    )
    stale = stored(account)
    stale.status = Status.ACTIVE
    stale.access_token_expires_at = timezone.now()
    for instance in (account, stale):
        with pytest.raises(ReauthorizationRequired, match=message):
            services.get_access_token(instance)
    assert simulator.calls == []


def test_f20_rejection_without_a_recorded_reason_has_one(simulator: Simulator) -> None:
    account = connect(simulator, status=Status.REAUTHORIZATION_REQUIRED)
    with pytest.raises(ReauthorizationRequired, match="TikTok has rejected"):
        services.get_access_token(account)


def test_reconnected_account_works_for_an_instance_that_knew_it_broken(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    broken = stored(account)
    broken.status = Status.REAUTHORIZATION_REQUIRED
    assert services.get_access_token(broken) == account.access_token
    assert broken.status == Status.ACTIVE


def test_failed_refresh_hands_out_no_short_lived_token(simulator: Simulator) -> None:
    account = connect(simulator, access_token_expires_at=timezone.now() + timedelta(seconds=100))
    simulator.fail_next("code", code=50000, path=REFRESH)
    with pytest.raises(ServerError):
        services.get_access_token(account)


def test_f21_undecryptable_fresh_token_is_an_error(simulator: Simulator) -> None:
    account = stored(connect(simulator))
    with (
        override_tiktok(ENCRYPTION_KEYS=["another key, long enough to pass 0123456789"]),
        pytest.raises(DecryptionError, match=account.open_id),
    ):
        services.get_access_token(account)


def test_receiver_that_disconnects_leaves_no_token_to_hand_out(simulator: Simulator) -> None:
    account = connect(simulator, access_token_expires_at=timezone.now())

    def receiver(account: BusinessAccount, **kwargs: Any) -> None:
        services.disconnect_account(account)

    signals.tokens_refreshed.connect(receiver)
    try:
        with pytest.raises(ReauthorizationRequired, match="disconnected"):
            services.get_access_token(account)
    finally:
        signals.tokens_refreshed.disconnect(receiver)


def test_empty_token_is_never_handed_out(simulator: Simulator) -> None:
    account = stored(connect(simulator, access_token=""))
    live = simulator.live_tokens(account.open_id)
    assert live is not None
    assert services.get_access_token(account) not in ("", live[0])
    assert simulator.count(REFRESH) == 1


# refresh_account


def test_f02_pair_that_is_assigned_while_a_refresh_is_in_flight_is_kept(
    simulator: Simulator,
) -> None:
    account = connect(simulator, owner=make_user("ada"))

    def import_another_pair() -> None:
        issued = simulator.issue_grant("harbour_bakery")
        row = stored(account)
        row.access_token, row.refresh_token = issued["access_token"], issued["refresh_token"]
        row.save()

    meanwhile(import_another_pair)
    services.refresh_account(stored(account))
    row = stored(account)
    assert (row.status, pair(row)) == (Status.ACTIVE, simulator.live_tokens(row.open_id))
    version = row.credentials_version
    row.save()
    assert stored(account).credentials_version == version


def test_connection_error_says_nothing_about_secrets(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("reset_after", path=REFRESH)
    with pytest.raises(ConnectionFailedError) as caught:
        services.refresh_account(account)
    for token in pair(account):
        assert token not in f"{caught.value!r} {caught.value} {stored(account).last_error_message}"
