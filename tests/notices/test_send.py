"""Notices are sent once for each cause."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import ReauthorizationRequired
from django_tiktok_business.models import BusinessAccount, Notice
from django_tiktok_business.notices import send
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_account
from tests.support.notices import (
    an_hour_passes,
    at_each_mail,
    broken_mail_server,
    connect_again,
    listening,
    make_rejected,
    reject,
    run,
    soon,
    subjects,
)
from tests.support.simulator import override_tiktok

pytestmark = pytest.mark.django_db(transaction=True)


def test_each_cause_is_notified_once(simulator: Simulator, ada: User) -> None:
    account = connect(simulator, owner=ada, refresh_token_expires_at=soon())
    run()
    run()
    assert len(subjects()) == 1
    reject(account, simulator)
    with pytest.raises(ReauthorizationRequired):
        services.get_access_token(BusinessAccount.objects.get())
    run()
    assert [subject.split()[0] for subject in subjects()] == ["Access", "Please"]


def test_daily_refresh_within_the_same_consent_sends_no_new_notice(
    simulator: Simulator, ada: User
) -> None:
    connect(simulator, owner=ada, refresh_token_expires_at=soon())
    run()
    BusinessAccount.objects.update(access_token_expires_at=timezone.now())
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=365):  # the simulator's consents are new
        run()
    assert BusinessAccount.objects.get().credentials_version == 1
    assert len(subjects()) == 1


def test_new_consent_begins_afresh(simulator: Simulator, ada: User) -> None:
    account = connect(simulator, owner=ada, refresh_token_expires_at=soon())
    run()
    reject(account, simulator)
    assert len(subjects()) == 2
    connect_again(ada, simulator)
    run()
    assert len(subjects()) == 2
    BusinessAccount.objects.update(refresh_token_expires_at=soon())  # nearly a year later
    run()
    reject(account, simulator)
    run()
    assert [subject.split()[0] for subject in subjects()] == ["Access", "Please"] * 2


def test_account_without_a_date_of_connection_is_notified_once(ada: User) -> None:
    make_account(owner=ada, connected_at=None, refresh_token_expires_at=soon())
    run()
    run()
    assert len(subjects()) == 1


def test_no_notice_is_sent_about_other_accounts(ada: User) -> None:
    make_account(open_id="far off", refresh_token_expires_at=soon(31))
    make_account(open_id="over", refresh_token_expires_at=soon(-1))
    make_account(open_id="unknown", refresh_token_expires_at=None)
    make_account(open_id="gone", refresh_token_expires_at=soon(), status="revoked")
    make_account(open_id="other app", refresh_token_expires_at=soon(), app_id="7000000000000000009")
    make_rejected(open_id="lost for years", last_error_at=soon(-8))
    make_rejected(open_id="of other app", app_id="7000000000000000009")
    run()
    assert subjects() == []


def test_no_notice_is_sent_and_no_query_made_while_notices_are_off(
    simulator: Simulator, django_assert_num_queries: Any
) -> None:
    account = connect(simulator, refresh_token_expires_at=soon())
    make_rejected()
    with override_tiktok(NOTIFY=[]):
        reject(account, simulator)
        run()
        with django_assert_num_queries(0):
            send.send_due(BusinessAccount.objects.using("default"))
    assert subjects() == []
    assert not Notice.objects.exists()


def test_notices_are_sent_page_by_page(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "PAGE_ROWS", 2)
    for number in range(5):
        make_account(open_id=f"_{number}", owner=ada, refresh_token_expires_at=soon())
    run()
    assert len(set(subjects())) == 5


def test_of_many_workers_one_sends_the_notice(ada: User) -> None:
    count = 4
    make_rejected(owner=ada)
    make_account(open_id="_ends", owner=ada, refresh_token_expires_at=soon())
    start = threading.Barrier(count)

    def work() -> None:
        try:
            start.wait(timeout=30)
            send.send_due(BusinessAccount.objects.using("default"))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()
    assert sorted(subject.split()[0] for subject in subjects()) == ["Access", "Please"]
    assert Notice.objects.exclude(told_at=None).count() == 2


def test_worker_sends_no_mail_while_another_is_sending_it(ada: User) -> None:
    make_rejected(owner=ada)
    with at_each_mail(run):
        run()
    assert len(subjects()) == 1


def test_of_two_workers_that_find_the_same_notice_one_claims_it(ada: User) -> None:
    account = make_rejected(owner=ada)
    until = timezone.now() + send.CLAIM
    kind = Notice.Kind.REAUTHORIZATION_REQUIRED
    assert send._claim(kind, account, until, "default")
    assert not send._claim(kind, account, until, "default")
    send._notify_once(kind, account, "default")
    assert subjects() == [], "the one that holds the claim sends it"
    an_hour_passes()  # in which the winner has died
    assert send._claim(kind, account, until, "default")
    assert not send._claim(kind, account, until, "default")


def test_account_that_is_connected_again_during_the_run_is_left_out(ada: User) -> None:
    for open_id in ("first", "second"):
        make_rejected(open_id=open_id, owner=ada)

    def repair() -> None:
        BusinessAccount.objects.filter(open_id="second").update(status="active")

    with at_each_mail(repair):
        run()
    assert subjects() == ["Please connect the TikTok account first again"]


def test_account_that_is_deleted_during_the_run_is_left_out(ada: User) -> None:
    account = make_rejected(owner=ada)
    BusinessAccount.objects.filter(pk=account.pk).delete()
    kind = Notice.Kind.REAUTHORIZATION_REQUIRED
    assert not send._claim(kind, account, timezone.now(), "default")


def test_notices_go_with_their_account(ada: User) -> None:
    account = make_rejected(owner=ada)
    run()
    assert str(Notice.objects.get()) == "reauthorization required"
    account.delete()
    assert not Notice.objects.exists()


def test_signal_is_sent_once_for_each_consent_without_mail(simulator: Simulator, ada: User) -> None:
    account = connect(simulator, owner=ada, refresh_token_expires_at=soon())
    with override_tiktok(NOTIFY=[]), listening() as heard:
        run()
        run()
        assert heard == [(account, account.refresh_token_expires_at)]
        connect_again(ada, simulator)
        run()
        BusinessAccount.objects.update(refresh_token_expires_at=soon())
        run()
        assert len(heard) == 2
    assert subjects() == []


def test_mail_that_fails_does_not_repeat_the_signal(ada: User) -> None:
    make_account(owner=ada, refresh_token_expires_at=soon())
    with listening() as heard:
        with broken_mail_server():
            run()
        an_hour_passes()
        run()
    assert (len(heard), len(subjects())) == (1, 1)


def test_receiver_that_raises_does_not_stop_the_mail(ada: User) -> None:
    def complain(**kwargs: object) -> None:
        raise LookupError

    make_account(owner=ada, refresh_token_expires_at=soon())
    signals.consent_ends_soon.connect(complain)
    try:
        with listening() as heard:
            run()
    finally:
        signals.consent_ends_soon.disconnect(complain)
    assert (len(heard), len(subjects())) == (1, 1)


def test_new_receiver_or_recipient_gets_the_notices_that_are_due(ada: User) -> None:
    make_account(owner=ada, refresh_token_expires_at=soon())
    with override_tiktok(NOTIFY=[]):
        run()
        with listening() as heard:
            run()
    run()
    assert (len(heard), len(subjects())) == (1, 1)
