"""Fetch accounts' profiles from TikTok and store them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.db import DatabaseError
from django.db.models import Q
from django.utils import timezone

from django_tiktok_business import signals
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.api.outage import Breaker
from django_tiktok_business.api.profile import PROFILE_FIELDS, AccountMetrics, BusinessProfile
from django_tiktok_business.api.rate_limit import WHEN_IDLE
from django_tiktok_business.db.pages import Pages
from django_tiktok_business.db.vendors import describe_error
from django_tiktok_business.events import announce
from django_tiktok_business.exceptions import (
    AccountGoneError,
    PermissionDeniedError,
    RetryableError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet
from django_tiktok_business.tokens.pool import Call, CallPool

from . import metrics

logger = logging.getLogger("tiktok_business")

PAGE_ROWS = 32
OUTAGE_THRESHOLD = 5  # a run ends after this many consecutive failures of TikTok itself
POLL_SECONDS = 0.1  # how often a run that waits for an answer or a slot checks whether to stop

# Requested when the granted scopes are unknown, or when TikTok refuses the full list.
BASIC_PROFILE_FIELDS = ("display_name", "profile_image", "username")
_TOTALS = ("followers_count", "following_count", "likes_count", "videos_count")


def fields_for(scopes: Collection[str]) -> list[str]:
    """The fields, by TikTok's names, that these granted scopes allow."""
    fields = [name for name, scope in PROFILE_FIELDS.items() if scope in scopes]
    return fields or list(BASIC_PROFILE_FIELDS)


def fetch(account: BusinessAccount, client: TikTokClient) -> dict[str, Any]:
    """Fetch the profile with the access token as it is, and return the columns to change.

    Does not touch the database. When TikTok refuses the fields, this fetches the granted scopes and
    then the basic fields. A field that TikTok leaves out changes no column, so it does not
    overwrite the stored value.
    """
    changes: dict[str, Any] = {}
    access_token = account.access_token
    endpoint = BusinessProfile(client.authorized(access_token), account.open_id)
    try:
        profile = endpoint.profile(fields_for(account.granted_scopes))
    except PermissionDeniedError:
        changes["scopes"] = OAuth(client).token_info(access_token).scopes
        profile = endpoint.profile(BASIC_PROFILE_FIELDS)
    # A bio can be empty; any other text that is empty is missing.
    present = {
        name: value
        for name, value in vars(profile).items()
        if value is not None and (value != "" or name == "bio")
    }
    return {**changes, **present}


def store(account: BusinessAccount, changes: dict[str, Any], using: str) -> None:
    """Store what `fetch` returned in the row and in ``account``, and send ``profile_synced``.

    Where the account's metrics are granted, the totals are stored as today's metrics too.
    """
    now = timezone.now()
    changes = {**changes, "profile_synced_at": now, "updated_at": now}
    if not BusinessAccount.objects.using(using).filter(pk=account.pk).update(**changes):
        raise AccountGoneError("The account was deleted while its profile was asked for.")
    scopes_before = account.granted_scopes
    account.set_stored(**changes)
    if metrics.SCOPE in account.granted_scopes:
        totals = {name: changes[name] for name in _TOTALS if name in changes}
        today = now.astimezone(UTC).date()
        metrics.store_days(account, {today: totals} if totals else {}, using)
    announce(signals.profile_synced, account, using, kind=None, scopes_before=scopes_before)


def sync_refreshed(
    chosen: BusinessAccountQuerySet,
    calls: CallPool,
    *,
    since: datetime,
    stop: threading.Event,
    ends_at: float,
) -> None:
    """Sync the profiles of those of ``chosen`` that were refreshed ``since`` then.

    Ends early when ``stop`` is set, and at ``ends_at`` on the monotonic clock. Uses only slots of
    the rate limiter that no other call needs.
    """

    def may_go_on() -> bool:
        return not stop.is_set() and time.monotonic() < ends_at

    sync_all(
        _refreshed(chosen, since), calls, chosen.db, ahead_seconds=WHEN_IDLE, may_go_on=may_go_on
    )


