"""Hand out valid access tokens, and refresh them when necessary."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from django.db import router

from django_tiktok_business.conf import conf
from django_tiktok_business.db.writes import commit_independently
from django_tiktok_business.exceptions import ReauthorizationRequired
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.tokens.refresh import refresh_once

ACCESS_TOKEN_LIFETIME_SECONDS = 86400  # "Accounts API - Authorization", 2026-09-02


def get_access_token(account: BusinessAccount, *, min_validity_seconds: float | None = None) -> str:
    """Return an access token that stays valid for at least ``min_validity_seconds``.

    The default is REFRESH_MARGIN_SECONDS. If the token in ``account`` is valid for that long, this
    makes no query and no call. Otherwise it refreshes the account, once across all threads and
    processes: the others wait for the result. Updates ``account`` in place.

    Raises `ReauthorizationRequired` if only the account holder can help, `RetryableError` if it may
    work later, `DecryptionError`, and ValueError for a validity that no token has.
    """
    seconds = conf.REFRESH_MARGIN_SECONDS if min_validity_seconds is None else min_validity_seconds
    if not 0 <= seconds < ACCESS_TOKEN_LIFETIME_SECONDS:
        raise ValueError(
            f"min_validity_seconds must be at least 0 and below {ACCESS_TOKEN_LIFETIME_SECONDS}, "
            "the lifetime of TikTok's access tokens."
        )
    # A token that is not valid decides nothing: another worker may have refreshed the row since.
    if account.status == BusinessAccount.Status.ACTIVE:
        expires_at = account.access_token_expires_at
        # Does what is_access_token_valid_for() does, in a third of the time: most calls end here.
        is_in_time = (
            expires_at is not None
            and expires_at.tzinfo is not None
            and expires_at.timestamp() > time.time() + seconds
        )
        token: str = account.access_token if is_in_time else ""
        if token:
            return token
    period = timedelta(seconds=seconds)

    def is_fresh_enough(row: BusinessAccount) -> bool:
        if row.status == BusinessAccount.Status.REAUTHORIZATION_REQUIRED:
            raise _needs_reauthorization(row)
        is_active = row.status == BusinessAccount.Status.ACTIVE
        return is_active and row.is_access_token_valid_for(period) and bool(row.access_token)

    # Somebody is waiting for the token, so no time is spent on recording the success.
    refresh_row(account, is_fresh_enough=is_fresh_enough, record_success=False)
    if account.status != BusinessAccount.Status.ACTIVE:  # a receiver, or another worker, changed it
        raise _needs_reauthorization(account)
    renewed: str = account.access_token
    return renewed


def refresh_account(account: BusinessAccount) -> BusinessAccount:
    """Refresh now, or wait for the refresh that another worker has started; updates ``account``.

    Also works for an account in ``reauthorization_required``: if TikTok accepts its refresh token
    after all, the account is active again. Raises the same errors as `get_access_token`.
    """
    return refresh_row(account, is_fresh_enough=lambda row: False)


def refresh_row(
    account: BusinessAccount,
    *,
    is_fresh_enough: Callable[[BusinessAccount], bool],
    record_success: bool = True,
) -> BusinessAccount:
    """Refresh the account's row unless it ``is_fresh_enough``, and bring ``account`` up to date."""
    using = database_of(account)
    row = commit_independently(
        lambda: refresh_once(
            account.pk, using, is_fresh_enough=is_fresh_enough, record_success=record_success
        ),
        using,
    )
    account.copy_credentials(row)
    return account


def _needs_reauthorization(account: BusinessAccount) -> ReauthorizationRequired:
    if account.status == BusinessAccount.Status.REVOKED:
        return ReauthorizationRequired("The account is disconnected.")
    return ReauthorizationRequired(
        account.last_error_message or "TikTok has rejected the account's tokens.",
        code=account.last_error_code,
        request_id=account.last_error_request_id,
    )


def database_of(account: BusinessAccount) -> str:
    """The database that the account is written to: a replica may still hold replaced tokens."""
    return router.db_for_write(BusinessAccount, instance=account)
