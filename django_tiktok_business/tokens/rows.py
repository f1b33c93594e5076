"""Change an account's row: the columns that an answer of TikTok changes, and how they are written.

`storage`, `connect` and `disconnect` decide what an answer means; this module knows the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import F
from django.utils import timezone

from django_tiktok_business.api.oauth import TokenGrant
from django_tiktok_business.db.vendors import lock_timeout
from django_tiktok_business.db.writes import retry_while_unavailable, store_answer
from django_tiktok_business.exceptions import APIError, TikTokBusinessError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.columns import NO_FAILURE


def credential_changes(account: BusinessAccount, grant: TokenGrant) -> dict[str, Any]:
    """The columns that a grant changes, as arguments for ``update()``.

    A field that TikTok left out is not among them, so it does not overwrite the stored value. The
    access token's expiry always is: the old one says nothing about the new token.
    """
    changes: dict[str, Any] = {
        "access_token": account.encrypt("access_token", grant.access_token),
        "access_token_expires_at": grant.access_token_expires_at,
        "status": BusinessAccount.Status.ACTIVE,
        "credentials_version": F("credentials_version") + 1,
        "updated_at": timezone.now(),
        **NO_FAILURE,
    }
    if grant.refresh_token is not None:
        changes["refresh_token"] = account.encrypt("refresh_token", grant.refresh_token)
    if grant.refresh_token_expires_at is not None:
        changes["refresh_token_expires_at"] = grant.refresh_token_expires_at
    if grant.scopes is not None:
        changes["scopes"] = grant.scopes
    return changes


def failure_changes(error: TikTokBusinessError) -> dict[str, Any]:
    """The columns that a failure changes, as arguments for ``update()``."""
    now = timezone.now()
    api_error = error if isinstance(error, APIError) else APIError(str(error))
    return {
        "last_error_at": now,
        "last_error_code": api_error.code,
        "last_error_message": api_error.message,
        "last_error_request_id": api_error.request_id,
        "consecutive_failures": F("consecutive_failures") + 1,
        "updated_at": now,
    }


def store_update(update: Callable[[], int], using: str) -> int:
    """Run an UPDATE through a database outage, without waiting long for a locked row."""

    def write() -> int:
        with lock_timeout(using):  # the answers for other accounts wait for this statement
            return update()

    return store_answer(write, using)


def reload(account: BusinessAccount, using: str) -> bool:
    """Bring the instance up to date; False when the row has been deleted."""
    try:
        retry_while_unavailable(lambda: account.refresh_from_db(using=using), using)
    except BusinessAccount.DoesNotExist:
        return False
    return True
