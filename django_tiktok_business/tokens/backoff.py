"""When a batch tries an account again after a temporary failure."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import DecryptionError, ReauthorizationRequired

if TYPE_CHECKING:
    from django_tiktok_business.exceptions import TikTokBusinessError
    from django_tiktok_business.models import BusinessAccount


__all__ = ["next_attempt"]

# How long a batch leaves an account alone that fails for passing reasons: doubled with each failure
# in a row. The longest is short beside REFRESH_WITHIN_SECONDS, so there are several tries left.
FIRST_BACKOFF = timedelta(minutes=1)
LONGEST_BACKOFF = timedelta(hours=1)


def next_attempt(account: BusinessAccount, error: TikTokBusinessError) -> dict[str, Any]:
    """When to try again; nothing for what was found out without asking TikTok."""
    if isinstance(error, DecryptionError | ReauthorizationRequired):
        return {}
    # No more than the longest needs: a failure count may be large, 2 to its power is larger.
    doublings = min(account.consecutive_failures, 10)
    backoff = min(FIRST_BACKOFF * 2**doublings, LONGEST_BACKOFF)
    # Jitter, so that accounts that failed together are not tried together again.
    return {"next_attempt_at": clock.instant() + backoff * random.uniform(0.5, 1)}  # noqa: S311 -- no secret
