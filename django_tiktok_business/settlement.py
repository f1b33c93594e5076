"""Write down what TikTok answered, whatever else happens to the row, and tell by signals.

A pair is saved by an UPDATE that names the claim. When the claim is gone but the row holds the very
pair that was sent, the answer is saved all the same: it is newer. When somebody stored another pair
meanwhile (reconnect, disconnect, another worker), the answer stands down.

A rejection changes the account's state by an UPDATE that names the claim *and* the pair that was
sent, so it cannot hit a pair that arrived meanwhile.
"""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import F
from django.utils import timezone

from . import clock, events, signals
from .answers import TokenGrant
from .durable import (
    PASSING_ERRORS,
    after_commit,
    is_in_transaction,
    patiently,
    persisted,
    save_later,
    short_lock_waits,
    update_row,
)
from .exceptions import (
    AccountBusyError,
    AccountGoneError,
    APIError,
    AppCredentialsRejectedError,
    DecryptionError,
    RateLimitError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from .models import BusinessAccount

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.dispatch import Signal

    from .models import BusinessAccountQuerySet

__all__ = [
    "NO_CLAIM",
    "TAKEN_OVER",
    "credential_changes",
    "disconnect_changes",
    "rejected",
    "release",
    "reload",
    "settle",
    "tell",
]

logger = logging.getLogger("tiktok_business")

TAKEN_OVER = "taken-over-"  # how the id of a claim begins that was somebody else's until it expired

# How long a batch leaves an account alone that fails for passing reasons: doubled with each failure
# in a row. The longest is short beside REFRESH_WITHIN_SECONDS, so there are several tries left.
FIRST_BACKOFF = timedelta(minutes=1)
LONGEST_BACKOFF = timedelta(hours=1)


def _rows(using: str) -> BusinessAccountQuerySet:
    return BusinessAccount.objects.using(using)


def settle(
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
            return _adopt(account, using)
        if signals.tokens_refreshed.has_listeners(BusinessAccount):
            reload(account, using)  # for them, the profile as well
        kind = events.Kind.REFRESHED
        tell(signals.tokens_refreshed, account, using, kind=kind, scopes_before=scopes_before)
        return None
    if isinstance(answer, AppCredentialsRejectedError) or _was_not_sent(answer):
        release(account, using)  # says nothing about the account
        return answer
    if isinstance(answer, ReauthorizationRequired) and answer.code is not None:
        if not account.claim_id.startswith(TAKEN_OVER):
            same_pair = _rows(using).filter(
                pk=account.pk,
                claim_id=account.claim_id,
                credentials_version=account.credentials_version,
            )
            changes = {**_failure(answer), **NO_CLAIM}
            verdict = _mark_rejected(account, answer, same_pair, changes, using)
            return verdict or _adopt(account, using)
        # The worker that had the claim may have been given a new pair and be about to save it.
        answer = AccountBusyError(
            f"{answer} This is no verdict before it happens again: another worker, which has not "
            "reported back, may hold newer tokens."
        )
    if isinstance(answer, RateLimitError):
        # There were too many calls; to this account nothing has happened.
        changes = _failure(answer)
        del changes["consecutive_failures"]
        release(account, using, **changes)
        return answer
    release(account, using, **_failure(answer), **_backoff(account, answer))
    logger.info("Account %s was not refreshed: %s", account.open_id, answer)
    reload(account, using)
    tell(signals.refresh_failed, account, using, kind=events.Kind.FAILED, error=answer)
    return answer


def _was_not_sent(error: TikTokBusinessError) -> bool:
    """Whether the shared ceiling left no call to make."""
    return isinstance(error, RateLimitError) and error.code is error.http_status is None


def rejected(account: BusinessAccount, error: APIError, using: str) -> TikTokBusinessError:
    """TikTok does not accept even a fresh access token: only a new consent can help.

    Marks the account, unless its row holds another pair by now, or is claimed: then TikTok may have
    issued one that is not saved yet. Returns what to raise.
    """
    verdict = ReauthorizationRequired(
        error.message, code=error.code, request_id=error.request_id, http_status=error.http_status
    )
    same_pair = _rows(using).filter(
        pk=account.pk,
        status=BusinessAccount.Status.ACTIVE,
        credentials_version=account.credentials_version,
        claim_id="",
    )
    marked = _mark_rejected(account, verdict, same_pair, _failure(verdict), using)
    if marked is None and reload(account, using) and account.claim_id:
        return AccountBusyError("The tokens are being renewed; the call can be repeated.")
    return marked or error


def _mark_rejected(
    account: BusinessAccount,
    verdict: ReauthorizationRequired,
    same_pair: BusinessAccountQuerySet,
    changes: dict[str, Any],
    using: str,
) -> ReauthorizationRequired | None:
    """Record a verdict on the pair that ``same_pair`` selects; None when it selects no row."""
    status = BusinessAccount.Status.REAUTHORIZATION_REQUIRED
    if not _persisted(lambda: same_pair.update(status=status, **changes), using):
        return None
    logger.warning("TikTok rejected the tokens of account %s: %s", account.open_id, verdict)
    reload(account, using)
    kind = events.Kind.REJECTED
    tell(signals.reauthorization_required, account, using, kind=kind, error=verdict)
    return verdict


def disconnect_changes(error: TikTokBusinessError | None) -> dict[str, Any]:
    """The columns that a disconnect changes; a refresh in flight stands down."""
    changes = _failure(error) if error is not None else _NO_FAILURE
    return {
        **changes,
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


NO_CLAIM: dict[str, Any] = {"claim_id": "", "claim_expires_at": None}
_NO_FAILURE: dict[str, Any] = {
    "consecutive_failures": 0,
    "next_attempt_at": None,
    "last_error_at": None,
    "last_error_code": None,
    "last_error_message": "",
    "last_error_request_id": "",
}


def credential_changes(account: BusinessAccount, grant: TokenGrant) -> dict[str, Any]:
    """The columns that a token answer changes, as arguments for ``update()``.

    What TikTok left out is not in it, so it never overwrites what is stored. Only the access
    token's expiry always is: the old one says nothing about the new token.
    """
    changes: dict[str, Any] = {
        "access_token": account.seal("access_token", grant.access_token),
        "access_token_expires_at": grant.access_token_expires_at,
        "status": BusinessAccount.Status.ACTIVE,
        "credentials_version": F("credentials_version") + 1,
        "updated_at": timezone.now(),
        **_NO_FAILURE,
    }
    if grant.refresh_token is not None:
        changes["refresh_token"] = account.seal("refresh_token", grant.refresh_token)
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
        saved = persisted(save, using)
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


def _persisted(update: Callable[[], int], using: str) -> int:
    def write() -> int:
        with short_lock_waits(using):  # others' answers wait behind this one
            return update()

    return persisted(write, using)


def _failure(error: TikTokBusinessError) -> dict[str, Any]:
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


def _backoff(account: BusinessAccount, error: TikTokBusinessError) -> dict[str, Any]:
    """When to try again; nothing for what was found out without asking TikTok."""
    if isinstance(error, DecryptionError | ReauthorizationRequired):
        return {}
    # No more than the longest needs: a failure count may be large, 2 to its power is larger.
    doublings = min(account.consecutive_failures, 10)
    backoff = min(FIRST_BACKOFF * 2**doublings, LONGEST_BACKOFF)
    # Jitter, so that accounts that failed together are not tried together again.
    return {"next_attempt_at": clock.instant() + backoff * random.uniform(0.5, 1)}  # noqa: S311 -- no secret


def release(account: BusinessAccount, using: str, **changes: Any) -> None:
    """Give the claim back, if it is still ours."""
    row = _rows(using).filter(pk=account.pk, claim_id=account.claim_id)
    _persisted(lambda: row.update(**changes, **NO_CLAIM), using)


def reload(account: BusinessAccount, using: str) -> bool:
    """Bring the instance up to date; False when the row was deleted meanwhile."""
    try:
        patiently(lambda: account.refresh_from_db(using=using), using)
    except BusinessAccount.DoesNotExist:
        return False
    return True


def _adopt(account: BusinessAccount, using: str) -> TikTokBusinessError | None:
    """The claim is lost: see what the one who has it, or had it, made of the account."""
    sent_version = account.credentials_version
    if not reload(account, using):
        return AccountGoneError("The account was deleted during the refresh.")
    if account.status == BusinessAccount.Status.REVOKED:
        return ReauthorizationRequired("The account was disconnected during the refresh.")
    if account.credentials_version == sent_version:
        return AccountBusyError("Another worker has taken the account over.")
    return None


def tell(
    signal: Signal,
    account: BusinessAccount,
    using: str,
    *,
    kind: events.Kind | None,
    scopes_before: list[str] | None = None,
    **arguments: Any,
) -> None:
    """Write the event down and send the signal, when what they tell is committed."""

    def tell_now() -> None:
        error = arguments.get("error")
        events.record(account, kind, using, error=error, scopes_before=scopes_before)
        signal.send_robust(sender=BusinessAccount, account=account, **arguments)

    after_commit(tell_now, using)
