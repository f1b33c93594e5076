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

import copy
import os
import threading
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import BooleanField, ExpressionWrapper, Q, Value
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from . import clock, conf, events
from .answers import TokenGrant
from .ceiling import shared_ceiling
from .client import TikTokClient
from .deadlines import LONGEST_PAUSE_SECONDS, SECONDS_TO_SAVE, longest_try_seconds
from .durable import LOCK_PATIENCE_SECONDS, busy_if_locked
from .exceptions import (
    AccountBusyError,
    AccountGoneError,
    InvalidResponseError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from .interrupts import put_off
from .models import BusinessAccount
from .settlement import TAKEN_OVER, release, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .ceiling import Ceiling
    from .models import BusinessAccountQuerySet

    _IsGood = Callable[[BusinessAccount], bool]

__all__ = [
    "ClaimTimes",
    "ask",
    "ceiling_from_settings",
    "claim",
    "client_from_settings",
    "new_claim_id",
    "refresh_once",
]

POLL_SECONDS = 0.05  # how often a worker that waits for another's refresh looks at the row


def ceiling_from_settings(requests_per_minute: int | None = None) -> Ceiling:
    """The shared ceiling, of REQUESTS_PER_MINUTE unless another number is given."""
    if requests_per_minute is None:
        requests_per_minute = conf.REQUESTS_PER_MINUTE
    return shared_ceiling(requests_per_minute, app_id=conf.APP_ID, cache_alias=conf.CACHE_ALIAS)


def client_from_settings(ceiling: Ceiling | None = None) -> TikTokClient:
    """A client of the configured app, with sessions from SESSION_FACTORY_PATH."""
    path = conf.SESSION_FACTORY_PATH
    return TikTokClient(
        conf.APP_ID,
        conf.APP_SECRET,
        base_url=conf.API_BASE_URL,
        ceiling=ceiling or ceiling_from_settings(),
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


def new_claim_id() -> str:
    return uuid.uuid4().hex


def claim(
    pks: Collection[int],
    using: str,
    *,
    claim_id: str | None = None,
    condition: Q | None = None,
) -> list[BusinessAccount]:
    """Claim those of the rows that are free (and meet ``condition``), and read them afresh.

    Left out is what another worker holds, and what is disconnected. Raises `AccountBusyError` when
    a transaction has locked one of the rows. Then, and when the connection broke, some may be
    claimed all the same: to be repeated with the same ``claim_id``.
    """
    claim_id = claim_id or new_claim_id()
    taken_over_id = f"{TAKEN_OVER}{claim_id[len(TAKEN_OVER) :]}"
    expiry = _DatabaseNow() + Value(timedelta(seconds=conf.CLAIM_SECONDS))
    rows = _rows(using).filter(condition or Q(), pk__in=pks, app_id=conf.APP_ID)
    rows = rows.exclude(status=BusinessAccount.Status.REVOKED)
    with busy_if_locked(using):
        unclaimed = rows.filter(claim_expires_at__isnull=True)
        claimed = unclaimed.update(claim_id=claim_id, claim_expires_at=expiry)
        if claimed < len(pks):
            abandoned = rows.filter(claim_expires_at__lte=_DatabaseNow())
            abandoned.update(claim_id=taken_over_id, claim_expires_at=expiry)
    return list(_rows(using).filter(pk__in=pks, claim_id__in=(claim_id, taken_over_id)))


@dataclass(frozen=True)
class ClaimTimes:
    """When calls under a claim may be made, on the monotonic clock, so that none outlives it."""

    begin_by: float
    end_by: float

    @classmethod
    def now(cls) -> ClaimTimes:
        """Of a claim that is about to be made."""
        made_at = time.monotonic()
        end_by = made_at + conf.CLAIM_SECONDS - SECONDS_TO_SAVE
        longest = LONGEST_PAUSE_SECONDS + longest_try_seconds(conf.REQUEST_TIMEOUT_SECONDS)
        # At once is always soon enough: a claim for which it is not is refused by the checks.
        return cls(max(end_by - longest, made_at + 1), end_by)


def ask(
    account: BusinessAccount, client: TikTokClient, *, until: float, has_turn: bool = False
) -> TokenGrant | TikTokBusinessError:
    """Have TikTok renew the tokens. No database; what goes wrong is returned, for `settle`."""
    try:
        refresh_token = account.refresh_token
        if not refresh_token:
            return ReauthorizationRequired("There is no refresh token to renew the access with.")
        grant = client.refresh(refresh_token, until=until, has_turn=has_turn)
    except TikTokBusinessError as error:
        return error
    if grant.open_id not in (None, account.open_id):
        return InvalidResponseError("TikTok answered with the tokens of another account.")
    return grant


class _Flight:
    """A refresh that one thread has under way; those that come meanwhile wait for its end."""

    def __init__(self) -> None:
        self.thread_id = threading.get_ident()
        self.has_landed = threading.Event()
        self.first: BusinessAccount | None = None  # the row as it was found
        self.row: BusinessAccount | None = None  # ... and as it was last seen
        self.error: TikTokBusinessError | None = None  # what it ended with, for all who wait
        self._is_judging = False

    def judge(self, row: BusinessAccount, is_good: _IsGood) -> bool:
        """Whether there is nothing left to do; raises what others found out since ``first``."""
        self.first = self.first or row
        self.row = row
        self._is_judging = True
        if is_good(row):
            return True
        self._is_judging = False
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
        """Note what it ended with; what ``is_good`` raises is the opinion of one caller."""
        if not self._is_judging:
            self.error = error

    def outcome(self, is_good: _IsGood) -> BusinessAccount | None:
        """The row for somebody who has waited; None when it is none to be content with."""
        if self.error is not None:
            raise copy.copy(self.error)  # a traceback belongs to one thread
        row = self.row
        return row if row is not None and self.judge(row, is_good) else None


class _Flights:
    """The flights of this process, by database and primary key."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.under_way: dict[tuple[str, int], _Flight] = {}


_flights = _Flights()
# A child process has none of its parent's threads, so nobody would ever end their flights.
# Windows, which cannot fork, lacks the function.
getattr(os, "register_at_fork", lambda **hooks: None)(after_in_child=_flights.forget)


def refresh_once(
    pk: int, using: str, *, is_good: _IsGood, is_noted: bool = True
) -> BusinessAccount:
    """Refresh one account, once across all workers, and return its row.

    ``is_good`` says of a row that no refresh is needed (any more). Of the threads of a process one
    works on an account, and the others wait for it without a query. While another process holds the
    claim its result is awaited by re-reading, at most CLAIM_SECONDS; should it die, one of those
    who wait takes over. Raises what `settle` returns, `AccountBusyError`, `AccountGoneError`.
    """
    gives_up_at = time.monotonic() + conf.CLAIM_SECONDS + LOCK_PATIENCE_SECONDS
    while True:
        own = _Flight()
        with _flights.lock:
            flight = _flights.under_way.setdefault((using, pk), own)
        # A receiver of a signal may ask while the flight of its own thread is under way.
        is_own_thread = flight.thread_id == own.thread_id
        if flight is own or is_own_thread:
            return _fly(own, pk, using, is_good, is_noted=is_noted)
        if not flight.has_landed.wait(gives_up_at - time.monotonic()):
            raise AccountBusyError("Another thread holds the account.")
        row = flight.outcome(is_good)
        if row is not None:
            return row


def _fly(
    flight: _Flight, pk: int, using: str, is_good: _IsGood, *, is_noted: bool
) -> BusinessAccount:
    """``is_noted``: a success becomes an event, too; written when those who wait have it."""
    without = () if is_noted else (events.Kind.REFRESHED,)
    with events.collected(using, without=without):
        try:
            with closing(
                client_from_settings()
            ) as client:  # a wrong setting shows before the claim
                flight.row = _refresh_once(flight, pk, using, client, is_good)
                return flight.row
        except TikTokBusinessError as error:
            flight.fail(error)
            raise
        finally:
            with _flights.lock:
                if _flights.under_way.get((using, pk)) is flight:
                    del _flights.under_way[using, pk]
            flight.has_landed.set()


def _refresh_once(
    flight: _Flight, pk: int, using: str, client: TikTokClient, is_good: _IsGood
) -> BusinessAccount:
    clock.synchronize(using)
    started = time.monotonic()
    while True:
        row, is_claim_free = _look(pk, using)
        if flight.judge(row, is_good):
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
            return _refresh_claimed(flight, account, client, times, using, is_good)
        if time.monotonic() - started > conf.CLAIM_SECONDS + LOCK_PATIENCE_SECONDS:
            raise AccountBusyError("Another worker holds the account.")
        time.sleep(POLL_SECONDS)


def _refresh_claimed(
    flight: _Flight,
    account: BusinessAccount,
    client: TikTokClient,
    times: ClaimTimes,
    using: str,
    is_good: _IsGood,
) -> BusinessAccount:
    with put_off():
        try:
            is_done = flight.judge(account, is_good)
            answer = None if is_done else ask(account, client, until=times.end_by)
        except BaseException:
            release(account, using)
            raise
        if answer is None:
            release(account, using)
        elif (error := settle(account, answer, using)) is not None:
            raise error
    return account


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
