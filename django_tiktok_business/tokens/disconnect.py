"""End a connection: revoke at TikTok, then erase the tokens."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Any

from django.db.models import F
from django.utils import timezone

from django_tiktok_business import events, signals
from django_tiktok_business.api.factory import client_from_settings
from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.conf import conf
from django_tiktok_business.db.vendors import lock_errors_as_busy
from django_tiktok_business.db.writes import store_answer
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountGoneError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.columns import NO_CLAIM, NO_FAILURE

from .rows import failure_changes, reload

logger = logging.getLogger("tiktok_business")


def disconnect(account: BusinessAccount, using: str) -> TikTokBusinessError | None:
    """Revoke the grant at TikTok and erase the tokens, also when TikTok does not confirm.

    Returns why TikTok did not confirm, or None. Updates ``account`` and announces the disconnect.
    Raises `AccountGoneError`, and `AccountBusyError` when the row is locked or the account is
    connected again in the meantime.
    """
    rows = BusinessAccount.objects.using(using)
    row = rows.filter(pk=account.pk).first()
    if row is None:
        raise AccountGoneError("The account is deleted already.")
    same_grant = rows.filter(pk=row.pk, connected_at=row.connected_at)
    with lock_errors_as_busy(using):  # find a locked row before TikTok revokes the grant
        same_grant.update(updated_at=timezone.now())
    error = _revoke(row)
    changes = _changes(error)
    if not store_answer(lambda: same_grant.update(**changes), using):
        raise AccountBusyError("The account has just been connected again.")
    reload(row, using)
    account.copy_credentials(row)
    logger.info("Account %s is disconnected.", account.open_id)
    events.announce(
        signals.account_disconnected, account, using, kind=events.Kind.DISCONNECTED, error=error
    )
    return error


def _revoke(row: BusinessAccount) -> TikTokBusinessError | None:
    """Revoke the grant at TikTok; return why TikTok did not confirm it, or None."""
    # First, so that a wrong setting raises before anything is erased, whichever account it is.
    with closing(client_from_settings()) as client:
        if row.app_id != conf.APP_ID:
            return ReauthorizationRequired(
                f"The account was connected to app {row.app_id}, not to the configured app."
            )
        try:
            if row.access_token:
                OAuth(client).revoke(row.access_token)
        except TikTokBusinessError as error:
            logger.warning("TikTok did not confirm the disconnect of %s: %s", row.open_id, error)
            return error
    return None


def _changes(error: TikTokBusinessError | None) -> dict[str, Any]:
    """The columns that a disconnect changes; a refresh in flight then drops its answer."""
    return {
        **NO_FAILURE,
        **(failure_changes(error) if error is not None else {}),
        "access_token": "",
        "refresh_token": "",
        "access_token_expires_at": None,
        "refresh_token_expires_at": None,
        "status": BusinessAccount.Status.REVOKED,
        **NO_CLAIM,
        "consecutive_failures": 0,
        "credentials_version": F("credentials_version") + 1,
        "updated_at": timezone.now(),
    }
