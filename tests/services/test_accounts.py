"""Connect, hand out tokens, profiles, disconnect: the functions that users call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core import mail
from django.db import DataError, connections
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    AccountBusyError,
    AccountGoneError,
    APIError,
    AuthorizationCodeRejectedError,
    ConnectionFailedError,
    DecryptionError,
    PermissionDeniedError,
    ReauthorizationRequired,
    RetryableError,
    ServerError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import Listener, connect_account, consent, pair, stored
from tests.support.factories import connect, make_user
from tests.support.simulator import (
    meanwhile,
    next_statement,
    override_tiktok,
    running_simulator,
)

REFRESH = "/tt_user/oauth2/refresh_token/"
TOKEN = "/tt_user/oauth2/token/"
REVOKE = "/tt_user/oauth2/revoke/"
PROFILE = "/business/get/"
TOKEN_INFO = "/tt_user/token_info/get/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator


# connect_account


def test_connect_stores_the_pair_the_owner_and_the_scopes(simulator: Simulator) -> None:
    user = make_user()
    with Listener(signals.account_connected) as heard:
        account = connect_account(user, consent(simulator))

    row = stored(account)
    assert pair(row) == pair(account) == simulator.live_tokens(row.open_id)
    assert row.owner == user
    assert row.app_id == settings.TIKTOK_BUSINESS["APP_ID"]
    assert row.scopes == ["user.info.basic", "user.info.stats", "user.info.username", "video.list"]
    assert row.status == Status.ACTIVE
    assert row.connected_at == row.last_refreshed_at is not None
    assert row.refresh_token_expires_at is not None
    assert row.refresh_token_expires_at > timezone.now() + timedelta(days=364)
    assert heard == [{"account": account, "created": True}]


def test_f18_reconnecting_by_the_owner_renews_everything(simulator: Simulator) -> None:
    user = make_user()
    first = connect_account(user, consent(simulator))
    BusinessAccount.objects.update(
        status=Status.REAUTHORIZATION_REQUIRED,
        consecutive_failures=4,
        last_error_code=40107,
        refresh_token_expires_at=timezone.now(),
        bio="kept",
    )
    with Listener(signals.account_connected) as heard:
        again = connect_account(user, consent(simulator, scopes=["video.list"]))

    row = stored(first)
    assert again.pk == first.pk
    assert pair(row) == simulator.live_tokens(row.open_id) != pair(first)
    assert (row.status, row.consecutive_failures, row.last_error_code) == (Status.ACTIVE, 0, None)
    assert row.refresh_token_expires_at is not None
    assert row.refresh_token_expires_at > timezone.now() + timedelta(days=364)
    assert (row.scopes, row.bio) == (["video.list"], "kept")
    assert heard == [{"account": again, "created": False}]


def test_f20_rejection_while_the_tokens_are_being_renewed_is_no_verdict(
    simulator: Simulator,
) -> None:
    account = connect(simulator, owner=make_user("ada"))
    stale = stored(account)
    services.refresh_account(stored(account))
    raised: list[type[BaseException]] = []

    def call_with_the_stale_instance() -> None:
        with pytest.raises(RetryableError) as caught, services.account_client(stale) as client:
            client.profile()
        raised.append(caught.type)
        connections.close_all()

    def ask() -> None:
        thread = threading.Thread(target=call_with_the_stale_instance)
        thread.start()
        thread.join()

    meanwhile(ask)  # when TikTok has ended the pair that is in the row
    with override_tiktok(NOTIFY=["ops@example.com"]):
        services.refresh_due_accounts(within=timedelta(days=3))
    assert raised == [AccountBusyError]
    row = stored(account)
    assert (row.status, pair(row)) == (Status.ACTIVE, simulator.live_tokens(row.open_id))
    assert mail.outbox == []
    assert not row.events.filter(kind="rejected").exists()


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


def test_f38_raw_columns_hold_ciphertext(simulator: Simulator) -> None:
    from django.db import connection

    account = connect_account(make_user(), consent(simulator))
    with connection.cursor() as cursor:
        cursor.execute("SELECT access_token, refresh_token FROM tiktok_business_businessaccount")
        raw = cursor.fetchone()
    for column, token in zip(raw, pair(account), strict=True):
        assert column.startswith("ttb1:")
        assert token not in column


def test_f54_code_is_presented_once_whatever_happens(simulator: Simulator) -> None:
    user = make_user()
    with override_tiktok(MAX_ATTEMPTS=5):
        for fault in ("connection_refused", "timeout_before", "truncated", "http_429"):
            simulator.fail_next(fault, path=TOKEN)
            before = simulator.count(TOKEN)
            with pytest.raises(RetryableError):
                connect_account(user, consent(simulator))
            assert simulator.count(TOKEN) == before + 1
    assert not BusinessAccount.objects.exists()


def test_used_code_stores_nothing(simulator: Simulator) -> None:
    user = make_user()
    code = consent(simulator)
    account = connect_account(user, code)
    before = BusinessAccount.objects.values().get()
    with pytest.raises(AuthorizationCodeRejectedError):
        connect_account(user, code)
    assert BusinessAccount.objects.values().get() == before
    assert account.pk == before["id"]


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


# sync_profile


def test_sync_profile_stores_what_tiktok_says(simulator: Simulator) -> None:
    account = connect(simulator)
    with Listener(signals.profile_synced) as heard:
        services.sync_profile(account)
    row = stored(account)
    assert (row.username, row.display_name) == ("harbour_bakery", "Harbour Bakery")
    assert row.username == account.username
    assert (row.followers_count, row.is_business_account) == (1532, True)
    assert row.profile_image_url.startswith("https://")
    assert row.profile_synced_at is not None
    assert heard == [{"account": account}]


def test_f03_f55_failing_profile_leaves_the_tokens_alone(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=50000, path=PROFILE)
    with pytest.raises(ServerError):
        services.sync_profile(account)
    row = stored(account)
    assert pair(row) == simulator.live_tokens(account.open_id)
    assert (row.status, row.profile_synced_at) == (Status.ACTIVE, None)


def test_f04_missing_and_empty_profile_fields_do_not_overwrite(simulator: Simulator) -> None:
    known: dict[str, Any] = {
        "username": "kept",
        "display_name": "kept",
        "followers_count": 7,
        "bio": "gone",
    }
    account = connect(simulator, **known)
    simulator.fail_next(
        "missing_field", field=["username", "followers_count", "is_verified"], path=PROFILE
    )
    simulator.set_profile("harbour_bakery", display_name="", bio_description="")
    services.sync_profile(account)
    row = stored(account)
    assert (row.username, row.display_name, row.followers_count) == ("kept", "kept", 7)
    assert row.is_verified is None
    assert row.bio == "", "an empty bio is what its owner made of it"


def test_only_fields_that_the_scopes_allow_are_asked_for(simulator: Simulator) -> None:
    account = connect(simulator, scopes=["user.info.stats"])
    services.sync_profile(account)
    row = stored(account)
    assert (row.display_name, row.followers_count) == ("", 1532)


def test_f48_refused_fields_fall_back_to_the_basic_ones_and_correct_the_scopes(
    simulator: Simulator,
) -> None:
    account = connect(simulator, scopes=["not.granted.any.more", "user.info.stats"])
    granted = simulator.issue_grant("harbour_bakery")["scope"].split(",")
    account = connect_again(account, simulator)
    simulator.fail_next("code", code=40001, path=PROFILE)
    services.sync_profile(account)
    row = stored(account)
    assert row.display_name == "Harbour Bakery"
    assert row.followers_count is None
    assert row.scopes == account.scopes == sorted(granted)
    assert row.status == Status.ACTIVE


def connect_again(account: BusinessAccount, simulator: Simulator) -> BusinessAccount:
    """Store the pair that is live now, and keep the rest of the row."""
    live = simulator.live_tokens(account.open_id)
    assert live is not None
    account.access_token, account.refresh_token = live
    account.save()
    return account


def test_profile_of_a_deleted_account_is_told(simulator: Simulator) -> None:
    account = connect(simulator)
    meanwhile(lambda: BusinessAccount.objects.all().delete())
    with pytest.raises(AccountGoneError, match="deleted while"):
        services.sync_profile(account)


# account_client


def test_request_reaches_any_endpoint_with_the_business_id(simulator: Simulator) -> None:
    account = connect(simulator)
    with services.account_client(account) as client:
        profile = client.request("GET", "business/get", params={"fields": ["username"]})
        assert profile == {"username": "harbour_bakery"}
        assert client.token_info().open_id == account.open_id
        assert client.profile(fields=["display_name"]).display_name == "Harbour Bakery"
        with pytest.raises(APIError):
            client.request("POST", "/business/nothing/here/", json={"text": "Hello"})


def test_token_that_tiktok_rejects_is_renewed_and_the_call_repeated(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40105, path=PROFILE)
    assert services.account_client(account).profile().username == "harbour_bakery"
    assert (simulator.count(REFRESH), simulator.count(PROFILE)) == (1, 2)
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_f01_rejected_token_that_another_worker_has_renewed_is_not_refreshed_again(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    stale = stored(account)
    services.refresh_account(account)  # kills the token that `stale` holds
    assert services.account_client(stale).profile().username == "harbour_bakery"
    assert simulator.count(REFRESH) == 1


def test_fresh_token_that_tiktok_does_not_know_requires_reauthorization(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40105, path=PROFILE, times=2)
    simulator.fail_next("code", code=40105, path=TOKEN_INFO)
    with (
        Listener(signals.reauthorization_required) as heard,
        pytest.raises(ReauthorizationRequired) as caught,
    ):
        services.account_client(account).profile()
    row = stored(account)
    assert caught.value.code == row.last_error_code == 40105
    assert row.status == Status.REAUTHORIZATION_REQUIRED
    assert pair(row) == simulator.live_tokens(account.open_id), "the pair is kept"
    assert [event["account"] for event in heard] == [account]


@pytest.mark.parametrize("token_info", [None, "connection_refused"])
def test_endpoint_that_takes_no_such_tokens_does_not_break_the_connection(
    simulator: Simulator, token_info: str | None
) -> None:
    """TikTok answers 40105 also where a token of another product is wanted."""
    account = connect(simulator)
    simulator.fail_next("code", code=40105, path="/advertiser/info/", times=2)
    if token_info is not None:
        simulator.fail_next(token_info, path=TOKEN_INFO)
    with pytest.raises(AccessTokenRejectedError):
        services.account_client(account).request("GET", "/advertiser/info/")
    assert stored(account).status == Status.ACTIVE
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_second_rejection_does_not_judge_a_pair_that_arrived_meanwhile(
    simulator: Simulator,
) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40105, path=PROFILE, times=2)
    simulator.fail_next("code", code=40105, path=TOKEN_INFO)

    def nothing() -> None:
        """Let the first call and the refresh pass."""

    def another_worker_saves() -> None:
        BusinessAccount.objects.update(credentials_version=9)

    for event in (nothing, nothing, another_worker_saves):
        meanwhile(event)
    with pytest.raises(APIError) as caught:
        services.account_client(account).profile()
    assert not isinstance(caught.value, ReauthorizationRequired)
    assert stored(account).status == Status.ACTIVE


def test_missing_scope_is_no_broken_connection(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("code", code=40130, path=PROFILE)
    with pytest.raises(PermissionDeniedError):
        services.account_client(account).profile()
    assert stored(account).status == Status.ACTIVE


# disconnect_account


def test_f50_disconnect_revokes_and_clears(simulator: Simulator) -> None:
    account = connect(simulator)
    with Listener(signals.account_disconnected) as heard:
        assert services.disconnect_account(account) is None
    row = stored(account)
    assert simulator.live_tokens(account.open_id) is None
    for instance in (row, account):
        assert (instance.status, pair(instance)) == (Status.REVOKED, ("", ""))
        assert instance.access_token_expires_at is None
        assert instance.refresh_token_expires_at is None
    assert heard == [{"account": account, "error": None}]


def test_f51_deleting_a_user_keeps_the_accounts(simulator: Simulator) -> None:
    user = make_user()
    account = connect_account(user, consent(simulator))
    user.delete()
    row = stored(account)
    assert row.owner is None
    assert pair(row) == simulator.live_tokens(account.open_id)


# refresh_due_accounts, as called from Python


def test_batch_takes_what_is_due_and_reports_it(simulator: Simulator) -> None:
    now = timezone.now()
    due = connect(simulator, "account_1", access_token_expires_at=now + timedelta(hours=1))
    fresh = connect(simulator, "account_2")
    results: list[services.RefreshResult] = []
    report = services.refresh_due_accounts(on_result=results.append)
    assert (report.refreshed, report.skipped, report.stopped) == (1, 0, None)
    assert [(result.pk, result.outcome) for result in results] == [(due.pk, "refreshed")]
    assert pair(stored(due)) == simulator.live_tokens(due.open_id) != pair(due)
    assert pair(stored(fresh)) == pair(fresh)


@pytest.mark.parametrize("kind", ["queryset", "slice", "union", "list"])
def test_batch_of_chosen_accounts(simulator: Simulator, kind: str) -> None:
    accounts = [connect(simulator, f"account_{number}") for number in range(3)]
    chosen = BusinessAccount.objects.filter(pk__in=[accounts[0].pk, accounts[2].pk])
    one, other = (chosen.filter(pk=accounts[number].pk) for number in (0, 2))
    choice = {
        "queryset": chosen,
        "slice": chosen[:2],
        "union": one.union(other),
        "list": list(chosen),
    }[kind]
    report = services.refresh_due_accounts(accounts=choice, within=timedelta(days=2))
    assert report.refreshed == 2
    assert pair(stored(accounts[1])) == pair(accounts[1])


def test_profiles_come_after_the_tokens_and_their_failures_change_nothing(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    accounts = [connect(simulator, f"account_{number}") for number in range(3)]
    simulator.fail_next("code", code=50000, message="No profile today.", path=PROFILE)
    with caplog.at_level(logging.WARNING, logger="tiktok_business"):
        report = services.refresh_due_accounts(within=timedelta(days=2), sync_profiles=True)
    assert (report.refreshed, report.all_refreshed) == (3, True)
    paths = [call.path.removeprefix("/open_api/v1.3") for call in simulator.calls]
    assert paths == [REFRESH] * 3 + [PROFILE] * 3
    synced = BusinessAccount.objects.filter(profile_synced_at__isnull=False)
    assert synced.count() == 2
    assert "No profile today." in caplog.text
    assert len(accounts) == 3


def test_f14_profile_that_the_database_refuses_does_not_stop_the_others(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does with an emoji, where the database's character set has none."""
    for number in range(3):
        connect(simulator, f"account_{number}")

    def nothing() -> None:
        """Let the three refreshes pass."""

    refused = DataError("Incorrect string value in 'the row'")
    with next_statement("UPDATE", refused) as refuse, caplog.at_level(logging.WARNING):
        for event in (nothing, nothing, nothing, refuse):
            meanwhile(event)
        report = services.refresh_due_accounts(
            within=timedelta(days=2), sync_profiles=True, concurrency=1
        )
    assert report.refreshed == 3
    assert BusinessAccount.objects.filter(profile_synced_at__isnull=False).count() == 2
    assert "was not stored: The database failed (DataError)" in caplog.text
    assert "the row" not in caplog.text


def test_profile_of_an_account_that_is_deleted_meanwhile_is_left_out(simulator: Simulator) -> None:
    connect(simulator)

    def delete(result: services.RefreshResult) -> None:
        BusinessAccount.objects.filter(pk=result.pk).delete()

    report = services.refresh_due_accounts(
        within=timedelta(days=2), sync_profiles=True, on_result=delete
    )
    assert report.refreshed == 1
    assert simulator.count(PROFILE) == 0


def test_connection_error_says_nothing_about_secrets(simulator: Simulator) -> None:
    account = connect(simulator)
    simulator.fail_next("reset_after", path=REFRESH)
    with pytest.raises(ConnectionFailedError) as caught:
        services.refresh_account(account)
    for token in pair(account):
        assert token not in f"{caught.value!r} {caught.value} {stored(account).last_error_message}"
