"""``manage.py refresh_tokens`` and the batch behind it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, connection
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.api import rate_limit
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import claims
from tests.support.factories import connect
from tests.support.simulator import (
    forget_limits,
    meanwhile,
    next_statement,
    override_tiktok,
    running_simulator,
)

ROOT = Path(__file__).resolve().parents[3]
REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"
SUMMARY = (
    "refreshed={} retry_later={} reauthorization_required={} undecryptable={} skipped={} stopped={}"
)
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    keys = {"MAX_ATTEMPTS": 1, "REQUESTS_PER_MINUTE": 0, "REFRESH_CONCURRENCY": 2}
    with running_simulator(strict=True) as simulator, override_tiktok(**keys):
        yield simulator


def due(simulator: Simulator, number: int, **overrides: Any) -> BusinessAccount:
    """An account whose token ends soon, the lower numbers first."""
    expires_at = timezone.now() + timedelta(minutes=number)
    overrides = {"access_token_expires_at": expires_at, **overrides}
    return connect(simulator, f"account_{number}", **overrides)


def run(*arguments: str, **options: Any) -> tuple[int, str]:
    """The command's exit status and what it wrote to stdout."""
    stdout = StringIO()
    try:
        call_command("refresh_tokens", *arguments, stdout=stdout, stderr=StringIO(), **options)
    except CommandError as error:
        return error.returncode, stdout.getvalue()
    return 0, stdout.getvalue()


def last_line(output: str) -> str:
    return output.splitlines()[-1]


def is_live(simulator: Simulator, account: BusinessAccount) -> bool:
    row = BusinessAccount.objects.get(pk=account.pk)
    return (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)


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


def test_failures_that_do_not_follow_each_other_are_no_outage(simulator: Simulator) -> None:
    for number in range(1, 13):
        due(simulator, number)
    simulator.fail_next("code", code=50000, path=REFRESH, times=4)
    status, output = run("--concurrency", "1")
    assert (status, last_line(output)) == (1, SUMMARY.format(8, 4, 0, 0, 0, "no"))


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


def test_revoked_and_rejected_accounts_and_other_apps_are_left_alone(
    simulator: Simulator,
) -> None:
    due(simulator, 1, status=Status.REVOKED)
    due(simulator, 2, status=Status.REAUTHORIZATION_REQUIRED)
    due(simulator, 3, app_id="42")
    assert run("--all") == (0, SUMMARY.format(0, 0, 0, 0, 0, "no") + "\n")
    assert simulator.calls == []


# Options


@pytest.mark.parametrize(
    ("within", "refreshed"),
    [("30m", 1), ("2h", 2), ("7200", 2), ("90s", 0), ("1d", 2), ("2d", 3), ("999999999d", 3)],
)
def test_within_takes_a_time(simulator: Simulator, within: str, refreshed: int) -> None:
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
def test_senseless_values_are_refused_with_a_reason(
    simulator: Simulator, option: str, value: str
) -> None:
    with pytest.raises(CommandError, match=f"argument {option}: .*{value}"):
        call_command("refresh_tokens", f"{option}={value}")


def test_all_and_within_exclude_each_other(simulator: Simulator) -> None:
    with pytest.raises(CommandError, match="not allowed with"):
        call_command("refresh_tokens", "--all", "--within=1h")


def test_all_refreshes_what_is_not_due(simulator: Simulator) -> None:
    account = connect(simulator)
    assert run("--all")[0] == 0
    assert simulator.count(REFRESH) == 1
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


def test_named_account_that_needs_its_holder_is_told(simulator: Simulator) -> None:
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


def test_limit_takes_the_most_urgent(simulator: Simulator) -> None:
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


def test_sync_profiles_updates_what_was_refreshed(simulator: Simulator) -> None:
    account, fresh = due(simulator, 1), connect(simulator, "fresh")
    assert run("--sync-profiles")[0] == 0
    assert BusinessAccount.objects.get(pk=account.pk).profile_synced_at is not None
    assert BusinessAccount.objects.get(pk=fresh.pk).profile_synced_at is None
    assert simulator.count(PROFILE) == 1


