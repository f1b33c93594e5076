"""``manage.py refresh_tokens``: signals, threads and ``--every``."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.processes import ROOT, environment
from tests.support.refresh_runs import SUMMARY, due, is_live, run
from tests.support.simulator import running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
PROFILE = "/business/get/"

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_profiles_stop_when_the_next_round_of_every_is_due(simulator: Simulator) -> None:
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


def test_second_signal_takes_its_usual_effect(simulator: Simulator) -> None:
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


# As a process, as cron and systemd start it


def test_sigterm_finishes_and_stores_open_calls_and_exits_0() -> None:
    with (
        running_simulator(strict=True, latency_seconds=0.5) as simulator,
        simulator.serve() as base_url,
    ):
        accounts = [due(simulator, number) for number in range(1, 30)]
        process = subprocess.Popen(
            [sys.executable, "-m", "django", "refresh_tokens", "--every=1h", "--concurrency=2"],
            env=environment(base_url, "tests.support.settings_process"),
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


def test_signal_that_interrupts_the_wait_for_it_does_not_hang_the_run() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SIGNAL_AT_THE_WORST_MOMENT],
        env=environment("http://127.0.0.1:9", "tests.support.settings_process"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (result.stdout, result.stderr) == ("True\n", "")
