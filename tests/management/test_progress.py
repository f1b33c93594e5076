"""The progress bar of the commands."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios

import pytest

from django_tiktok_business.management.progress import progress_bar
from tests.support.processes import ROOT, environment
from tests.support.refresh_runs import due, last_line
from tests.support.simulator import running_simulator

pytestmark = pytest.mark.django_db(transaction=True)


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
                env=environment(base_url, "tests.support.settings_process"),
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


@pytest.mark.parametrize("is_wanted", [True, False])
def test_without_a_terminal_nothing_is_drawn_or_counted(
    is_wanted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing_to_count: list[int] = []
    # Asked for the total, this would raise.
    with progress_bar(nothing_to_count.pop, unit="account", is_wanted=is_wanted) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
