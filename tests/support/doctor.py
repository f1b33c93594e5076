"""Runs of ``manage.py tiktok_doctor``: exit status and findings."""

from __future__ import annotations

from io import StringIO

from django.core.management import CommandError, call_command

HOSTS = ("www.tiktok.com", "business-api.tiktok.com")
WELL = [
    "✓ TIKTOK_BUSINESS is complete and well-formed.",
    "✓ REDIRECT_URI leads to the callback, /tiktok/callback/.",
    "✓ Cache 'default' lets one process at a time take a turn.",
    *(f"✓ {host} can be reached." for host in HOSTS),
    "✓ TikTok accepts APP_ID and APP_SECRET.",
    "✓ Accounts: 1 active, 0 reauthorization_required, 0 revoked.",
]


def examine(*arguments: str) -> tuple[int, list[str]]:
    """The exit status and the lines that the command prints."""
    stdout = StringIO()
    status = 0
    try:
        call_command("tiktok_doctor", *arguments, stdout=stdout)
    except CommandError as error:
        status = error.returncode
    return status, stdout.getvalue().splitlines()


def troubles(*arguments: str) -> tuple[int, list[str]]:
    """The exit status and the lines about what is not well."""
    status, lines = examine(*arguments)
    return status, [line for line in lines if not line.startswith("✓")]
