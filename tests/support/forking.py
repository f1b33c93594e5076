"""Runs ``refresh_tokens`` in forked processes, which start at once: Django is loaded before.

``python -m tests.support.forking`` says "ready"; each line on stdin holds the arguments of a run.
It prints the process id of the run, what the run prints, and at its end "exit" and the status.
"""

from __future__ import annotations

import os
import sys

import django


def main() -> None:
    django.setup()
    # What the command would load before its first call.
    for name in ("requests", "cryptography.fernet", "django_tiktok_business.services"):
        __import__(name)
    from django.core.management import execute_from_command_line

    _say("ready")
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if not pid:
            execute_from_command_line(["django", "refresh_tokens", "--json", *line.split()])
            return
        _say(str(pid))
        _, status = os.waitpid(pid, 0)
        _say(f"exit {os.waitstatus_to_exitcode(status)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


main()
