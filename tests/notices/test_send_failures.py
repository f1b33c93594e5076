"""Notices come after the tokens, and a failure to send them harms nothing else."""

from __future__ import annotations

import itertools
import threading
from datetime import timedelta
from smtplib import SMTPRecipientsRefused

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import OperationalError, transaction
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.models import BusinessAccount, Notice
from django_tiktok_business.notices import send
from django_tiktok_business.services import chunks as chunks_module
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_account
from tests.support.notices import (
    NOTICES,
    an_hour_passes,
    at_each_mail,
    broken_mail_server,
    make_rejected,
    reject,
    run,
    soon,
    subjects,
)
from tests.support.simulator import next_statement, override_tiktok
from tests.support.visits import failing

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("chosen", ["all", "the active ones", "a list"])
def test_batch_mails_when_all_tokens_are_saved(
    simulator: Simulator, ada: User, chosen: str
) -> None:
    names = ("harbour_bakery", "bike_shop", "tea_house")
    for name in names:
        connect(simulator, name, owner=ada)
    lost = connect(simulator, "lost", owner=ada, access_token_expires_at=timezone.now())
    simulator.revoke_grant(lost.open_id)
    accounts = {
        "all": None,
        "the active ones": BusinessAccount.objects.active(),
        "a list": list(BusinessAccount.objects.all()),
    }[chosen]
    saved: list[int] = []

    def count() -> None:
        saved.append(BusinessAccount.objects.filter(last_refreshed_at__isnull=False).count())

    with at_each_mail(count):
        report = services.refresh_due_accounts(
            within=timedelta(days=2), accounts=accounts, concurrency=1
        )
    assert (report.refreshed, report.reauthorization_required) == (3, 1)
    assert saved == [3]


def test_run_for_some_accounts_sends_notices_about_those_only(ada: User) -> None:
    chosen = make_account(owner=ada, refresh_token_expires_at=soon())
    make_account(open_id="_other", owner=ada, refresh_token_expires_at=soon())
    services.refresh_due_accounts(accounts=[chosen])
    assert len(subjects()) == 1
    assert chosen.open_id in subjects()[0]


def test_run_that_has_to_stop_sends_no_notice(ada: User) -> None:
    make_rejected(owner=ada)
    stop = threading.Event()
    stop.set()
    services.refresh_due_accounts(stop=stop)
    assert subjects() == []


def test_batch_inside_a_receiver_leaves_the_notices_to_the_outer_one(
    simulator: Simulator, ada: User
) -> None:
    lost = connect(simulator, "lost", owner=ada)
    simulator.revoke_grant(lost.open_id)
    make_account(open_id="_ends", owner=ada, refresh_token_expires_at=soon())
    mails_by_then: list[int] = []

    def refresh_all(account: BusinessAccount, **kwargs: object) -> None:
        run()
        mails_by_then.append(len(mail.outbox))

    signals.reauthorization_required.connect(refresh_all)
    try:
        services.refresh_due_accounts(within=timedelta(days=2), accounts=[lost])
    finally:
        signals.reauthorization_required.disconnect(refresh_all)
    assert mails_by_then == [0]
    assert len(subjects()) == 1
    run()
    assert len(subjects()) == 2


def test_f13_inside_a_transaction_mails_wait_for_the_commit(
    simulator: Simulator, ada: User
) -> None:
    account = connect(simulator, owner=ada)
    make_rejected(open_id="_another", owner=ada)
    simulator.revoke_grant(account.open_id)
    with transaction.atomic():
        send.send_due(BusinessAccount.objects.filter(open_id="_another"))
        assert subjects() == []
    assert len(subjects()) == 1
    with transaction.atomic():
        services.refresh_due_accounts(within=timedelta(days=2), accounts=[account])
    assert len(subjects()) == 2


