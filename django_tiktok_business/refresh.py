"""Refresh an account: claim its row, call TikTok, save the answer at once, release.

The protocol, the same for one account and for a batch, on every database:

1. *Claim*: one conditional UPDATE writes a random claim id and an expiry. Only one worker gets it;
   a worker that dies frees its rows by time. The database's clock decides, so the clocks of the
   machines do not matter.
2. *Call* TikTok with no transaction and no lock open.
3. *Save* both tokens and both expiries before anything else happens (see `settlement`).
4. Only then signals, and the profile.
"""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import BooleanField, ExpressionWrapper, Q, Value
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from . import conf
from .answers import TokenGrant
from .client import TikTokClient
from .durable import LOCK_PATIENCE_SECONDS, busy_if_locked
from .exceptions import (
    AccountBusyError,
    AccountGoneError,
    InvalidResponseError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from .models import BusinessAccount
from .settlement import TAKEN_OVER, release, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from .models import BusinessAccountQuerySet

__all__ = ["ask", "claim", "client_from_settings", "refresh_once"]

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


def claim(pk: int, using: str) -> BusinessAccount | None:
    """Claim the row and read it afresh; None when another worker holds it, or it is disconnected.

    Raises `AccountBusyError` when a transaction has locked the row.
    """
    expiry = _DatabaseNow() + Value(timedelta(seconds=conf.CLAIM_SECONDS))
    rows = _rows(using).filter(pk=pk, app_id=conf.APP_ID)
    rows = rows.exclude(status=BusinessAccount.Status.REVOKED)
    claim_id = uuid.uuid4().hex
    with busy_if_locked(using):
        unclaimed = rows.filter(claim_expires_at__isnull=True)
        if not unclaimed.update(claim_id=claim_id, claim_expires_at=expiry):
            claim_id = f"{TAKEN_OVER}{claim_id[len(TAKEN_OVER) :]}"
            abandoned = rows.filter(claim_expires_at__lte=_DatabaseNow())
            if not abandoned.update(claim_id=claim_id, claim_expires_at=expiry):
                return None
    return _rows(using).filter(pk=pk, claim_id=claim_id).first()


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


def refresh_once(
    pk: int, using: str, *, is_good: Callable[[BusinessAccount], bool]
) -> BusinessAccount:
    """Refresh one account, once across all workers, and return its row.

    ``is_good`` says of a row that no refresh is needed (any more). While another worker holds the
    claim its result is awaited by re-reading, at most CLAIM_SECONDS; should it die, one of those
    who wait takes over. Raises what `settle` returns, `AccountBusyError`, `AccountGoneError`.
    """
    started = time.monotonic()
    first: BusinessAccount | None = None
    with closing(client_from_settings()) as client:  # a wrong setting shows before the claim
        while True:
            row, is_claim_free = _look(pk, using)
            first = first or row
            if _is_done(row, first, is_good):
                return row
            account = None
            try:
                account = claim(pk, using) if is_claim_free else None
            except AccountBusyError:  # or just in conflict with another worker's claim
                if time.monotonic() - started > LOCK_PATIENCE_SECONDS:
                    raise
            if account is not None:
                return _refresh_claimed(account, first, client, using, is_good=is_good)
            if time.monotonic() - started > conf.CLAIM_SECONDS + LOCK_PATIENCE_SECONDS:
                raise AccountBusyError("Another worker holds the account.")
            time.sleep(POLL_SECONDS)


def _refresh_claimed(
    account: BusinessAccount,
    first: BusinessAccount,
    client: TikTokClient,
    using: str,
    *,
    is_good: Callable[[BusinessAccount], bool],
) -> BusinessAccount:
    try:
        answer = None if _is_done(account, first, is_good) else ask(account, client)
    except BaseException:
        release(account, using)
        raise
    if answer is None:
        release(account, using)
    elif (error := settle(account, answer, using)) is not None:
        raise error
    return account


def _is_done(
    row: BusinessAccount, first: BusinessAccount, is_good: Callable[[BusinessAccount], bool]
) -> bool:
    """Whether there is nothing left to do; raises what others found out since ``first``."""
    if is_good(row):
        return True
    has_failed = row.consecutive_failures > first.consecutive_failures
    rejected = BusinessAccount.Status.REAUTHORIZATION_REQUIRED
    if row.status == rejected and (has_failed or first.status != rejected):
        raise ReauthorizationRequired("TikTok has just rejected the account's tokens.")
    if has_failed:
        raise AccountBusyError(
            f"Another worker failed to refresh the account just now: {row.last_error_message}"
        )
    return bool(row.credentials_version > first.credentials_version)


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
    return row, bool(row.is_claim_free)
