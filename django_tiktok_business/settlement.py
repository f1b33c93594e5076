"""Write down what TikTok answered, whatever else happens to the row, and tell by signals.

A pair is saved by an UPDATE that names the claim. When the claim is gone but the row holds the very
pair that was sent, the answer is saved all the same: it is newer. When somebody stored another pair
meanwhile (reconnect, disconnect, another worker), the answer stands down.

A rejection changes the account's state by an UPDATE that names the claim *and* the pair that was
sent, so it cannot hit a pair that arrived meanwhile.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, connections, transaction
from django.db.models import F
from django.utils import timezone

from . import signals
from .answers import TokenGrant
from .durable import (
    PASSING_ERRORS,
    SAVE_PATIENCE_SECONDS,
    is_in_transaction,
    persisted,
    save_later,
    short_lock_waits,
)
from .exceptions import (
    AccountBusyError,
    AccountGoneError,
    AccountOwnedByAnotherUserError,
    APIError,
    AppCredentialsRejectedError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from .models import BusinessAccount

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.dispatch import Signal

    from .models import BusinessAccountQuerySet

__all__ = [
    "TAKEN_OVER",
    "connect",
    "credential_changes",
    "disconnect_changes",
    "rejected",
    "release",
    "reload",
    "send_after_commit",
    "settle",
]

logger = logging.getLogger("tiktok_business")

TAKEN_OVER = "taken-over-"  # how the id of a claim begins that was somebody else's until it expired


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
        try:
            is_saved = _save(account, answer, using)
        except AccountBusyError as error:
            return error
        if not is_saved:
            return _adopt(account, using)
        send_after_commit(signals.tokens_refreshed, account, using)
        return None
    if isinstance(answer, AppCredentialsRejectedError):
        release(account, using)  # says nothing about the account
        return answer
    if isinstance(answer, ReauthorizationRequired) and answer.code is not None:
        if not account.claim_id.startswith(TAKEN_OVER):
            same_pair = _rows(using).filter(
                pk=account.pk,
                claim_id=account.claim_id,
                credentials_version=account.credentials_version,
            )
            changes = {**_failure(answer), **_NO_CLAIM}
            verdict = _mark_rejected(account, answer, same_pair, changes, using)
            return verdict or _adopt(account, using)
        # The worker that had the claim may have been given a new pair and be about to save it.
        answer = AccountBusyError(
            f"{answer} This is no verdict before it happens again: another worker, which has not "
            "reported back, may hold newer tokens."
        )
    release(account, using, **_failure(answer))
    logger.info("Account %s was not refreshed: %s", account.open_id, answer)
    reload(account, using)
    send_after_commit(signals.refresh_failed, account, using, error=answer)
    return answer


def rejected(account: BusinessAccount, error: APIError, using: str) -> TikTokBusinessError:
    """TikTok does not accept even a fresh access token: only a new consent can help.

    Marks the account, unless its row holds another pair by now; returns what to raise.
    """
    verdict = ReauthorizationRequired(
        error.message, code=error.code, request_id=error.request_id, http_status=error.http_status
    )
    same_pair = _rows(using).filter(
        pk=account.pk,
        status=BusinessAccount.Status.ACTIVE,
        credentials_version=account.credentials_version,
    )
    return _mark_rejected(account, verdict, same_pair, _failure(verdict), using) or error


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
    send_after_commit(signals.reauthorization_required, account, using, error=verdict)
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
        **_NO_CLAIM,
        "consecutive_failures": 0,
        "credentials_version": F("credentials_version") + 1,
        "updated_at": timezone.now(),
    }


_NO_CLAIM: dict[str, Any] = {"claim_id": "", "claim_expires_at": None}
_NO_FAILURE: dict[str, Any] = {
    "consecutive_failures": 0,
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


def connect(
    user: Any, app_id: str, grant: TokenGrant, using: str, *, is_patient: bool
) -> BusinessAccount:
    """Store what a new consent gave, as connected by ``user``, and send the signal.

    Raises `AccountOwnedByAnotherUserError`, and `AccountBusyError` when others change the row or
    its owner all the time.
    """
    consent = _Consent(user, app_id, grant, using)
    patience_seconds = SAVE_PATIENCE_SECONDS if is_patient else 0
    try:
        account = persisted(consent.store, using, patience_seconds=patience_seconds)
    except TikTokBusinessError:
        raise
    except BaseException:  # Ctrl-C and the time limits of workers too
        save_later(consent.store_after_all, using)
        raise
    if is_in_transaction(using):
        save_later(consent.store_after_all, using)
    consent.tell(account)
    return account


class _Consent:
    """What a new consent gave, on its way into the account's row."""

    def __init__(self, user: Any, app_id: str, grant: TokenGrant, using: str) -> None:
        self.user = user
        self.using = using
        self.rows = _rows(using)
        self.identity = {"app_id": app_id, "open_id": grant.open_id}
        now = timezone.now()
        self.changes = {
            **credential_changes(BusinessAccount(**self.identity), grant),
            # A new consent starts a new year, also when TikTok does not say so.
            "refresh_token_expires_at": grant.refresh_token_expires_at,
            "connected_at": now,
            "last_refreshed_at": now,
            **_NO_CLAIM,  # a refresh in flight stands down
        }
        self.versions_seen: list[int | None] = []  # of the pair in the row; None: there was no row
        self.is_new = False

    def store(self) -> BusinessAccount:
        for _ in range(3):
            account = self._try(self._look())
            if account is not None:
                return account
        raise AccountBusyError("The account is being connected or changed by somebody else.")

    def store_after_all(self) -> None:
        """Store it unless that has happened, or something newer is there."""
        for _ in range(3):
            known = self._look()
            if self.versions_seen[-1] != self.versions_seen[0]:
                return
            account = self._try(known)
            if account is not None:
                self.tell(account)
                return
        raise AccountBusyError("The account is being connected or changed by somebody else.")

    def tell(self, account: BusinessAccount) -> None:
        logger.info("Account %s is connected.", account.open_id)
        send_after_commit(signals.account_connected, account, self.using, created=self.is_new)

    def _look(self) -> BusinessAccount | None:
        known = self.rows.filter(**self.identity).first()
        self.versions_seen.append(None if known is None else known.credentials_version)
        return known

    def _try(self, known: BusinessAccount | None) -> BusinessAccount | None:
        """The stored account; None when the row has changed since it was looked at."""
        self.is_new = known is None
        if known is None:
            values = {**self.identity, **self.changes, "credentials_version": 1}
            # IntegrityError: another request connects the same account.
            with (
                suppress(IntegrityError),
                short_lock_waits(self.using),
                transaction.atomic(using=self.using),
            ):
                return self.rows.create(**values, owner_id=self.user.pk)
            return None
        if known.owner_id not in (None, self.user.pk) and not self.user.has_perm(
            "tiktok_business.change_businessaccount"
        ):
            raise AccountOwnedByAnotherUserError("Another user has connected this account.")
        as_seen = self.rows.filter(
            pk=known.pk, owner=known.owner_id, credentials_version=known.credentials_version
        )
        with short_lock_waits(self.using):
            is_updated = as_seen.update(**self.changes, owner=known.owner_id or self.user.pk)
        return known if is_updated and reload(known, self.using) else None


