"""Store TikTok's answer to a refresh, even when the row has changed in the meantime.

New tokens are saved by an UPDATE that names the claim. When the claim is gone but the row still
holds the pair that was sent, they are saved all the same, because they are newer. When the row
holds another pair (a reconnect, a disconnect, another worker), they are dropped.

A rejection is recorded by an UPDATE that names the claim *and* the pair that was sent, so
that it cannot hit a pair that arrived in the meantime.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from django_tiktok_business import events, signals
from django_tiktok_business.api.oauth import TokenGrant
from django_tiktok_business.db import clock
from django_tiktok_business.db.writes import (
    PASSING_ERRORS,
    after_commit,
    is_in_transaction,
    save_later,
    store_answer,
    update_row,
)
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountGoneError,
    AppCredentialsRejectedError,
    RateLimitError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.columns import NO_CLAIM

from .backoff import next_attempt
from .claims import release
from .rejections import is_final, unconfirmed
from .rows import credential_changes, failure_changes, reload, store_update

logger = logging.getLogger("tiktok_business")


def store_result(
    account: BusinessAccount, answer: TokenGrant | TikTokBusinessError, using: str
) -> TikTokBusinessError | None:
    """Store TikTok's answer for the holder of the claim, and send the signals.

    Returns None when the row holds good tokens now, these or newer ones of another worker;
    ``account`` is then up to date. Otherwise returns the error, which may differ from ``answer``
    when the row has changed.
    """
    if isinstance(answer, TokenGrant):
        scopes_before = account.granted_scopes
        try:
            is_saved = _save(account, answer, using)
        except AccountBusyError as error:
            return error
        if not is_saved:
            return _reconcile(account, using)
        kind, signal = events.Kind.REFRESHED, signals.tokens_refreshed
        if signal.has_listeners(BusinessAccount):
            reload(account, using)  # receivers see the current profile too
        events.announce(signal, account, using, kind=kind, scopes_before=scopes_before)
        return None
    if isinstance(answer, AppCredentialsRejectedError) or _was_not_sent(answer):
        release(account, using)  # says nothing about the account
        return answer
    if isinstance(answer, ReauthorizationRequired) and answer.code is not None:
        return _store_rejection(account, answer, using)
    if isinstance(answer, RateLimitError):
        # The app made too many calls, which is not a failure of this account.
        changes = failure_changes(answer)
        del changes["consecutive_failures"]
        release(account, using, **changes)
        return answer
    release(account, using, **failure_changes(answer), **next_attempt(account, answer))
    logger.info("Account %s was not refreshed: %s", account.open_id, answer)
    reload(account, using)
    events.announce(signals.refresh_failed, account, using, kind=events.Kind.FAILED, error=answer)
    return answer


def _was_not_sent(error: TikTokBusinessError) -> bool:
    """Whether our own rate limit kept the call from being made."""
    return isinstance(error, RateLimitError) and error.code is error.http_status is None


def _store_rejection(
    account: BusinessAccount, rejection: ReauthorizationRequired, using: str
) -> TikTokBusinessError | None:
    """Record a rejection of the pair that was sent: it says nothing about any other pair."""
    error: TikTokBusinessError = rejection
    lost = BusinessAccount.Status.REAUTHORIZATION_REQUIRED
    was_lost = account.status == lost
    changes: dict[str, Any] = {"status": lost}
    level, kind, signal = logging.WARNING, events.Kind.REJECTED, signals.reauthorization_required
    if not is_final(account, rejection):
        error, changes = unconfirmed(account, rejection)
        level, kind, signal = logging.INFO, events.Kind.FAILED, signals.refresh_failed
    same_pair = BusinessAccount.objects.using(using).filter(
        pk=account.pk,
        claim_id=account.claim_id,
        credentials_version=account.credentials_version,
    )
    changes = {**failure_changes(error), **changes, **NO_CLAIM}
    if not store_update(lambda: same_pair.update(**changes), using):
        return _reconcile(account, using)
    logger.log(level, "TikTok rejected the tokens of account %s: %s", account.open_id, error)
    reload(account, using)
    if was_lost:  # the signal is sent once, when the status changes
        after_commit(partial(events.record, account, kind, using, error=error), using)
    else:
        events.announce(signal, account, using, kind=kind, error=error)
    return error


def _save(account: BusinessAccount, grant: TokenGrant, using: str) -> bool:
    """Store the new pair; False when the row no longer holds the pair that was sent."""
    version = account.credentials_version
    changes = {
        **credential_changes(account, grant),
        "last_refreshed_at": clock.instant(),
        # Storing another pair ends the claim, so under our claim the version has not changed.
        "credentials_version": version + 1,
    }
    own_claim = {"id": account.pk, "claim_id": account.claim_id}
    same_pair = {"id": account.pk, "credentials_version": version}

    def save() -> int:
        released = {**changes, **NO_CLAIM}
        # The second UPDATE leaves the claim of a worker that took over in place.
        return update_row(BusinessAccount, released, where=own_claim, using=using) or update_row(
            BusinessAccount, changes, where=same_pair, using=using
        )

    try:
        saved = store_answer(save, using)
    except BaseException as error:  # Ctrl-C and the time limits of workers too
        save_later(save, using)
        if isinstance(error, PASSING_ERRORS):
            raise AccountBusyError(
                "The database did not take the new tokens; this process goes on trying."
            ) from None
        raise
    if saved and is_in_transaction(using):
        save_later(save, using)
    if saved:
        account.set_stored(**changes, **NO_CLAIM)
    return bool(saved)


def _reconcile(account: BusinessAccount, using: str) -> TikTokBusinessError | None:
    """Find out what others did to the account since our claim was lost."""
    sent_version = account.credentials_version
    if not reload(account, using):
        return AccountGoneError("The account was deleted during the refresh.")
    if account.status == BusinessAccount.Status.REVOKED:
        return ReauthorizationRequired("The account was disconnected during the refresh.")
    if account.credentials_version == sent_version:
        return AccountBusyError("Another worker has taken the account over.")
    return None
