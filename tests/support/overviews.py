"""What the tests of the admin's overview share: accounts to count, and reading the overview."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from tests.support.administrators import (
    html,
    make_unreadable,
    words,
)
from tests.support.factories import make_account

DAY = timedelta(days=1)

rows = BusinessAccount.objects


def make(number: int, **values: Any) -> BusinessAccount:
    return make_account(open_id=f"_000Number{number}", **values)


def one_of_each() -> None:
    now = timezone.now()
    make(1)
    make(2)
    make(3, refresh_token_expires_at=now + 12 * DAY)
    make(4, consecutive_failures=2)
    make_unreadable(make(5))
    make(6, status="reauthorization_required")
    make(7, refresh_token_expires_at=now - DAY)
    make(8, status="revoked", access_token="", refresh_token="")


def overview(response: Any) -> str:
    """The HTML of the overview, "" without one."""
    shown = re.search(r'<section class="tiktok-overview".*?</section>', html(response), re.DOTALL)
    return shown[0] if shown else ""


def tallies(response: Any) -> dict[str, str]:
    """The text of each tally, by its link."""
    found = re.findall(r'<a href="(\?[^"]*)"[^>]*><span class="tiktok-dot.*?</a>', html(response))
    links = re.findall(r'<a href="\?[^"]*"[^>]*><span class="tiktok-dot.*?</a>', html(response))
    return dict(zip(found, map(words, links), strict=True))