def sync_all(
    accounts: Iterable[BusinessAccount],
    calls: CallPool,
    using: str,
    *,
    ahead_seconds: float,
    may_go_on: Callable[[], bool] = lambda: True,
    on_result: Callable[[BusinessAccount, TikTokBusinessError | None], object] | None = None,
) -> None:
    """Sync profiles, and daily metrics where they are due, with the access tokens as they are.

    ``ahead_seconds`` is the priority of the calls (see `rate_limit`). Ends early when TikTok is
    evidently down. Failures are logged and change nothing. ``on_result`` is called with the result
    of each profile.
    """
    run = _SyncRun(calls, using, ahead_seconds, may_go_on, on_result)
    for account in accounts:
        for request in (fetch, _fetch_metrics) if metrics.is_due(account) else (fetch,):
            if (at := run.next_slot()) is None:
                break
            calls.submit(Call(account, at, partial(request, account)))
            run.store_answers(0)
    while calls.in_flight:
        run.store_answers(None)


def _refreshed(chosen: BusinessAccountQuerySet, since: datetime) -> Iterator[BusinessAccount]:
    """The accounts in pages, so that memory use is constant and the tokens are current."""
    # Another worker may have refreshed and synced some of them.
    stale = Q(profile_synced_at__isnull=True) | Q(profile_synced_at__lt=since)
    rows = chosen.active().filter(stale, last_refreshed_at__gte=since).order_by("pk")
    return iter(Pages(rows, size=PAGE_ROWS))


def _fetch_metrics(account: BusinessAccount, client: TikTokClient) -> AccountMetrics | None:
    """Fetch the daily metrics; None after a failure, which does not concern the profile."""
    try:
        return metrics.fetch(account, client.authorized(account.access_token))
    except TikTokBusinessError as error:
        logger.warning("The metrics of %s were not synced: %s", account.open_id, error)
        return None


@dataclass
class _SyncRun:
    """A run of `sync_all`, with its arguments."""

    calls: CallPool
    using: str
    ahead_seconds: float
    may_go_on: Callable[[], bool]
    on_result: Callable[[BusinessAccount, TikTokBusinessError | None], object] | None
    outage: Breaker = field(default_factory=lambda: Breaker(OUTAGE_THRESHOLD))

    def next_slot(self) -> float | None:
        """When to make the next call, on the monotonic clock; None when the run has to end."""
        limiter = self.calls.limiter
        while not self.outage.is_open and self.may_go_on():
            if self.calls.in_flight < self.calls.concurrency:
                wait_seconds = limiter.reserve(self.ahead_seconds)
                if wait_seconds is not None:
                    return time.monotonic() + wait_seconds
            if self.calls.in_flight:
                self.store_answers(POLL_SECONDS)
            else:
                time.sleep(min(limiter.wait_seconds(self.ahead_seconds), POLL_SECONDS))
        return None

    def store_answers(self, within_seconds: float | None) -> None:
        """Store the answers that have arrived, after waiting at most this long for the first.

        None: as long as it takes.
        """
        for account, answer in self.calls.answers(within_seconds):
            self.calls.acknowledge()
            if answer is None or isinstance(answer, AccountMetrics):
                _store_metrics(account, answer, self.using)
                continue
            self.outage.record(answer)
            error = _store_profile(account, answer, self.using)
            if self.on_result is not None:
                self.on_result(account, error)


def _store_metrics(account: BusinessAccount, fetched: AccountMetrics | None, using: str) -> None:
    if fetched is None:
        return
    try:
        metrics.store(account, fetched, using)
    except DatabaseError as error:
        logger.warning(
            "The metrics of %s were not stored: %s", account.open_id, describe_error(error)
        )


def _store_profile(account: BusinessAccount, answer: Any, using: str) -> TikTokBusinessError | None:
    try:
        if isinstance(answer, BaseException):
            raise answer
        store(account, answer, using)
    except TikTokBusinessError as error:
        logger.warning("The profile of %s was not synced: %s", account.open_id, error)
        return error
    except DatabaseError as error:
        logger.warning(
            "The profile of %s was not stored: %s", account.open_id, describe_error(error)
        )
        return RetryableError(describe_error(error))
    return None
