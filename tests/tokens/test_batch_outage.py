"""A batch in an outage of TikTok, and beside accounts that always fail."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.api import rate_limit
from django_tiktok_business.exceptions import DecryptionError, ServerError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import RefreshResult
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import batch, claims
from tests.support.batches import ACCOUNTS, claimed_rows, errors_sent_with, make_due, rows
from tests.support.simulator import (
    meanwhile,
)

REFRESH = "/tt_user/oauth2/refresh_token/"


OUTAGES: list[dict[str, Any]] = [
    {"fault": "connection_refused"},
    {"fault": "timeout_before"},
    {"fault": "code", "code": 50000},
    {"fault": "http_status", "http_status": 503},
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: str(outage["fault"]))
@pytest.mark.parametrize("concurrency", [1, 4])
def test_f53_outage_stops_the_run_and_changes_no_account(
    paced: Simulator, outage: dict[str, Any], concurrency: int
) -> None:
    for number in range(10):
        make_due(paced, f"account_{number}", 10 + number)
    before = rows()
    paced.fail_next(**outage, path=REFRESH, times=None)
    results: list[RefreshResult] = []
    with errors_sent_with(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=concurrency, on_result=results.append)
    assert report.stopped == "tiktok_unavailable"
    # The fifth failure, what was in the pool at that moment, and the probe.
    assert 6 <= paced.count(REFRESH) <= 5 + concurrency + concurrency // 2
    assert report.retry_later == len(report.failures) == len(results) == paced.count(REFRESH)
    assert {result.outcome for result in results} == {"retry_later"}
    assert rows() == before, "claims and failures included"
    assert failed == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("last", [{}, {"fault": "code", "code": 40107}], ids=["success", "verdict"])
def test_f14_failures_before_another_answer_are_those_of_the_accounts(
    paced: Simulator, last: dict[str, Any]
) -> None:
    fifth = make_due(paced, "account_5", 5)
    accounts = list(BusinessAccount.objects.order_by("access_token_expires_at")[:4])
    paced.fail_next("code", code=50000, path=REFRESH, times=4)
    if last:
        paced.fail_next(**last, path=REFRESH)
    with errors_sent_with(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=1)
    assert (report.retry_later, report.stopped) == (4, None)
    assert failed == [(account.pk, ServerError) for account in accounts]
    for account in accounts:
        account.refresh_from_db()
        assert (account.consecutive_failures, account.last_error_code) == (1, 50000)
        assert account.next_attempt_at is not None
    fifth.refresh_from_db()
    assert fifth.next_attempt_at is None
    assert claimed_rows() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_f14_accounts_that_always_fail_do_not_stop_the_others(
    paced: Simulator, concurrency: int
) -> None:
    """After the fifth failure the account that was refreshed last becomes the probe."""
    for number in range(4):
        make_due(paced, f"account_{number}", 10 + number)
    probe = make_due(paced, "probe", 60)
    BusinessAccount.objects.update(last_refreshed_at=timezone.now() - timedelta(days=2))
    probe.last_refreshed_at = timezone.now() - timedelta(hours=20)
    probe.save()
    paced.fail_next("code", code=50000, path=REFRESH, times=5)
    results: list[RefreshResult] = []
    report = services.refresh_due_accounts(concurrency=concurrency, on_result=results.append)
    assert (report.stopped, report.retry_later, report.refreshed) == (None, 5, 4)
    assert report.skipped == 0
    backing_off = BusinessAccount.objects.filter(next_attempt_at__isnull=False)
    assert backing_off.count() == 5
    if concurrency == 1:
        assert [result.pk for result in results].index(probe.pk) == 5
    assert claimed_rows() == 0


@pytest.mark.django_db(transaction=True)
def test_f14_probe_that_another_worker_holds_is_replaced(
    paced: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        make_due(paced, f"account_{number}", 10 + number)
    probe = make_due(paced, "probe", 60)
    probe.last_refreshed_at = timezone.now() - timedelta(hours=20)
    probe.save()

    def let_another_worker_claim_it() -> None:
        claims.claim([probe.pk], "default")

    paced.fail_next("code", code=50000, path=REFRESH, times=None)
    send_probe = batch._Batch.send_probe

    def send_and_lose(run: Any) -> bool:
        is_sent = send_probe(run)
        let_another_worker_claim_it()
        return is_sent

    monkeypatch.setattr(batch._Batch, "send_probe", send_and_lose)
    report = services.refresh_due_accounts(concurrency=1)
    assert (report.stopped, report.skipped) == ("tiktok_unavailable", 1)
    assert claimed_rows() == 1


@pytest.mark.django_db(transaction=True)
def test_f14_few_failures_at_the_end_are_those_of_the_accounts(paced: Simulator) -> None:
    paced.fail_next("connection_refused", path=REFRESH, times=4)
    with errors_sent_with(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=2)
    assert (report.retry_later, report.stopped) == (4, None)
    assert len(failed) == 4
    assert {row["consecutive_failures"] for row in rows()} == {1}
    assert claimed_rows() == 0


@pytest.mark.django_db(transaction=True)
def test_f53_refusals_for_the_rate_are_not_failures_of_an_account(
    paced: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "NEXT_SECOND", 0.1)
    paced.fail_next("rate_limited", path=REFRESH, message="App reaches the QPS limit.", times=2)
    paced.fail_next("code", code=50000, path=REFRESH)
    with errors_sent_with(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=1, limit=1)
    assert report.retry_later == 1
    (row,) = BusinessAccount.objects.exclude(last_error_at=None)
    assert failed == [(row.pk, ServerError)]
    assert row.consecutive_failures == 1
    assert row.next_attempt_at is not None
    assert row.next_attempt_at - timezone.now() <= timedelta(minutes=1)


@pytest.mark.django_db(transaction=True)
def test_failures_before_an_interruption_are_stored(paced: Simulator) -> None:
    paced.fail_next("connection_refused", path=REFRESH)
    stop = threading.Event()
    meanwhile(stop.set)  # with the answer to the second
    report = services.refresh_due_accounts(concurrency=1, stop=stop)
    assert (report.refreshed, report.retry_later, report.stopped) == (1, 1, "interrupted")
    assert sorted(row["consecutive_failures"] for row in rows()) == [0, 0, 0, 1]


@pytest.mark.django_db(transaction=True)
def test_f22_unreadable_token_neither_ends_nor_begins_an_outage(paced: Simulator) -> None:
    """Decryption fails in the pool, before any call."""
    broken = BusinessAccount.objects.get(open_id=paced.open_id(ACCOUNTS[2]))
    BusinessAccount.objects.filter(pk=broken.pk).update(open_id="_moved")  # cannot be decrypted
    for number in range(6):
        make_due(paced, f"account_{number}", 10 + number)
    paced.fail_next("connection_refused", path=REFRESH, times=None)
    with errors_sent_with(signals.refresh_failed) as failed:
        report = services.refresh_due_accounts(concurrency=1)
    assert report.stopped == "tiktok_unavailable"
    assert report.undecryptable == 1
    assert report.retry_later == paced.count(REFRESH) >= 5
    assert failed == [(broken.pk, DecryptionError)]
    assert claimed_rows() == 0


@pytest.mark.django_db(transaction=True)
def test_f09_refused_app_credentials_stop_the_run_and_change_no_account(paced: Simulator) -> None:
    paced.fail_next("connection_refused", path=REFRESH)
    paced.fail_next("code", code=40113, path=REFRESH, times=None)
    before = rows()
    report = services.refresh_due_accounts(concurrency=1)
    assert report.stopped == "app_credentials_rejected"
    assert report.retry_later == paced.count(REFRESH) == 2
    changed = [row["id"] for row in rows() if row not in before]
    assert changed == [before[0]["id"]], "the account whose call did not reach TikTok"
