"""``manage.py refresh_tokens``: each option."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect
from tests.support.refresh_runs import SUMMARY, due, is_live, last_line, run
from tests.support.simulator import override_tiktok

REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("within", "refreshed"),
    [("30m", 1), ("2h", 2), ("7200", 2), ("90s", 0), ("1d", 2), ("2d", 3), ("999999999d", 3)],
)
def test_within_accepts_units(simulator: Simulator, within: str, refreshed: int) -> None:
    due(simulator, 10)
    due(simulator, 100)
    connect(simulator, "fresh", access_token_expires_at=timezone.now() + timedelta(hours=30))
    assert last_line(run("--within", within)[1]) == SUMMARY.format(refreshed, 0, 0, 0, 0, "no")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--within", "soon"),
        ("--within", "0"),
        ("--within", "-5m"),
        ("--within", "1.5h"),
        ("--every", "0s"),
        ("--limit", "0"),
        ("--limit", "many"),
        ("--concurrency", "-1"),
        ("--rate-limit", "-1"),
        ("--rate-limit", "fast"),
    ],
)
def test_invalid_values_are_refused_with_a_reason(
    simulator: Simulator, option: str, value: str
) -> None:
    with pytest.raises(CommandError, match=f"argument {option}: .*{value}"):
        call_command("refresh_tokens", f"{option}={value}")


def test_all_and_within_exclude_each_other(simulator: Simulator) -> None:
    with pytest.raises(CommandError, match="not allowed with"):
        call_command("refresh_tokens", "--all", "--within=1h")


def test_all_refreshes_accounts_that_are_not_due(simulator: Simulator) -> None:
    account = connect(simulator)
    assert run("--all")[0] == 0
    assert simulator.count(REFRESH) == 1
    assert is_live(simulator, account)


def test_all_ignores_back_off(simulator: Simulator) -> None:
    account = due(simulator, 1)
    later = timezone.now() + timedelta(hours=1)
    BusinessAccount.objects.filter(pk=account.pk).update(next_attempt_at=later)
    assert run()[0] == 1
    would_refresh = f"would refresh {account.open_id}"
    assert would_refresh not in run("--dry-run")[1]
    assert would_refresh in run("--all", "--dry-run")[1]
    assert run("--all") == (0, SUMMARY.format(1, 0, 0, 0, 0, "no") + "\n")
    assert is_live(simulator, account)


def test_named_accounts_are_refreshed_due_or_not(simulator: Simulator) -> None:
    first, second = connect(simulator, "one"), connect(simulator, "two")
    other = due(simulator, 1)
    status, output = run("--account", first.open_id, "--account", second.open_id)
    assert (status, last_line(output)) == (0, SUMMARY.format(2, 0, 0, 0, 0, "no"))
    assert BusinessAccount.objects.get(pk=other.pk).last_refreshed_at is None
    assert run("--account", first.open_id, "--within", "1h")[1].startswith("refreshed=0")


def test_unknown_account_is_named_and_nothing_is_tried(simulator: Simulator) -> None:
    account = due(simulator, 1)
    with pytest.raises(CommandError, match="Not connected to the configured app: _nobody"):
        call_command("refresh_tokens", "--account", "_nobody", "--account", account.open_id)
    assert simulator.calls == []


def test_named_account_that_has_to_be_reconnected_is_reported(simulator: Simulator) -> None:
    rejected = due(simulator, 1, status=Status.REAUTHORIZATION_REQUIRED)
    good = due(simulator, 2)
    stderr = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(
            "refresh_tokens",
            open_ids=[rejected.open_id, good.open_id],
            stderr=stderr,
            stdout=StringIO(),
        )
    assert caught.value.returncode == 1
    assert f"{rejected.open_id} is reauthorization_required" in stderr.getvalue()
    assert is_live(simulator, good)


def test_limit_takes_the_most_urgent_accounts(simulator: Simulator) -> None:
    later, unknown, sooner = (
        due(simulator, 20),
        due(simulator, 30, access_token_expires_at=None),
        due(simulator, 10),
    )
    assert run("--limit", "2")[1].startswith("refreshed=2 ")
    refreshed = BusinessAccount.objects.filter(last_refreshed_at__isnull=False)
    assert set(refreshed) == {unknown, sooner}
    assert later not in refreshed


def test_dry_run_lists_and_changes_nothing(simulator: Simulator) -> None:
    account = due(simulator, 1)
    before = BusinessAccount.objects.values().get()
    expected = f"would refresh {account.open_id}\n{SUMMARY.format(0, 0, 0, 0, 0, 'no')}\n"
    assert run("--dry-run") == (0, expected)
    assert run("--dry-run", verbosity=0)[1] == SUMMARY.format(0, 0, 0, 0, 0, "no") + "\n"
    assert json.loads(run("--dry-run", "--json")[1])["would_refresh"] == [account.open_id]
    assert simulator.calls == []
    assert BusinessAccount.objects.values().get() == before


def test_rate_limit_paces_the_calls(simulator: Simulator) -> None:
    for number in range(1, 7):
        due(simulator, number)
    started = time.monotonic()
    assert run("--rate-limit", "600")[0] == 0
    assert time.monotonic() - started >= 0.4


def test_rate_limit_of_zero_is_no_limit(simulator: Simulator) -> None:
    for number in range(1, 4):
        due(simulator, number)
    with override_tiktok(REQUESTS_PER_MINUTE=1):
        started = time.monotonic()
        assert run("--rate-limit", "0")[0] == 0
    assert time.monotonic() - started < 10
    assert simulator.count(REFRESH) == 3


def test_sync_profiles_updates_the_refreshed_accounts(simulator: Simulator) -> None:
    account, fresh = due(simulator, 1), connect(simulator, "fresh")
    assert run("--sync-profiles")[0] == 0
    assert BusinessAccount.objects.get(pk=account.pk).profile_synced_at is not None
    assert BusinessAccount.objects.get(pk=fresh.pk).profile_synced_at is None
    assert simulator.count(PROFILE) == 1


def test_open_id_that_is_not_printable_is_refused() -> None:
    with pytest.raises(CommandError, match="is not an open id"):
        call_command("refresh_tokens", "--account", "\udcff")
