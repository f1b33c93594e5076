"""Connect, disconnect, sync profiles and refresh due accounts."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import DataError, connection
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import (
    AccountGoneError,
    AuthorizationCodeRejectedError,
    RetryableError,
    ServerError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import Listener, connect_account, consent, pair, stored
from tests.support.factories import connect, make_user
from tests.support.refresh_runs import due, is_live
from tests.support.simulator import meanwhile, next_statement, override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
TOKEN = "/tt_user/oauth2/token/"
PROFILE = "/business/get/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_f38_raw_columns_hold_ciphertext(simulator: Simulator) -> None:
    account = connect_account(make_user(), consent(simulator))
    with connection.cursor() as cursor:
        cursor.execute("SELECT access_token, refresh_token FROM tiktok_business_businessaccount")
        raw = cursor.fetchone()
    for column, token in zip(raw, pair(account), strict=True):
        assert column.startswith("ttb1:")
        assert token not in column


def test_f54_code_is_sent_only_once_even_after_a_failure(simulator: Simulator) -> None:
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


def test_profile_of_a_deleted_account_raises(simulator: Simulator) -> None:
    account = connect(simulator)
    meanwhile(lambda: BusinessAccount.objects.all().delete())
    with pytest.raises(AccountGoneError, match="deleted while"):
        services.sync_profile(account)


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


# refresh_due_accounts


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
    """For example because of an emoji that the database's character set lacks."""
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


def test_f16_two_runs_at_once_refresh_each_account_once() -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.02) as simulator,
        override_tiktok(REQUESTS_PER_MINUTE=0, REFRESH_CONCURRENCY=4),
    ):
        accounts = [due(simulator, number) for number in range(1, 25)]
        reports: list[services.RefreshReport] = []

        def work() -> None:
            try:
                reports.append(services.refresh_due_accounts())
            finally:
                connection.close()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert simulator.count(REFRESH) == 24
        assert sum(report.refreshed for report in reports) == 24
        assert all(report.all_refreshed for report in reports)
        assert all(is_live(simulator, account) for account in accounts)


def test_callback_that_raises_loses_no_token(
    simulator: Simulator,
) -> None:
    accounts = [due(simulator, number) for number in range(1, 4)]

    def fail(result: services.RefreshResult) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        services.refresh_due_accounts(on_result=fail)
    assert all(is_live(simulator, account) for account in accounts)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()


def test_stop_finishes_open_calls_and_leaves_the_rest(simulator: Simulator) -> None:
    accounts = [due(simulator, number) for number in range(1, 10)]
    stop = threading.Event()
    report = services.refresh_due_accounts(
        concurrency=1, stop=stop, on_result=lambda result: stop.set(), sync_profiles=True
    )
    assert report.stopped == "interrupted"
    assert not report.all_refreshed
    assert 1 <= report.refreshed < 9
    assert simulator.count(PROFILE) == 0
    assert all(is_live(simulator, account) for account in accounts)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()


def test_stop_between_two_profiles_leaves_the_rest(simulator: Simulator) -> None:
    for number in range(1, 4):
        due(simulator, number)
    stop = threading.Event()

    def nothing() -> None:
        """Let the three refreshes pass."""

    for event in (nothing, nothing, nothing, stop.set):
        meanwhile(event)
    report = services.refresh_due_accounts(concurrency=1, stop=stop, sync_profiles=True)
    assert report.refreshed == 3
    assert simulator.count(PROFILE) == 1
