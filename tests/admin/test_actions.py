"""The bulk actions of the account list."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client, override_settings
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.admin.actions import ACCOUNTS_PER_ACTION
from django_tiktok_business.models import BusinessAccount, Health
from django_tiktok_business.services import bulk
from django_tiktok_business.simulator import Simulator
from tests.support.administrators import (
    LIST,
    connect_many,
    html,
    make_unreadable,
    messages_in,
    select,
    stored_ciphertexts,
)
from tests.support.factories import connect, make_account
from tests.support.simulator import override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
REVOKE = "/tt_user/oauth2/revoke/"


def names(*accounts: BusinessAccount) -> list[str]:
    return [str(account) for account in accounts]


def test_refresh_selected_counts_every_outcome(root: Client, simulator: Simulator) -> None:
    good, better, unreadable, rejected, claimed, revoked = connect_many(simulator, 6)
    other = make_account(app_id="7000000000000000002")
    make_unreadable(unreadable)
    simulator.revoke_grant(rejected.open_id)
    in_an_hour = timezone.now() + timedelta(hours=1)
    rows = BusinessAccount.objects
    rows.filter(pk=claimed.pk).update(claim_id="x", claim_expires_at=in_an_hour)
    rows.filter(pk=revoked.pk).update(status="revoked")
    page = select(
        root,
        "refresh_selected",
        [good, better, unreadable, rejected, claimed, revoked, other],
        index=0,
    )
    *counts, first, second = messages_in(page)
    assert counts == [
        ("success", "2 accounts are refreshed."),
        ("error", "1 account has to be connected again."),
        ("error", "The tokens of 1 account cannot be decrypted."),
        ("info", "1 account is being refreshed by somebody else."),
        (
            "warning",
            "2 accounts were not tried: only active accounts of this app are refreshed.",
        ),
    ]
    reasons = dict(text.split(": ", 1) for _, text in (first, second))
    assert set(reasons) == {unreadable.open_id, rejected.open_id}
    assert re.search(r"\(code 40107, request id \w+\)$", reasons[rejected.open_id])


def test_refresh_selected_stops_when_tiktok_is_down(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 7)
    simulator.fail_next("connection_refused", path=REFRESH, times=None)
    with override_tiktok(MAX_ATTEMPTS=1, REFRESH_CONCURRENCY=1):
        page = select(root, "refresh_selected", accounts, index=0)
    texts = [text for _, text in messages_in(page)]
    assert "Stopped early: TikTok is not available." in texts
    assert any(
        "could not be refreshed now. Nothing is lost: try again later." in text for text in texts
    )


def test_refresh_selected_stops_when_tiktok_refuses_the_app(
    root: Client, simulator: Simulator
) -> None:
    accounts = connect_many(simulator, 3)
    with override_tiktok(APP_SECRET="not-the-secret", REFRESH_CONCURRENCY=1):
        page = select(root, "refresh_selected", accounts, index=0)
    stop = "Stopped early: TikTok refuses the app's credentials. Check APP_ID and APP_SECRET."
    assert ("error", stop) in messages_in(page)
    assert {account.health for account in BusinessAccount.objects.all()} == {Health.HEALTHY}


def test_refresh_selected_names_a_wrong_setting(root: Client, simulator: Simulator) -> None:
    with override_tiktok(REFRESH_CONCURRENCY="many"):
        page = select(root, "refresh_selected", [make_account()], index=0)
    ((level, text),) = messages_in(page)
    assert level == "error"
    assert "TIKTOK_BUSINESS['REFRESH_CONCURRENCY']" in text


def test_bulk_action_ends_in_time_and_reports_what_was_not_tried(
    root: Client, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = connect_many(simulator, 3)
    monkeypatch.setattr(bulk, "LONGEST_SECONDS", 0.3)
    simulator.configure(latency_seconds=0.5)
    with override_tiktok(REFRESH_CONCURRENCY=1):
        page = select(root, "refresh_selected", accounts, index=0)
    assert messages_in(page) == [
        ("success", "1 account is refreshed."),
        ("error", "Stopped early: there was no time for more in one request."),
        ("warning", "2 more accounts were not tried. Try them again in a while."),
    ]


def test_sync_selected_counts_and_gives_reasons(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 3)
    simulator.revoke_grant(accounts[0].open_id)
    page = select(root, "sync_selected", accounts, index=0)
    success, error = messages_in(page)
    assert success == ("success", "2 profiles are up to date.")
    assert error[0] == "error"
    assert error[1].startswith(f"{accounts[0]}: the profile is not synced. ")
    assert "(code 40107, request id " in error[1]


def test_sync_selected_gives_five_reasons_and_counts_the_rest(root: Client) -> None:
    accounts = [make_account(open_id=str(number), status="revoked") for number in range(7)]
    with running_simulator():
        messages = messages_in(select(root, "sync_selected", accounts, index=0))
    assert len(messages) == 6
    assert messages[-1] == ("error", "... and 2 more.")


def test_sync_selected_stops_when_tiktok_is_down(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 7)
    simulator.fail_next("connection_refused", times=None)
    with override_tiktok(MAX_ATTEMPTS=1, REFRESH_CONCURRENCY=1):
        messages = messages_in(select(root, "sync_selected", accounts, index=0))
    assert [level for level, _ in messages] == ["error"] * 5 + ["warning"]
    assert messages[-1][1] == ("2 more accounts were not tried. Try them again in a while.")


def test_sync_selected_names_a_wrong_setting(root: Client, simulator: Simulator) -> None:
    with override_tiktok(REFRESH_CONCURRENCY="many"):
        page = select(root, "sync_selected", [make_account()], index=0)
    ((level, text),) = messages_in(page)
    assert level == "error"
    assert "TIKTOK_BUSINESS['REFRESH_CONCURRENCY']" in text


def test_disconnect_selected_asks_first(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 2)
    page = html(select(root, "disconnect_selected", accounts, index=0))
    assert all(name in page for name in names(*accounts))
    assert simulator.calls == []
    form: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', page):
        form.setdefault(name, []).append(value)
    levels = [level for level, _ in messages_in(root.post(LIST, form, follow=True))]
    assert levels == ["success"]
    assert simulator.count(REVOKE) == 2


@override_settings(USE_THOUSAND_SEPARATOR=True)
def test_disconnect_selected_finds_accounts_with_large_keys(
    root: Client, simulator: Simulator
) -> None:
    account = connect(simulator, pk=12_345)
    page = html(select(root, "disconnect_selected", [account]))
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    root.post(LIST, form)
    account.refresh_from_db()
    assert account.status == account.Status.REVOKED


def test_disconnect_selected_ends_the_grants(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 3)
    services.disconnect_account(accounts[0])
    page = select(root, "disconnect_selected", accounts, post="yes")
    assert messages_in(page) == [
        ("info", "1 account was disconnected already."),
        ("success", "2 accounts are disconnected, and TikTok has confirmed it."),
    ]
    assert stored_ciphertexts() == []
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize("action", ["disconnect_selected", "delete_selected"])
def test_ending_many_connections_stops_when_tiktok_refuses_the_app(
    root: Client, simulator: Simulator, action: str
) -> None:
    accounts = connect_many(simulator, 3)
    with override_tiktok(APP_SECRET="not-the-secret"):
        page = select(root, action, accounts, post="yes")
    levels = [level for level, _ in messages_in(page)]
    assert levels[:2] == ["warning", "warning"]
    assert "2 more accounts were not tried" in messages_in(page)[1][1]
    left = BusinessAccount.objects.exclude(status="revoked")
    assert {account.health for account in left} == {Health.HEALTHY}
    assert left.count() == 2


def test_delete_selected_revokes_first_and_reports_it(root: Client, simulator: Simulator) -> None:
    accounts = connect_many(simulator, 2)
    asked = html(select(root, "delete_selected", accounts, index=0))
    assert "TikTok is told to end this site's access to them first." in asked
    assert simulator.calls == []
    page = select(root, "delete_selected", accounts, post="yes")
    assert messages_in(page) == [
        ("success", "2 accounts are disconnected, and TikTok has confirmed it."),
        ("success", "Successfully deleted 2 TikTok Business accounts."),
    ]
    assert not BusinessAccount.objects.exists()
    assert simulator.summary()["grants"] == []


@pytest.mark.parametrize("post", [{}, {"post": "yes"}])
@pytest.mark.parametrize(
    "action", ["refresh_selected", "sync_selected", "disconnect_selected", "delete_selected"]
)
def test_bulk_action_refuses_more_than_one_request_can_do(
    root: Client, simulator: Simulator, action: str, post: dict[str, str]
) -> None:
    BusinessAccount.objects.bulk_create(
        BusinessAccount(app_id=simulator.app_id, open_id=f"_{number}")
        for number in range(ACCOUNTS_PER_ACTION + 1)
    )
    some = BusinessAccount.objects.all()[:1]
    page = select(root, action, some, index=0, select_across=1, **post)
    ((level, text),) = messages_in(page)
    assert level == "error"
    assert text == (
        "Nothing was done: select at most 200 accounts at a time, or refresh all of them "
        "with “manage.py refresh_tokens --all”."
    )
    assert simulator.calls == []
    assert BusinessAccount.objects.count() == ACCOUNTS_PER_ACTION + 1
