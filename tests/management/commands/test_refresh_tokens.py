"""``manage.py refresh_tokens``: what it refreshes, prints and exits with."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, connection
from django.utils import timezone

from django_tiktok_business.api import rate_limit
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import claims
from tests.support.factories import connect
from tests.support.refresh_runs import SUMMARY, due, is_live, last_line, run
from tests.support.simulator import (
    forget_limits,
    meanwhile,
    next_statement,
    override_tiktok,
)

REFRESH = "/tt_user/oauth2/refresh_token/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_nothing_due_is_success(simulator: Simulator) -> None:
    connect(simulator)
    assert run() == (0, SUMMARY.format(0, 0, 0, 0, 0, "no") + "\n")
    assert simulator.calls == []


def test_due_accounts_are_refreshed_and_counted(simulator: Simulator) -> None:
    accounts = [due(simulator, number) for number in range(1, 8)]
    assert run() == (0, SUMMARY.format(7, 0, 0, 0, 0, "no") + "\n")
    assert all(is_live(simulator, account) for account in accounts)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()


def test_f14_one_bad_account_does_not_stop_the_others(simulator: Simulator) -> None:
    broken = due(simulator, 1)
    BusinessAccount.objects.filter(pk=broken.pk).update(open_id="_moved")  # cannot be decrypted
    rejected, failing = due(simulator, 2), due(simulator, 3)
    good = [due(simulator, number) for number in (4, 5)]
    simulator.revoke_grant(rejected.open_id)
    BusinessAccount.objects.filter(pk=failing.pk).update(refresh_token="")

    status, output = run()

    assert status == 1
    assert last_line(output) == SUMMARY.format(2, 0, 2, 1, 0, "no")
    assert all(is_live(simulator, account) for account in good)
    lines = output.splitlines()
    assert len(lines) == 4
    assert any(line.startswith("undecryptable _moved: ") for line in lines)
    rejection = next(line for line in lines if rejected.open_id in line)
    assert re.fullmatch(
        rf"reauthorization_required {rejected.open_id}: .+ \(code 40107, request id \w+\)",
        rejection,
    )
    assert BusinessAccount.objects.get(pk=rejected.pk).status == Status.REAUTHORIZATION_REQUIRED


def test_f22_unreadable_account_changes_nothing_and_is_reported(simulator: Simulator) -> None:
    account = due(simulator, 1)
    raw = BusinessAccount.objects.values().get(pk=account.pk)
    with override_tiktok(ENCRYPTION_KEYS=["another key, long enough to pass 0123456789"]):
        status, output = run()
    assert (status, last_line(output)) == (1, SUMMARY.format(0, 0, 0, 1, 0, "no"))
    after = BusinessAccount.objects.values().get(pk=account.pk)
    assert after["refresh_token"] == raw["refresh_token"]
    assert after["status"] == Status.ACTIVE


def test_json_output_is_one_object_with_the_documented_keys(simulator: Simulator) -> None:
    rejected = due(simulator, 1)
    due(simulator, 2)
    simulator.revoke_grant(rejected.open_id)
    status, output = run("--json")
    answer = json.loads(output)
    assert status == 1
    assert answer.pop("duration_seconds") >= 0
    (failure,) = answer.pop("failures")
    assert answer == {
        "refreshed": 1,
        "retry_later": 0,
        "reauthorization_required": 1,
        "undecryptable": 0,
        "skipped": 0,
        "stopped": None,
    }
    request_id, message = failure.pop("request_id"), failure.pop("message")
    assert failure == {
        "open_id": rejected.open_id,
        "outcome": "reauthorization_required",
        "code": 40107,
    }
    assert request_id
    assert message


def test_f16_accounts_that_another_worker_holds_are_skipped(simulator: Simulator) -> None:
    held, free = due(simulator, 1), due(simulator, 2)
    assert claims.claim([held.pk], "default") != []
    assert run() == (0, SUMMARY.format(1, 0, 0, 0, 1, "no") + "\n")
    assert is_live(simulator, free)


def test_f16_account_that_another_worker_has_refreshed_meanwhile_is_skipped(
    simulator: Simulator,
) -> None:
    first, second = due(simulator, 1), due(simulator, 2)
    meanwhile(
        lambda: BusinessAccount.objects.filter(pk=second.pk).update(
            access_token_expires_at=timezone.now() + timedelta(hours=23)
        )
    )
    status, output = run("--concurrency", "1")
    assert (status, last_line(output)) == (0, SUMMARY.format(1, 0, 0, 0, 1, "no"))
    assert is_live(simulator, first)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()
    assert simulator.count(REFRESH) == 1


def test_revoked_and_rejected_accounts_and_other_apps_are_left_alone(
    simulator: Simulator,
) -> None:
    due(simulator, 1, status=Status.REVOKED)
    due(simulator, 2, status=Status.REAUTHORIZATION_REQUIRED)
    due(simulator, 3, app_id="42")
    assert run("--all") == (0, SUMMARY.format(0, 0, 0, 0, 0, "no") + "\n")
    assert simulator.calls == []


# Runs that fail or stop early


def test_wrong_setting_is_one_clear_line(simulator: Simulator) -> None:
    with (
        override_tiktok(REFRESH_WITHIN_SECONDS="soon"),
        pytest.raises(CommandError, match="REFRESH_WITHIN_SECONDS") as caught,
    ):
        call_command("refresh_tokens")
    assert caught.value.returncode == 1


def test_lost_connection_is_one_clear_line(simulator: Simulator) -> None:
    due(simulator, 1)
    lost = InterfaceError("connection already closed")  # no DatabaseError
    with next_statement("UPDATE", lost) as lose:
        lose()
        with pytest.raises(CommandError, match=r"The database failed \(InterfaceError\)"):
            call_command("refresh_tokens")


def test_failing_database_is_one_clear_line_and_loses_nothing(simulator: Simulator) -> None:
    account, second = due(simulator, 1), due(simulator, 2)
    table = connection.ops.quote_name(BusinessAccount._meta.db_table)

    def rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename(table, "moved_away")
    try:
        with pytest.raises(CommandError, match="The database failed") as caught:
            call_command("refresh_tokens")
    finally:
        rename("moved_away", table)
    assert caught.value.returncode == 2
    assert is_live(simulator, account)
    assert is_live(simulator, second)


def test_f53_run_that_stays_rate_limited_exits_2(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "FIVE_MINUTES", 0.1)
    accounts = [due(simulator, number) for number in range(1, 4)]
    simulator.fail_next("rate_limited", path=REFRESH, times=None)
    status, output = run("--concurrency", "1")
    assert (status, last_line(output)) == (2, SUMMARY.format(0, 1, 0, 0, 0, "rate_limited"))
    assert simulator.count(REFRESH) == 4
    simulator.clear_faults()
    forget_limits()
    assert run() == (0, SUMMARY.format(3, 0, 0, 0, 0, "no") + "\n")
    assert all(is_live(simulator, account) for account in accounts)


def test_accounts_that_back_off_are_reported_and_exit_1(
    simulator: Simulator,
) -> None:
    waiting, other = due(simulator, 1), due(simulator, 2)
    simulator.fail_next("code", code=50000, path=REFRESH)
    assert run("--concurrency", "1")[0] == 1
    assert is_live(simulator, other)

    status, output = run()
    expected = (
        "1 due accounts kept failing and wait for their next attempt (--all tries them now)\n"
        f"{SUMMARY.format(0, 0, 0, 0, 0, 'no')}\n"
    )
    assert (status, output) == (1, expected)
    assert run(verbosity=0) == (1, SUMMARY.format(0, 0, 0, 0, 0, "no") + "\n")
    assert run("--dry-run") == (1, expected)
    for arguments in (["--json"], ["--json", "--dry-run"]):
        status, output = run(*arguments)
        assert (status, json.loads(output)["backing_off"]) == (1, 1)
    assert simulator.count(REFRESH) == 2

    assert run("--account", waiting.open_id)[0] == 0
    assert is_live(simulator, waiting)
    assert "backing_off" not in json.loads(run("--json")[1])


def test_f09_refused_credentials_stop_the_run_and_touch_no_account(simulator: Simulator) -> None:
    for number in range(1, 20):
        due(simulator, number)
    before = list(BusinessAccount.objects.order_by("pk").values())
    with override_tiktok(APP_SECRET="wrong"):
        status, output = run()
    assert status == 2
    assert last_line(output).startswith("refreshed=0 ")
    assert last_line(output).endswith(" stopped=app_credentials_rejected")
    assert simulator.count(REFRESH) <= 4, "only what was in flight is finished"
    assert list(BusinessAccount.objects.order_by("pk").values()) == before


@pytest.mark.parametrize("fault", ["connection_refused", "timeout_before"])
def test_f53_run_stops_when_tiktok_is_down(simulator: Simulator, fault: str) -> None:
    accounts = [due(simulator, number) for number in range(1, 30)]
    simulator.fail_next(fault, times=None)
    status, output = run()
    assert status == 2
    assert last_line(output).endswith("stopped=tiktok_unavailable")
    assert simulator.count(REFRESH) <= 8
    simulator.clear_faults()
    assert run()[0] == 0
    assert all(is_live(simulator, account) for account in accounts)


def test_failures_that_are_not_consecutive_are_no_outage(simulator: Simulator) -> None:
    for number in range(1, 13):
        due(simulator, number)
    simulator.fail_next("code", code=50000, path=REFRESH, times=4)
    status, output = run("--concurrency", "1")
    assert (status, last_line(output)) == (1, SUMMARY.format(8, 4, 0, 0, 0, "no"))