def test_wrong_setting_is_one_clear_line(simulator: Simulator) -> None:
    with (
        override_tiktok(REFRESH_WITHIN_SECONDS="soon"),
        pytest.raises(CommandError, match="REFRESH_WITHIN_SECONDS") as caught,
    ):
        call_command("refresh_tokens")
    assert caught.value.returncode == 1


def test_connection_that_is_lost_is_one_clear_line_too(simulator: Simulator) -> None:
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


def test_receiver_or_callback_that_raises_does_not_lose_what_is_in_flight(
    simulator: Simulator,
) -> None:
    accounts = [due(simulator, number) for number in range(1, 4)]

    def fail(result: services.RefreshResult) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        services.refresh_due_accounts(on_result=fail)
    assert all(is_live(simulator, account) for account in accounts)
    assert not BusinessAccount.objects.exclude(claim_id="").exists()


def test_stop_finishes_what_is_in_flight_and_leaves_the_rest(simulator: Simulator) -> None:
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


def test_stop_between_two_profiles_is_obeyed(simulator: Simulator) -> None:
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


def test_every_repeats_and_survives_a_failing_database(simulator: Simulator) -> None:
    due(simulator, 1)
    table = connection.ops.quote_name(BusinessAccount._meta.db_table)
    lines: list[str] = []

    def rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    class Watched(StringIO):
        """What happens after each line that the command writes."""

        def write(self, text: str) -> int:
            lines.append(text.strip())
            then = [
                lambda: rename(table, "moved_away"),
                lambda: rename("moved_away", table),
                lambda: signal.raise_signal(signal.SIGTERM),
            ]
            then[len(lines) - 1]()
            return len(text)

    call_command("refresh_tokens", "--every", "1s", stdout=Watched(), stderr=Watched())
    first, second, third = lines
    assert first == SUMMARY.format(1, 0, 0, 0, 0, "no")
    assert "The database failed" in second
    assert third == SUMMARY.format(0, 0, 0, 0, 0, "no")


def test_second_signal_acts_as_usual(simulator: Simulator) -> None:
    due(simulator, 1)

    class Impatient(StringIO):
        def write(self, text: str) -> int:
            while True:  # the first asks to stop, the second insists
                signal.raise_signal(signal.SIGINT)

    # As usual in a terminal, that is: a suite that a script started with "&" ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            call_command("refresh_tokens", "--every", "1h", stdout=Impatient())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_command_runs_in_a_thread_without_touching_signals(simulator: Simulator) -> None:
    account = due(simulator, 1)
    statuses: list[int] = []

    def work() -> None:
        try:
            statuses.append(run()[0])
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert statuses == [0]
    assert is_live(simulator, account)


# As a process, the way cron and systemd see it


def environment(base_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.support.settings_process",
        "TEST_PROCESS_DATABASE": json.dumps(
            {
                key: str(connection.settings_dict[key])
                for key in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
            }
        ),
        "TEST_PROCESS_API": f"{base_url}/open_api/v1.3",
        "PYTHONPATH": str(ROOT) if "TOX_WHEEL" not in os.environ else "",
    }


