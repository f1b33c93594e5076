"""Refresh one account, once across all threads and processes.

The protocol, the same for one account and for a batch, on every database:

1. *Claim* the row (see `claims`).
2. *Call* TikTok with no transaction and no lock open.
3. *Save* both tokens and both expiries before anything else happens (see `storage`).
4. Only then send signals and sync the profile.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper

from django_tiktok_business import events
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.factory import client_from_settings
from django_tiktok_business.api.oauth import OAuth, TokenGrant
from django_tiktok_business.conf import conf
from django_tiktok_business.db import clock
from django_tiktok_business.db.vendors import LOCK_PATIENCE_SECONDS
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountGoneError,
    InvalidResponseError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.interrupts import defer_signals
from django_tiktok_business.models import BusinessAccount

from .claims import ClaimTimes, claim, claim_is_free, release
from .single_flight import IsFreshEnough, SharedRefresh, shared_refreshes
from .storage import store_result

POLL_SECONDS = 0.05  # how often the row is read while another process refreshes it


def request_tokens(
    account: BusinessAccount, client: TikTokClient, *, until: float
) -> TokenGrant | TikTokBusinessError:
    """Ask TikTok for new tokens. Does not touch the database, and returns errors.

    `store_result` takes what this returns.
    """
    try:
        refresh_token = account.refresh_token
        if not refresh_token:
            return ReauthorizationRequired("There is no refresh token to renew the access with.")
        grant = OAuth(client).refresh(refresh_token, until=until)
    except TikTokBusinessError as error:
        return error
    if grant.open_id not in (None, account.open_id):
        return InvalidResponseError("TikTok answered with the tokens of another account.")
    return grant


def refresh_once(
    pk: int, using: str, *, is_fresh_enough: IsFreshEnough, record_success: bool = True
) -> BusinessAccount:
    """Refresh one account, once across all workers, and return its row.

    ``is_fresh_enough`` is called with the row and says whether it needs no refresh (any more).
    ``record_success``: write an event for a success too, once the threads that wait have the row.

    One thread of a process does the work; the others wait for it without a query. While another
    process holds the claim, the row is polled for its result, for CLAIM_SECONDS at most. When that
    process dies, one of those that wait takes over.

    Raises what `store_result` returns, `AccountBusyError` and `AccountGoneError`.
    """
    give_up_at = time.monotonic() + conf.CLAIM_SECONDS + LOCK_PATIENCE_SECONDS
    while True:
        shared, is_leader = shared_refreshes.join(using, pk)
        if is_leader:
            return _lead(shared, pk, using, is_fresh_enough, record_success=record_success)
        if not shared.done.wait(give_up_at - time.monotonic()):
            raise AccountBusyError("Another thread holds the account.")
        row = shared.result(is_fresh_enough)
        if row is not None:
            return row


def _lead(
    shared: SharedRefresh,
    pk: int,
    using: str,
    is_fresh_enough: IsFreshEnough,
    *,
    record_success: bool,
) -> BusinessAccount:
    """Refresh the account and share the result with the threads that wait."""
    without = () if record_success else (events.Kind.REFRESHED,)
    with events.batched(using, without=without):
        try:
            # Before the claim, so that a wrong setting leaves none behind.
            with closing(client_from_settings()) as client:
                row = _refresh_once(shared, pk, using, client, is_fresh_enough)
                shared.succeed(row)
                return row
        except TikTokBusinessError as error:
            shared.fail(error)
            raise
        finally:
            shared_refreshes.end(using, pk, shared)


def _refresh_once(
    shared: SharedRefresh,
    pk: int,
    using: str,
    client: TikTokClient,
    is_fresh_enough: IsFreshEnough,
) -> BusinessAccount:
    """Claim the row and refresh it, or poll it while another process holds the claim."""
    clock.synchronize(using)
    started = time.monotonic()
    while True:
        row, is_claim_free = _read(pk, using)
        if shared.check(row, is_fresh_enough):
            return row
        accounts = []
        times = ClaimTimes.now()
        try:
            if is_claim_free:
                accounts = claim([pk], using)
        except AccountBusyError:  # perhaps another worker is claiming it at this moment
            if time.monotonic() - started > LOCK_PATIENCE_SECONDS:
                raise
        for account in accounts:
            return _refresh_claimed(shared, account, client, times, using, is_fresh_enough)
        if time.monotonic() - started > conf.CLAIM_SECONDS + LOCK_PATIENCE_SECONDS:
            raise AccountBusyError("Another worker holds the account.")
        time.sleep(POLL_SECONDS)


def _refresh_claimed(
    shared: SharedRefresh,
    account: BusinessAccount,
    client: TikTokClient,
    times: ClaimTimes,
    using: str,
    is_fresh_enough: IsFreshEnough,
) -> BusinessAccount:
    with defer_signals():
        try:
            is_done = shared.check(account, is_fresh_enough)
            answer = None if is_done else request_tokens(account, client, until=times.end_by)
        except BaseException:
            release(account, using)
            raise
        if answer is None:
            release(account, using)
        elif (error := store_result(account, answer, using)) is not None:
            raise error
    return account


def _read(pk: int, using: str) -> tuple[BusinessAccount, bool]:
    """Read the row, and whether its claim is free by the database's clock."""
    is_claim_free = ExpressionWrapper(claim_is_free(), BooleanField())
    row: Any = (
        BusinessAccount.objects.using(using)
        .annotate(is_claim_free=is_claim_free)
        .filter(pk=pk)
        .first()
    )
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
