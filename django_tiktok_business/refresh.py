"""Refresh an account: claim its row, call TikTok, save the answer at once, release.

The protocol, the same for one account and for a batch, on every database:

1. *Claim*: one conditional UPDATE writes a random claim id and an expiry. Only one worker gets it;
   a worker that dies frees its rows by time. The database's clock decides, so the clocks of the
   machines do not matter.
2. *Call* TikTok with no transaction and no lock open.
3. *Save* both tokens and both expiries by an UPDATE that still names the claim, before anything
   else happens. When the claim is gone but the row holds the very pair that was sent, the answer
   is saved all the same: it is newer. When somebody stored another pair meanwhile (reconnect,
   disconnect, another worker), the answer stands down.
4. Only then signals, and the profile.

A rejection changes the account's state by an UPDATE that names the claim *and* the pair that was
sent, so it cannot hit a pair that arrived meanwhile.
"""

from __future__ import annotations

import logging
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import BooleanField, ExpressionWrapper, F, Q, Value
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.module_loading import import_string

from . import conf, signals
from .answers import TokenGrant
from .client import TikTokClient
from .durable import (
    LOCK_PATIENCE_SECONDS,
    is_in_transaction,
    persisted,
    save_after_rollback,
)
from .exceptions import (
    AccountBusyError,
    AccountGoneError,
    APIError,
    AppCredentialsRejectedError,
    InvalidResponseError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from .models import BusinessAccount

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.dispatch import Signal

    from .models import BusinessAccountQuerySet

__all__ = [
    "ask",
    "claim",
    "client_from_settings",
    "credential_changes",
    "disconnect_changes",
    "refresh_once",
    "rejected",
    "release",
    "reload",
    "send_after_commit",
    "settle",
]

logger = logging.getLogger("tiktok_business")

POLL_SECONDS = 0.1  # how often a worker that waits for another's refresh looks at the row


def client_from_settings() -> TikTokClient:
    """A client of the configured app, with sessions from SESSION_FACTORY_PATH."""
    path = conf.SESSION_FACTORY_PATH
    return TikTokClient(
        conf.APP_ID,
        conf.APP_SECRET,
        base_url=conf.API_BASE_URL,
        timeout=conf.REQUEST_TIMEOUT_SECONDS,
        max_attempts=conf.MAX_ATTEMPTS,
        session_factory=import_string(path) if path else None,
    )


class _DatabaseNow(Now):
    """The database's clock, in UTC on MySQL as well, where NOW() follows the session's zone."""

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)


def _claim_is_free() -> Q:
    return Q(claim_expires_at__isnull=True) | Q(claim_expires_at__lte=_DatabaseNow())


def _rows(using: str) -> BusinessAccountQuerySet:
    return BusinessAccount.objects.using(using)


# One account


def claim(pk: int, using: str) -> BusinessAccount | None:
    """Claim the row and read it afresh; None when it cannot be claimed now."""
    claim_id = uuid.uuid4().hex
    lifetime = Value(timedelta(seconds=conf.CLAIM_SECONDS))
    is_claimed = (
        _rows(using)
        .filter(_claim_is_free(), pk=pk, app_id=conf.APP_ID)
        .exclude(status=BusinessAccount.Status.REVOKED)
        .update(claim_id=claim_id, claim_expires_at=_DatabaseNow() + lifetime)
    )
    return _rows(using).filter(pk=pk, claim_id=claim_id).first() if is_claimed else None


def ask(account: BusinessAccount, client: TikTokClient) -> TokenGrant | TikTokBusinessError:
    """Have TikTok renew the tokens. No database; what goes wrong is returned, for `settle`."""
    try:
        refresh_token = account.refresh_token
        if not refresh_token:
            return ReauthorizationRequired("There is no refresh token to renew the access with.")
        grant = client.refresh(refresh_token)
    except TikTokBusinessError as error:
        return error
    if grant.open_id not in (None, account.open_id):
        return InvalidResponseError("TikTok answered with the tokens of another account.")
    return grant


