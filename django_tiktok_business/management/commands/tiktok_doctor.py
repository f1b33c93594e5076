"""``manage.py tiktok_doctor``: find out what is wrong with a set-up and how to fix it."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_tiktok_business.management import doctor

LEVELS: Final = (doctor.OK, doctor.WARNING, doctor.ERROR)  # the index is the exit status
MARKS: Final = {"ok": "✓", "warning": "!", "error": "✗"}


class Command(BaseCommand):
    help = (
        "Look for what usually goes wrong: settings, keys, redirect URI, cache, network, clock, "
        "the app's credentials, accounts. Changes nothing. Exit status: 0 all is well, 1 there "
        "are warnings, 2 there are errors."
    )
    requires_system_checks = ()  # the doctor runs them and reports their messages in order

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--account",
            action="append",
            dest="open_ids",
            default=[],
            type=_open_id,
            metavar="OPEN_ID",
            help="Also ask TikTok about this account and compare its scopes; repeatable.",
        )
        parser.add_argument(
            "--json", action="store_true", help="Print one JSON object instead of lines."
        )

    def handle(self, **options: Any) -> None:
        findings = []
        for finding in doctor.diagnose(options["open_ids"]):
            findings.append(finding)
            if not options["json"]:
                self._print(finding)
        status = max(LEVELS.index(finding.level) for finding in findings)
        if options["json"]:
            answer = {"status": status, "findings": [asdict(finding) for finding in findings]}
            self.stdout.write(json.dumps(answer))
        if status:
            raise CommandError(f"The doctor has found {LEVELS[status]}s.", returncode=status)

    def _print(self, finding: doctor.Finding) -> None:
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        mark = MARKS[finding.level]
        lines = [f"{mark if _can_show(mark, encoding) else finding.level} {finding.message}"]
        if finding.hint:
            lines.append(f"    {finding.hint}")
        for line in lines:
            self.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding))


def _can_show(mark: str, encoding: str) -> bool:
    try:
        mark.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _open_id(text: str) -> str:
    if not text.isprintable():  # such as bytes that are not text, which databases refuse
        raise ArgumentTypeError("an open id is printable text")
    return text
