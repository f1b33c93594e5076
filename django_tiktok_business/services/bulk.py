"""Act on many selected accounts within one web request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from django.db import router

from django_tiktok_business.api.factory import limiter_from_settings
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

from .access import get_access_token
from .accounts import refresh_due_accounts, sync_profile

OUTAGE_THRESHOLD = 3  # consecutive failures of TikTok itself after which nothing more is tried

# Half of gunicorn's default timeout of 30 seconds: open calls have the other half to be stored.
LONGEST_SECONDS = 15.0
TROUBLE = (TikTokBusinessError, ConfigurationError)
_MISCONFIGURATION = (AppConfigurationError, ConfigurationError)
_EVER = timedelta(days=36_500)
Attempts = list[tuple[BusinessAccount, Exception | None]]


def one_by_one(
    accounts: Iterable[BusinessAccount], act: Callable[[BusinessAccount], object]
) -> Attempts:
    """Call ``act`` with one account after the other; it returns or raises what went wrong.

    For actions that cannot be undone, such as a disconnect: the first error about the app's
    configuration ends the run, and so do an outage of TikTok and LONGEST_SECONDS. The accounts
    that were not tried are missing in the result.
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
        is_hopeless = outage.is_open or isinstance(error, _MISCONFIGURATION)
        if is_hopeless or time.monotonic() > ends_at:
            break
    return attempts


def refresh_tokens(
    accounts: Iterable[BusinessAccount], *, within: timedelta = _EVER
) -> RefreshReport:
    """Run `services.refresh_due_accounts` for at most LONGEST_SECONDS, ignoring back-off.

    A web server that kills a slow request could kill it between TikTok's response and its storage.
    """
    stop = threading.Event()
    timer = threading.Timer(LONGEST_SECONDS, stop.set)
    timer.daemon = True
    timer.start()
    try:
        return refresh_due_accounts(
            accounts=accounts, within=within, ignore_backoff=True, stop=stop
        )
    finally:
        timer.cancel()


def sync_profiles(accounts: Sequence[BusinessAccount]) -> Attempts:
    """Sync many profiles as `services.sync_profile` does: first the tokens, then the profiles.

    The accounts that were not tried, because TikTok is down or time ran out, are missing in the
    result.
    """
    ends_at = time.monotonic() + LONGEST_SECONDS
    refresh_tokens(accounts, within=timedelta(seconds=conf.REFRESH_MARGIN_SECONDS))
    attempts = one_by_one(accounts, get_access_token)
    results: dict[int, Exception | None] = {
        account.pk: error for account, error in attempts if error is not None
    }
    ready = [account for account, error in attempts if error is None]

    def keep_result(account: BusinessAccount, error: Exception | None) -> None:
        results[account.pk] = error

    with CallPool(conf.REFRESH_CONCURRENCY, limiter_from_settings()) as calls:
        profile.sync_all(
            ready,
            calls,
            router.db_for_write(BusinessAccount),
            ahead_seconds=BATCH,
            may_go_on=lambda: time.monotonic() < ends_at,
            on_result=keep_result,
        )
    # Rejected although the token has not expired: tried with a new one, as for a single account.
    rejected = [
        account
        for account in ready
        if isinstance(results.get(account.pk), AccessTokenRejectedError)
    ]
    results.update((account.pk, error) for account, error in one_by_one(rejected, sync_profile))
    return [(account, results[account.pk]) for account in accounts if account.pk in results]
