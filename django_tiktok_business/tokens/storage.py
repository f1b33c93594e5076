"""Store what TikTok answered to a refresh, whatever else happens to the row.

A pair is saved by an UPDATE that names the claim. When the claim is gone but the row holds the very
pair that was sent, the answer is saved all the same: it is newer. When somebody stored another pair
meanwhile (reconnect, disconnect, another worker), the answer is dropped.

A rejection changes the account's status by an UPDATE that names the claim *and* the pair that was
sent, so it cannot hit a pair that arrived meanwhile.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.db.models import F
from django.utils import timezone

from django_tiktok_business import events, signals
from django_tiktok_business.api.oauth import TokenGrant
from django_tiktok_business.db import clock
from django_tiktok_business.db.writes import (
    PASSING_ERRORS,
    is_in_transaction,
    save_later,
    store_answer,
    update_row,
)
from django_tiktok_business.events import announce
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountGoneError,
    APIError,
    AppCredentialsRejectedError,
    RateLimitError,
    ReauthorizationRequired,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.columns import NO_CLAIM, NO_FAILURE

from .backoff import next_attempt
from .claims import TAKEN_OVER, release, reload, store_update

if TYPE_CHECKING:
    from django_tiktok_business.exceptions import TikTokBusinessError
    from django_tiktok_business.models import BusinessAccountQuerySet


__all__ = ["credential_changes", "failure_changes", "mark_rejected", "store_result"]

logger = logging.getLogger("tiktok_business")


def store_result(
    account: BusinessAccount, answer: TokenGrant | TikTokBusinessError, using: str
) -> TikTokBusinessError | None:
    """Write down what TikTok answered to the holder of the claim, and send the signals.

    Returns None when the row holds good tokens now, its own or somebody else's newer ones;
    ``account`` is then up to date. Otherwise the error, as it stands after a look at the row.
    """
    if isinstance(answer, TokenGrant):
        scopes_before = account.granted_scopes
        try:
            is_saved = _save(account, answer, using)
        except AccountBusyError as error:
            return error
        if not is_saved:
            return _reconcile(account, using)
        if signals.tokens_refreshed.has_listeners(BusinessAccount):
            reload(account, using)  # for them, the profile as well
        kind = events.Kind.REFRESHED
        announce(signals.tokens_refreshed, account, using, kind=kind, scopes_before=scopes_before)
        return None
    if isinstance(answer, AppCredentialsRejectedError) or _was_not_sent(answer):
        release(account, using)  # says nothing about the account
        return answer
    if isinstance(answer, ReauthorizationRequired) and answer.code is not None:
        if not account.claim_id.startswith(TAKEN_OVER):
            same_pair = BusinessAccount.objects.using(using).filter(
                pk=account.pk,
                claim_id=account.claim_id,
                credentials_version=account.credentials_version,
            )
            changes = {**failure_changes(answer), **NO_CLAIM}
            verdict = _record_rejection(account, answer, same_pair, changes, using)
            return verdict or _reconcile(account, using)
        # The worker that had the claim may have been given a new pair and be about to save it.
        answer = AccountBusyError(
            f"{answer} This is no verdict before it happens again: another worker, which has not "
            "reported back, may hold newer tokens."
        )
    if isinstance(answer, RateLimitError):
        # There were too many calls; to this account nothing has happened.
        changes = failure_changes(answer)
        del changes["consecutive_failures"]
        release(account, using, **changes)
        return answer
    release(account, using, **failure_changes(answer), **next_attempt(account, answer))
    logger.info("Account %s was not refreshed: %s", account.open_id, answer)
    reload(account, using)
    announce(signals.refresh_failed, account, using, kind=events.Kind.FAILED, error=answer)
    return answer


def _was_not_sent(error: TikTokBusinessError) -> bool:
    """Whether the shared ceiling left no call to make."""
    return isinstance(error, RateLimitError) and error.code is error.http_status is None


def mark_rejected(account: BusinessAccount, error: APIError, using: str) -> TikTokBusinessError:
    """TikTok does not accept even a fresh access token: only a new consent can help.

    Marks the account, unless its row holds another pair by now, or is claimed: then TikTok may have
    issued one that is not saved yet. Returns what to raise.
    """
    verdict = ReauthorizationRequired(
        error.message, code=error.code, request_id=error.request_id, http_status=error.http_status
    )
    same_pair = BusinessAccount.objects.using(using).filter(
        pk=account.pk,
        status=BusinessAccount.Status.ACTIVE,
        credentials_version=account.credentials_version,
        claim_id="",
    )
    marked = _record_rejection(account, verdict, same_pair, failure_changes(verdict), using)
    if marked is None and reload(account, using) and account.claim_id:
        return AccountBusyError("The tokens are being renewed; the call can be repeated.")
    return marked or error


def _record_rejection(
    account: BusinessAccount,
    verdict: ReauthorizationRequired,
    same_pair: BusinessAccountQuerySet,
    changes: dict[str, Any],
    using: str,
) -> ReauthorizationRequired | None:
    """Record a verdict on the pair that ``same_pair`` selects; None when it selects no row."""
    status = BusinessAccount.Status.REAUTHORIZATION_REQUIRED
    if not store_update(lambda: same_pair.update(status=status, **changes), using):
        return None
    logger.warning("TikTok rejected the tokens of account %s: %s", account.open_id, verdict)
    reload(account, using)
    kind = events.Kind.REJECTED
    announce(signals.reauthorization_required, account, using, kind=kind, error=verdict)
    return verdict


def credential_changes(account: BusinessAccount, grant: TokenGrant) -> dict[str, Any]:
    """The columns that a token answer changes, as arguments for ``update()``.

    What TikTok left out is not in it, so it never overwrites what is stored. Only the access
    token's expiry always is: the old one says nothing about the new token.
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


def _save(account: BusinessAccount, grant: TokenGrant, using: str) -> bool:
    """Store the new pair; False when the row holds another pair than the one that was sent."""
    version = account.credentials_version
    changes = {
        **credential_changes(account, grant),
        "last_refreshed_at": clock.instant(),
        # Whoever stores another pair takes the claim away, so under ours it is still this one.
        "credentials_version": version + 1,
    }
    own_claim = {"id": account.pk, "claim_id": account.claim_id}
    same_pair = {"id": account.pk, "credentials_version": version}

    def save() -> int:
        released = {**changes, **NO_CLAIM}
        # A claim that another worker took over is left to it.
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


def failure_changes(error: TikTokBusinessError) -> dict[str, Any]:
    now = timezone.now()
    answer = error if isinstance(error, APIError) else APIError(str(error))
    return {
        "last_error_at": now,
        "last_error_code": answer.code,
        "last_error_message": answer.message,
        "last_error_request_id": answer.request_id,
        "consecutive_failures": F("consecutive_failures") + 1,
        "updated_at": now,
    }


def _reconcile(account: BusinessAccount, using: str) -> TikTokBusinessError | None:
    """The claim is lost: see what the one who has it, or had it, made of the account."""
    sent_version = account.credentials_version
    if not reload(account, using):
        return AccountGoneError("The account was deleted during the refresh.")
    if account.status == BusinessAccount.Status.REVOKED:
        return ReauthorizationRequired("The account was disconnected during the refresh.")
    if account.credentials_version == sent_version:
        return AccountBusyError("Another worker has taken the account over.")
    return None
