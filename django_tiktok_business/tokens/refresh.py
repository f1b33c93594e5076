"""Refresh one account, once across all threads and processes.

The protocol, the same for one account and for a batch, on every database:

1. *Claim* the row (see `claims`).
2. *Call* TikTok with no transaction and no lock open.
3. *Save* both tokens and both expiries before anything else happens (see `storage`).
4. Only then send signals, and sync the profile.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from django.db.models import BooleanField, ExpressionWrapper

from django_tiktok_business import events
from django_tiktok_business.api.factory import client_from_settings
from django_tiktok_business.api.oauth import OAuth
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
from .storage import store_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_tiktok_business.api.client import TikTokClient
    from django_tiktok_business.api.oauth import TokenGrant

    _IsFreshEnough = Callable[[BusinessAccount], bool]

__all__ = ["ask", "refresh_once"]

POLL_SECONDS = 0.05  # how often a worker that waits for another's refresh looks at the row


def ask(
    account: BusinessAccount, client: TikTokClient, *, until: float
) -> TokenGrant | TikTokBusinessError:
    """Have TikTok renew the tokens. No database; what goes wrong is returned, for `settle`."""
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


class _SharedRefresh:
    """A refresh that one thread has under way; those that come meanwhile wait for its end."""

    def __init__(self) -> None:
        self.thread_id = threading.get_ident()
        self.done = threading.Event()
        self.first: BusinessAccount | None = None  # the row as it was found
        self.row: BusinessAccount | None = None  # ... and as it was last seen
        self.error: TikTokBusinessError | None = None  # what it ended with, for all who wait
        self._is_checking = False

    def check(self, row: BusinessAccount, is_fresh_enough: _IsFreshEnough) -> bool:
        """Whether there is nothing left to do; raises what others found out since ``first``."""
        self.first = self.first or row
        self.row = row
        self._is_checking = True
        if is_fresh_enough(row):
            return True
        self._is_checking = False
        has_failed = row.consecutive_failures > self.first.consecutive_failures
        rejected = BusinessAccount.Status.REAUTHORIZATION_REQUIRED
        if row.status == rejected and (has_failed or self.first.status != rejected):
            raise ReauthorizationRequired("TikTok has just rejected the account's tokens.")
        if has_failed:
            raise AccountBusyError(
                f"Another worker failed to refresh the account just now: {row.last_error_message}"
            )
        return bool(row.credentials_version > self.first.credentials_version)

    def fail(self, error: TikTokBusinessError) -> None:
        """Note what it ended with; what ``is_fresh_enough`` raises is the opinion of one caller."""
        if not self._is_checking:
            self.error = error

    def outcome(self, is_fresh_enough: _IsFreshEnough) -> BusinessAccount | None:
        """The row for somebody who has waited; None when it is none to be content with."""
        if self.error is not None:
            raise copy.copy(self.error)  # a traceback belongs to one thread
        row = self.row
        return row if row is not None and self.check(row, is_fresh_enough) else None


class _SharedRefreshes:
    """The refreshes under way in this process, by database and primary key."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.under_way: dict[tuple[str, int], _SharedRefresh] = {}


_refreshes = _SharedRefreshes()


# A child process has none of its parent's threads, so nobody would ever end their refreshes.
# Windows, which cannot fork, lacks the function.
getattr(os, "register_at_fork", lambda **hooks: None)(after_in_child=_refreshes.forget)


def refresh_once(
    pk: int, using: str, *, is_fresh_enough: _IsFreshEnough, record_success: bool = True
) -> BusinessAccount:
    """Refresh one account, once across all workers, and return its row.

    ``is_fresh_enough`` says of a row that no refresh is needed (any more). Of the threads of a
    process one works on an account, and the others wait for it without a query. While another
    process holds the claim its result is awaited by re-reading, at most CLAIM_SECONDS; should it
    die, one of those who wait takes over. Raises what `store_result` returns, `AccountBusyError`,
    `AccountGoneError`.
    """
    gives_up_at = time.monotonic() + conf.CLAIM_SECONDS + LOCK_PATIENCE_SECONDS
    while True:
        own = _SharedRefresh()
        with _refreshes.lock:
            shared = _refreshes.under_way.setdefault((using, pk), own)
        # A receiver of a signal may ask while a refresh of its own thread is under way.
        is_own_thread = shared.thread_id == own.thread_id
        if shared is own or is_own_thread:
            return _lead(own, pk, using, is_fresh_enough, record_success=record_success)
        if not shared.done.wait(gives_up_at - time.monotonic()):
            raise AccountBusyError("Another thread holds the account.")
        row = shared.outcome(is_fresh_enough)
        if row is not None:
            return row


def _lead(
    shared: _SharedRefresh,
    pk: int,
    using: str,
    is_fresh_enough: _IsFreshEnough,
    *,
    record_success: bool,
) -> BusinessAccount:
    """``record_success``: a success becomes an event, too; written when those who wait have it."""
    without = () if record_success else (events.Kind.REFRESHED,)
    with events.batched(using, without=without):
        try:
            with closing(
                client_from_settings()
            ) as client:  # a wrong setting shows before the claim
                shared.row = _refresh_once(shared, pk, using, client, is_fresh_enough)
                return shared.row
        except TikTokBusinessError as error:
            shared.fail(error)
            raise
        finally:
            with _refreshes.lock:
                if _refreshes.under_way.get((using, pk)) is shared:
                    del _refreshes.under_way[using, pk]
            shared.done.set()


def _refresh_once(
    shared: _SharedRefresh,
    pk: int,
    using: str,
    client: TikTokClient,
    is_fresh_enough: _IsFreshEnough,
) -> BusinessAccount:
    clock.synchronize(using)
    started = time.monotonic()
    while True:
        row, is_claim_free = _look(pk, using)
        if shared.check(row, is_fresh_enough):
            return row
        accounts = []
        times = ClaimTimes.now()
        try:
            if is_claim_free:
                accounts = claim([pk], using)
        except AccountBusyError:  # or just in conflict with another worker's claim
            if time.monotonic() - started > LOCK_PATIENCE_SECONDS:
                raise
        for account in accounts:
            return _refresh_claimed(shared, account, client, times, using, is_fresh_enough)
        if time.monotonic() - started > conf.CLAIM_SECONDS + LOCK_PATIENCE_SECONDS:
            raise AccountBusyError("Another worker holds the account.")
        time.sleep(POLL_SECONDS)


def _refresh_claimed(
    shared: _SharedRefresh,
    account: BusinessAccount,
    client: TikTokClient,
    times: ClaimTimes,
    using: str,
    is_fresh_enough: _IsFreshEnough,
) -> BusinessAccount:
    with defer_signals():
        try:
            is_done = shared.check(account, is_fresh_enough)
            answer = None if is_done else ask(account, client, until=times.end_by)
        except BaseException:
            release(account, using)
            raise
        if answer is None:
            release(account, using)
        elif (error := store_result(account, answer, using)) is not None:
            raise error
    return account


def _look(pk: int, using: str) -> tuple[BusinessAccount, bool]:
    """The row, and whether its claim is free by the database's clock."""
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
