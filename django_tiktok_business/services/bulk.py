"""Act on many chosen accounts within one web request."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import router

from django_tiktok_business.api import factory
from django_tiktok_business.api.outage import Breaker
from django_tiktok_business.api.rate_limit import BATCH
from django_tiktok_business.conf import conf
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    AppConfigurationError,
    ConfigurationError,
    RateLimitError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.sync import profile
from django_tiktok_business.tokens.pool import CallPool
from django_tiktok_business.tokens.report import RefreshReport

from . import access
from . import accounts as accounts_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


__all__ = ["TROUBLE", "Attempts", "one_by_one", "refresh_tokens", "sync_profiles"]

OUTAGE_THRESHOLD = 3  # failures of TikTok itself, one after the other, after which no more is tried

# gunicorn's time-out is 30 seconds; what is in flight when this is over has some left to be saved.
LONGEST_SECONDS = 15.0
TROUBLE = (TikTokBusinessError, ConfigurationError)
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
    outage = Breaker(OUTAGE_THRESHOLD, also=(RateLimitError,))
    for account in accounts:
        try:
            returned = act(account)
        except TROUBLE as raised:
            returned = raised
        error = returned if isinstance(returned, Exception) else None
        attempts.append((account, error))
        outage.record(error)
        is_vain = outage.is_open or isinstance(error, _MISCONFIGURATION)
        if is_vain or time.monotonic() > ends_at:
            break
    return attempts


def refresh_tokens(
    accounts: Iterable[BusinessAccount], *, within: timedelta = _EVER
) -> RefreshReport:
    """`services.refresh_due_accounts`, ended in time; also those that wait for their next attempt.

    A web server that ends a request would end it between TikTok's answer and its being saved.
    """
    stop = threading.Event()
    timer = threading.Timer(LONGEST_SECONDS, stop.set)
    timer.daemon = True
    timer.start()
    try:
        return accounts_module.refresh_due_accounts(
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
    attempts = one_by_one(accounts, access.get_access_token)
    results: dict[int, Exception | None] = {
        account.pk: error for account, error in attempts if error is not None
    }
    ready = [account for account, error in attempts if error is None]

    def note(account: BusinessAccount, error: Exception | None) -> None:
        results[account.pk] = error

    with CallPool(conf.REFRESH_CONCURRENCY, factory.limiter_from_settings()) as calls:
        profile.sync_all(
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
        (account.pk, error) for account, error in one_by_one(rejected, accounts_module.sync_profile)
    )
    return [(account, results[account.pk]) for account in accounts if account.pk in results]
