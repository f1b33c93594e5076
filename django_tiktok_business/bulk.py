"""What is done to many chosen accounts within one request, in time and while there is hope."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import router

from . import conf, profiles, refresh, services
from .calls import Calls
from .ceiling import BATCH
from .exceptions import (
    AccessTokenRejectedError,
    AppConfigurationError,
    ConfigurationError,
    ConnectionFailedError,
    RateLimitError,
    ServerError,
    TikTokBusinessError,
)
from .models import BusinessAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["TROUBLE", "Attempts", "one_by_one", "refresh_tokens", "sync_profiles"]

OUTAGE_THRESHOLD = 3  # failures of TikTok itself, one after the other, after which no more is tried
# gunicorn's time-out is 30 seconds; what is in flight when this is over has some left to be saved.
LONGEST_SECONDS = 15.0

TROUBLE = (TikTokBusinessError, ConfigurationError)
_OUTAGE = (ConnectionFailedError, RateLimitError, ServerError)
_MISCONFIGURATION = (AppConfigurationError, ConfigurationError)
_EVER = timedelta(days=36_500)

Attempts = list[tuple[BusinessAccount, Exception | None]]


def one_by_one(
    accounts: Iterable[BusinessAccount], act: Callable[[BusinessAccount], object]
) -> Attempts:
    """Act on one after the other; ``act`` returns or raises what went wrong.

    For what cannot be undone, such as a disconnect: the first answer that TikTok gives to a wrong
    configuration leaves the others as they are. These are missing in what is returned.
    """
    ends_at = time.monotonic() + LONGEST_SECONDS
    attempts: Attempts = []
    streak = 0
    for account in accounts:
        try:
            returned = act(account)
        except TROUBLE as raised:
            returned = raised
        error = returned if isinstance(returned, Exception) else None
        attempts.append((account, error))
        streak = streak + 1 if isinstance(error, _OUTAGE) else 0
        is_vain = streak == OUTAGE_THRESHOLD or isinstance(error, _MISCONFIGURATION)
        if is_vain or time.monotonic() > ends_at:
            break
    return attempts


def refresh_tokens(
    accounts: Iterable[BusinessAccount], *, within: timedelta = _EVER
) -> services.RefreshReport:
    """`services.refresh_due_accounts`, ended in time; also those that wait for their next attempt.

    A web server that ends a request would end it between TikTok's answer and its being saved.
    """
    stop = threading.Event()
    timer = threading.Timer(LONGEST_SECONDS, stop.set)
    timer.daemon = True
    timer.start()
    try:
        return services.refresh_due_accounts(
            accounts=accounts, within=within, ignore_backoff=True, stop=stop
        )
    finally:
        timer.cancel()


def sync_profiles(accounts: Sequence[BusinessAccount]) -> Attempts:
    """`services.sync_profile` for many: tokens first, then the profiles, each in the same pool.

    Missing in what is returned are those that were not tried, because TikTok is evidently down or
    there was no time.
    """
    ends_at = time.monotonic() + LONGEST_SECONDS
    refresh_tokens(accounts, within=timedelta(seconds=conf.REFRESH_MARGIN_SECONDS))
    attempts = one_by_one(accounts, services.get_access_token)
    results: dict[int, Exception | None] = {
        account.pk: error for account, error in attempts if error is not None
    }
    ready = [account for account, error in attempts if error is None]

    def note(account: BusinessAccount, error: Exception | None) -> None:
        results[account.pk] = error

    with Calls(conf.REFRESH_CONCURRENCY, refresh.ceiling_from_settings()) as calls:
        profiles.sync(
            ready,
            calls,
            router.db_for_write(BusinessAccount),
            ahead_seconds=BATCH,
            may_go_on=lambda: time.monotonic() < ends_at,
            on_result=note,
        )
    # In time, but refused: as for one account, a new token is tried.
    rejected = [
        account
        for account in ready
        if isinstance(results.get(account.pk), AccessTokenRejectedError)
    ]
    results.update(
        (account.pk, error) for account, error in one_by_one(rejected, services.sync_profile)
    )
    return [(account, results[account.pk]) for account in accounts if account.pk in results]