def _save(account: BusinessAccount, grant: TokenGrant, using: str) -> bool:
    """Store the new pair; False when the row holds another pair than the one that was sent."""
    changes = {**credential_changes(account, grant), "last_refreshed_at": timezone.now()}
    row = _rows(using).filter(pk=account.pk)
    own_claim = row.filter(claim_id=account.claim_id)
    same_pair = row.filter(credentials_version=account.credentials_version)

    def save() -> int:
        # A claim that another worker took over is left to it.
        return own_claim.update(**changes, **_NO_CLAIM) or same_pair.update(**changes)

    try:
        saved = _persisted(save, using)
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
        reload(account, using)
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


def release(account: BusinessAccount, using: str, **changes: Any) -> None:
    """Give the claim back, if it is still ours."""
    row = _rows(using).filter(pk=account.pk, claim_id=account.claim_id)
    _persisted(lambda: row.update(**changes, **_NO_CLAIM), using)


def reload(account: BusinessAccount, using: str) -> bool:
    """Bring the instance up to date; False when the row was deleted meanwhile."""
    try:
        account.refresh_from_db(using=using)
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


def send_after_commit(
    signal: Signal, account: BusinessAccount, using: str, **arguments: Any
) -> None:
    """Send a signal of ours when what it tells is committed.

    Where the caller manages its transactions by hand, nobody can say when that is: it is sent now.
    """

    def send() -> None:
        signal.send_robust(sender=BusinessAccount, account=account, **arguments)

    connection = connections[using]
    if connection.in_atomic_block or connection.get_autocommit():
        transaction.on_commit(send, using=using)
    else:
        send()