def test_sigterm_finishes_the_calls_in_flight_saves_them_and_exits_0() -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.5) as simulator,
        simulator.serve() as base_url,
    ):
        accounts = [due(simulator, number) for number in range(1, 30)]
        process = subprocess.Popen(
            [sys.executable, "-m", "django", "refresh_tokens", "--every=1h", "--concurrency=2"],
            env=environment(base_url),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 30
        while not simulator.count(REFRESH) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (0, "")
        assert "stopped=interrupted" in stdout
        assert 0 < simulator.count(REFRESH) < 29
        assert all(is_live(simulator, account) for account in accounts)
        assert not BusinessAccount.objects.exclude(claim_id="").exists()


SIGNAL_AT_THE_WORST_MOMENT = """
import django, signal
django.setup()
from django_tiktok_business.interrupts import stop_on_signal
with stop_on_signal() as stop:
    with stop._cond:  # as wait() does, for a moment
        signal.raise_signal(signal.SIGTERM)
    print(stop.wait(20))
"""


def test_signal_that_arrives_inside_the_wait_for_it_does_not_hang_the_run() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SIGNAL_AT_THE_WORST_MOMENT],
        env=environment("http://127.0.0.1:9"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (result.stdout, result.stderr) == ("True\n", "")


WITHOUT_TQDM = (
    "import sys; sys.modules['tqdm'] = None\n"
    "from django.core.management import execute_from_command_line\n"
    "execute_from_command_line(['django', 'refresh_tokens'])"
)


@pytest.mark.parametrize(
    ("arguments", "bar"),
    [
        (["-m", "django", "refresh_tokens", "--limit", "1"], True),
        (["-m", "django", "refresh_tokens", "--no-progress"], False),
        (["-c", WITHOUT_TQDM], False),
    ],
)
def test_progress_is_drawn_on_a_terminal_if_tqdm_is_there(arguments: list[str], bar: bool) -> None:
    with running_simulator() as simulator, simulator.serve() as base_url:
        due(simulator, 1)
        due(simulator, 2)
        terminal, end = pty.openpty()
        termios.tcsetwinsize(end, (24, 80))
        try:
            result = subprocess.run(
                [sys.executable, *arguments],
                env=environment(base_url),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=end,
                text=True,
                check=True,
                timeout=60,
            )
            os.write(end, b"$")
            drawn = ""
            while not drawn.endswith("$"):
                drawn += os.read(terminal, 65536).decode()
        finally:
            os.close(terminal)
            os.close(end)
        assert last_line(result.stdout).startswith("refreshed=")
        assert ("1/1" in drawn) is bar


# What the summary and the exit status say of a run that did not reach every account


def test_f53_run_that_is_refused_again_and_again_exits_2(
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


def test_accounts_that_wait_for_their_next_attempt_are_told_and_exit_1(
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


def test_all_tries_those_that_wait_for_their_next_attempt(simulator: Simulator) -> None:
    account = due(simulator, 1)
    later = timezone.now() + timedelta(hours=1)
    BusinessAccount.objects.filter(pk=account.pk).update(next_attempt_at=later)
    assert run()[0] == 1
    would_refresh = f"would refresh {account.open_id}"
    assert would_refresh not in run("--dry-run")[1]
    assert would_refresh in run("--all", "--dry-run")[1]
    assert run("--all") == (0, SUMMARY.format(1, 0, 0, 0, 0, "no") + "\n")
    assert is_live(simulator, account)


def test_rate_limit_of_zero_is_none(simulator: Simulator) -> None:
    for number in range(1, 4):
        due(simulator, number)
    with override_tiktok(REQUESTS_PER_MINUTE=1):
        started = time.monotonic()
        assert run("--rate-limit", "0")[0] == 0
    assert time.monotonic() - started < 10
    assert simulator.count(REFRESH) == 3


def test_profiles_end_when_the_next_round_of_every_is_due(simulator: Simulator) -> None:
    """Tokens come first: what is due again does not wait for profiles."""
    accounts = [due(simulator, number) for number in range(1, 7)]
    simulator.configure(latency_seconds=0.4)
    lines: list[str] = []

    class Watched(StringIO):
        """Lets an account be due again after the first round, and ends the second."""

        def write(self, text: str) -> int:
            lines.append(text.strip())
            if len(lines) == 1:
                asked_for.append(simulator.count(PROFILE))
                expires_at = timezone.now()
                BusinessAccount.objects.filter(pk=accounts[0].pk).update(
                    access_token_expires_at=expires_at
                )
            else:
                signal.raise_signal(signal.SIGTERM)
            return len(text)

    asked_for: list[int] = []
    call_command("refresh_tokens", "--every=2s", "--sync-profiles", stdout=Watched())
    # Two at a time, the tokens take 1.2 of the 2 seconds; the profiles would take as long.
    assert lines[0] == SUMMARY.format(6, 0, 0, 0, 0, "no")
    assert lines[1] == SUMMARY.format(1, 0, 0, 0, 0, "no")
    assert asked_for[0] < 6
    assert all(is_live(simulator, account) for account in accounts)