def settle(
    account: BusinessAccount, answer: TokenGrant | TikTokBusinessError, using: str
) -> TikTokBusinessError | None:
    """Write down what TikTok answered to the holder of the claim, and send the signals.

    Returns None when the row holds good tokens now, its own or somebody else's newer ones;
    ``account`` is then up to date. Otherwise the error, as it stands after a look at the row.
    """
    if isinstance(answer, TokenGrant):
        if not _save(account, answer, using):
            return _adopt(account, using)
        send_after_commit(signals.tokens_refreshed, account, using)
        return None
    if isinstance(answer, AppCredentialsRejectedError):
        release(account, using)  # says nothing about the account
        return answer
    changes = _failure(answer)
    if isinstance(answer, ReauthorizationRequired) and answer.code is not None:
        same_pair = _rows(using).filter(
            pk=account.pk,
            claim_id=account.claim_id,
            credentials_version=account.credentials_version,
        )
        verdict = _mark_rejected(account, answer, same_pair, {**changes, **_NO_CLAIM}, using)
        return verdict or _adopt(account, using)
    release(account, using, **changes)
    logger.info("Account %s was not refreshed: %s", account.open_id, answer)
    reload(account, using)
    send_after_commit(signals.refresh_failed, account, using, error=answer)
    return answer


def refresh_once(
    pk: int, using: str, *, is_good: Callable[[BusinessAccount], bool]
) -> BusinessAccount:
    """Refresh one account, once across all workers, and return its row.

    ``is_good`` says of a row that no refresh is needed (any more). While another worker holds the
    claim its result is awaited by re-reading, at most CLAIM_SECONDS; should it die, one of those
    who wait takes over. Raises what `settle` returns, `AccountBusyError`, `AccountGoneError`.
    """
    deadline = time.monotonic() + conf.CLAIM_SECONDS + LOCK_PATIENCE_SECONDS
    first: BusinessAccount | None = None
    while True:
        row, is_claim_free = _look(pk, using)
        first = first or row
        if is_good(row):
            return row
        if row.status == BusinessAccount.Status.REAUTHORIZATION_REQUIRED and row is not first:
            raise ReauthorizationRequired("TikTok has just rejected the account's tokens.")
        if row.consecutive_failures > first.consecutive_failures:
            raise AccountBusyError(
                f"Another worker failed to refresh the account just now: {row.last_error_message}"
            )
        if is_claim_free and (account := claim(pk, using)) is not None:
            if is_good(account):
                release(account, using)
                return account
            client = client_from_settings()
            try:
                error = settle(account, ask(account, client), using)
            finally:
                client.close()
            if error is not None:
                raise error
            return account
        if time.monotonic() > deadline:
            raise AccountBusyError("Another worker holds the account.")
        time.sleep(POLL_SECONDS)


def _look(pk: int, using: str) -> tuple[BusinessAccount, bool]:
    """The row, and whether its claim is free by the database's clock."""
    is_claim_free = ExpressionWrapper(_claim_is_free(), BooleanField())
    row: Any = _rows(using).annotate(is_claim_free=is_claim_free).filter(pk=pk).first()
    if row is None:
        raise AccountGoneError(
            "The account's row is gone, or the transaction that wrote it is not committed yet."
        )
    if row.app_id != conf.APP_ID:
        raise ReauthorizationRequired(
            f"The account was connected to app {row.app_id}, not to the configured app."
        )
    if row.status == BusinessAccount.Status.REVOKED:
        raise ReauthorizationRequired("The account is disconnected.")
    return row, row.is_claim_free


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
    if not persisted(lambda: same_pair.update(status=status, **changes), using):
        return None
    logger.warning("TikTok rejected the tokens of account %s: %s", account.open_id, verdict)
    reload(account, using)
    send_after_commit(signals.reauthorization_required, account, using, error=verdict)
    return verdict


def disconnect_changes(error: TikTokBusinessError | None) -> dict[str, Any]:
    """The bookkeeping of a disconnect: a refresh in flight stands down."""
    changes = _failure(error) if error is not None else _NO_FAILURE
    return {
        **changes,
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


def _save(account: BusinessAccount, grant: TokenGrant, using: str) -> bool:
    """Store the new pair; False when the row holds another pair than the one that was sent."""
    changes = {**credential_changes(account, grant), "last_refreshed_at": timezone.now()}
    row = _rows(using).filter(pk=account.pk)
    same_pair = row.filter(credentials_version=account.credentials_version)

    def save() -> int:
        # A claim that another worker took over is left to it.
        return row.filter(claim_id=account.claim_id).update(
            **changes, **_NO_CLAIM
        ) or same_pair.update(**changes)

    saved = persisted(save, using)
    if saved and is_in_transaction(using):
        save_after_rollback(lambda: same_pair.update(**changes), using)
    if saved:
        reload(account, using)
    return bool(saved)


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
    persisted(lambda: row.update(**changes, **_NO_CLAIM), using)


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