def test_broken_mail_server_loses_no_token_and_leaves_the_mail_due(
    simulator: Simulator, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    account = connect(simulator, owner=ada)
    lost = connect(simulator, "lost", owner=ada, access_token_expires_at=timezone.now())
    simulator.revoke_grant(lost.open_id)
    with broken_mail_server():
        report = services.refresh_due_accounts(within=timedelta(days=2))
    assert (report.refreshed, report.reauthorization_required) == (1, 1)
    account.refresh_from_db()
    assert simulator.live_tokens(account.open_id) == (account.access_token, account.refresh_token)
    assert f"The notice about {lost.open_id}" in caplog.text
    run()
    assert subjects() == [], "the notice waits, so that others go first"
    an_hour_passes()
    run()
    run()
    assert len(subjects()) == 1


def test_broken_mail_server_is_tried_for_three_accounts(ada: User) -> None:
    for number in range(5):
        make_rejected(open_id=f"_{number}", owner=ada)
    with broken_mail_server():
        run()
    assert Notice.objects.count() == 3
    run()
    assert len(subjects()) == 2
    an_hour_passes()
    run()
    assert len(set(subjects())) == 5


@pytest.mark.parametrize("error", [ValueError(), SMTPRecipientsRefused({})])
def test_refused_addresses_do_not_stop_the_other_mails(ada: User, error: Exception) -> None:
    for number in range(5):
        make_rejected(open_id=f"_{number}", owner=ada)
    refused = itertools.chain([True] * 4, itertools.repeat(False))

    def refuse() -> None:
        if next(refused):
            raise error

    with at_each_mail(refuse):
        run()
    assert (len(subjects()), Notice.objects.filter(told_at=None).count()) == (1, 4)


def test_notices_that_failed_come_after_new_ones(ada: User) -> None:
    first = make_rejected(open_id="_first", owner=ada)
    with broken_mail_server():
        run()
    make_rejected(open_id="_second", owner=ada)
    an_hour_passes()
    run()
    assert ["_second" in text for text in subjects()] == [True, False]
    assert first.open_id in subjects()[1]


def test_run_sends_notices_for_a_bounded_time(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        make_rejected(open_id=f"_{number}", owner=ada)

    def time_is_up() -> None:
        monkeypatch.setattr(send.time, "monotonic", lambda: float("inf"))  # type: ignore[attr-defined]

    with at_each_mail(time_is_up):
        send.send_due(BusinessAccount.objects.using("default"))
    monkeypatch.undo()
    assert len(subjects()) == 1


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT", "Notices that are due were not sent"),
        ("INSERT", "The notice about"),
        ("UPDATE", "The notice about"),
    ],
)
def test_f02_failure_of_the_database_loses_only_the_notice(
    simulator: Simulator, ada: User, statement: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    account = connect(simulator, owner=ada)
    with failing(statement, NOTICES):
        reject(account, simulator)
    account.refresh_from_db()
    assert account.status == "reauthorization_required"
    assert said in caplog.text
    assert ": DataError" in caplog.text
    an_hour_passes()
    run()
    assert len(subjects()) == 1


def test_f02_connection_that_is_lost_after_the_last_token_loses_only_the_notice(
    simulator: Simulator, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    make_rejected(owner=ada)
    with next_statement("SELECT", OperationalError("The server has gone away.")) as arm:

        def run_out(result: services.RefreshResult) -> None:
            arm()

        connect(simulator, owner=ada)
        report = services.refresh_due_accounts(within=timedelta(days=2), on_result=run_out)
    assert report.refreshed == 1


def test_wrong_setting_loses_only_the_notice(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    connect(simulator)
    with override_tiktok(NOTIFY="ops@example.com"):
        report = services.refresh_due_accounts(within=timedelta(days=2))
    assert report.refreshed == 1
    assert "Notices that are due were not sent: ConfigurationError" in caplog.text


def test_queue_sends_notices_too(simulator: Simulator, ada: User) -> None:
    """No chunk holds a rejected account: handing out sends the notices that failed."""
    account = connect(simulator, owner=ada, access_token_expires_at=timezone.now())
    simulator.revoke_grant(account.open_id)
    chunks: list[list[int]] = []
    chunks_module.hand_out(chunks.append)
    with broken_mail_server():
        chunks_module.refresh_chunk(chunks[0])
    an_hour_passes()
    chunks_module.hand_out(chunks.append)
    assert (len(chunks), len(subjects())) == (1, 1)
