"""Runs of ``manage.py refresh_tokens``: due accounts, exit status and output."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect

SUMMARY = (
    "refreshed={} retry_later={} reauthorization_required={} undecryptable={} skipped={} stopped={}"
)


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
    """Whether the account's row holds the tokens that TikTok accepts."""
    row = BusinessAccount.objects.get(pk=account.pk)
    return (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)
