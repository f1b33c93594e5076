"""When a batch tries an account again after a temporary failure."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import (
    DecryptionError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount

# How long a batch waits before it tries an account again after a temporary failure: doubled with
# each failure in a row. The longest is much shorter than REFRESH_WITHIN_SECONDS, so that several
# attempts are left.
FIRST_BACKOFF = timedelta(minutes=1)
LONGEST_BACKOFF = timedelta(hours=1)


def next_attempt(account: BusinessAccount, error: TikTokBusinessError) -> dict[str, Any]:
    """The column that says when to try again; none for a failure that involved no call."""
    if isinstance(error, DecryptionError | ReauthorizationRequired):
        return {}
    # At most ten doublings, because the count of failures has no upper limit.
    doublings = min(account.consecutive_failures, 10)
    backoff = min(FIRST_BACKOFF * 2**doublings, LONGEST_BACKOFF)
    # Jitter, so that accounts that failed together are not tried together again.
    return {"next_attempt_at": clock.instant() + backoff * random.uniform(0.5, 1)}  # noqa: S311 -- no secret
