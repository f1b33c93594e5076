"""When a rejection by TikTok's refresh endpoint means that a connection is lost.

TikTok also rejects by mistake, and while another worker or a reconnect stores a new pair. So the
first rejection of a pair is only recorded; the second one, REJECTION_CONFIRM_SECONDS later, is
final.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django_tiktok_business.conf import conf
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import ReauthorizationRequired, RejectionUnconfirmedError
from django_tiktok_business.models import BusinessAccount

from .claims import TAKEN_OVER

REFRESH_TOKEN_EXPIRED = 40103


def is_final(account: BusinessAccount, rejection: ReauthorizationRequired) -> bool:
    """Whether only a new consent can help; otherwise the account is tried once more."""
    now = clock.instant()
    ends_at = account.refresh_token_expires_at
    if rejection.code == REFRESH_TOKEN_EXPIRED and ends_at is not None and ends_at <= now:
        return True
    if account.status != BusinessAccount.Status.ACTIVE:
        return True
    if account.claim_id.startswith(TAKEN_OVER):
        # The former holder of the claim may have received a new pair and be about to save it.
        return False
    confirm_after = timedelta(seconds=conf.REJECTION_CONFIRM_SECONDS)
    return (account.rejected_at or now) + confirm_after <= now


def unconfirmed(
    account: BusinessAccount, rejection: ReauthorizationRequired
) -> tuple[RejectionUnconfirmedError, dict[str, Any]]:
    """The error for a rejection that is not final, and the columns that say when to try again."""
    now = clock.instant()
    rejected_at = min(account.rejected_at or now, now)  # in the future: a clock was wrong
    confirm_at = rejected_at + timedelta(seconds=conf.REJECTION_CONFIRM_SECONDS)
    next_attempt_at = max(confirm_at, now)
    error = RejectionUnconfirmedError(
        f"TikTok rejected this connection at {rejected_at:%H:%M} UTC. We ask once more at "
        f"{next_attempt_at:%H:%M} UTC before calling it lost.",
        code=rejection.code,
        request_id=rejection.request_id,
        http_status=rejection.http_status,
    )
    return error, {"rejected_at": rejected_at, "next_attempt_at": next_attempt_at}
