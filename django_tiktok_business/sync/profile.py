"""Ask TikTok for accounts' profiles and store the answers."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.db.models import Q
from django.utils import timezone

from django_tiktok_business import signals
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
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.tokens.pool import Call

from . import metrics

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable, Iterator
    from datetime import datetime

    from django_tiktok_business.api.client import TikTokClient
    from django_tiktok_business.models import BusinessAccountQuerySet
    from django_tiktok_business.tokens.pool import CallPool


__all__ = ["ask", "fields_for", "store", "sync", "sync_refreshed"]

logger = logging.getLogger("tiktok_business")

PAGE_ROWS = 32
OUTAGE_THRESHOLD = 5  # consecutive failures of TikTok itself after which no more are asked for
POLL_SECONDS = 0.1  # how often a run that waits for an answer or a turn looks whether it shall stop

# Asked for when the granted scopes are not known, or when the full list was refused.
BASIC_PROFILE_FIELDS = ("display_name", "profile_image", "username")
_TOTALS = ("followers_count", "following_count", "likes_count", "videos_count")


def fields_for(scopes: Collection[str]) -> list[str]:
    """The fields, by TikTok's names, that these granted scopes let us ask for."""
    fields = [name for name, scope in PROFILE_FIELDS.items() if scope in scopes]
    return fields or list(BASIC_PROFILE_FIELDS)


def ask(account: BusinessAccount, client: TikTokClient) -> dict[str, Any]:
    """Ask for the profile with the token in hand, and return the columns it changes. No database.

    When TikTok refuses, the scopes are asked for afresh and the basic fields tried. What TikTok
    leaves out is not in the answer, so it does not overwrite what is known.
    """
    changes: dict[str, Any] = {}
    access_token = account.access_token
    endpoint = BusinessProfile(client.authorized(access_token), account.open_id)
    try:
        profile = endpoint.profile(fields_for(account.granted_scopes))
    except PermissionDeniedError:
        changes["scopes"] = OAuth(client).token_info(access_token).scopes
        profile = endpoint.profile(BASIC_PROFILE_FIELDS)
    # An empty bio is what somebody has who never wrote or has removed it; any other text that is
    # empty is missing.
    told = {
        name: value
        for name, value in vars(profile).items()
        if value is not None and (value != "" or name == "bio")
    }
    return {**changes, **told}


def store(account: BusinessAccount, changes: dict[str, Any], using: str) -> None:
    """Write what `ask` has returned into the row and ``account``, and send ``profile_synced``.

    The totals are also kept as those of the day, where the account's insights are granted.
    """
    now = timezone.now()
    changes = {**changes, "profile_synced_at": now, "updated_at": now}
    if not BusinessAccount.objects.using(using).filter(pk=account.pk).update(**changes):
        raise AccountGoneError("The account was deleted while its profile was asked for.")
    scopes_before = account.granted_scopes
    account.set_stored(**changes)
    if metrics.SCOPE in account.granted_scopes:
        totals = {name: changes[name] for name in _TOTALS if name in changes}
        metrics.keep(account, {now.astimezone(UTC).date(): totals} if totals else {}, using)
    announce(signals.profile_synced, account, using, kind=None, scopes_before=scopes_before)


def sync_refreshed(
    chosen: BusinessAccountQuerySet,
    calls: CallPool,
    *,
    since: datetime,
    stop: threading.Event,
    ends_at: float,
) -> None:
    """`sync` those of ``chosen`` that were refreshed ``since`` then.

    Ends early when ``stop`` is set and at ``ends_at`` on the monotonic clock. Uses what nobody else
    takes of the ceiling.
    """

    def may_go_on() -> bool:
        return not stop.is_set() and time.monotonic() < ends_at

    sync(_refreshed(chosen, since), calls, chosen.db, ahead_seconds=WHEN_IDLE, may_go_on=may_go_on)


def sync(
    accounts: Iterable[BusinessAccount],
    calls: CallPool,
    using: str,
    *,
    ahead_seconds: float,
    may_go_on: Callable[[], bool] = lambda: True,
    on_result: Callable[[BusinessAccount, TikTokBusinessError | None], object] | None = None,
) -> None:
    """Ask for profiles, and for daily figures where they are due, with the tokens as they stand.

    ``ahead_seconds`` is the rank of these calls under the ceiling (see `ceiling`). Ends early when
    TikTok is evidently down. What fails is logged and changes nothing. ``on_result`` is told what
    became of each profile.
    """
    run = _Run(calls, using, ahead_seconds, may_go_on, on_result)
    for account in accounts:
        for question in (ask, _metrics) if metrics.is_due(account) else (ask,):
            if (at := run.slot()) is None:
                break
            calls.submit(Call(account, at, partial(question, account)))
            run.store_answered(0)
    while calls.in_flight:
        run.store_answered(None)


def _refreshed(chosen: BusinessAccountQuerySet, since: datetime) -> Iterator[BusinessAccount]:
    """In pages, so that memory stays flat and the tokens are those of the moment."""
    # Another worker that refreshed some of them may have synced these already.
    stale = Q(profile_synced_at__isnull=True) | Q(profile_synced_at__lt=since)
    rows = chosen.active().filter(stale, last_refreshed_at__gte=since).order_by("pk")
    return iter(Pages(rows, size=PAGE_ROWS))


def _metrics(account: BusinessAccount, client: TikTokClient) -> AccountMetrics | None:
    """The daily figures; None when they cannot be had, which is no trouble of the profile's."""
    try:
        return metrics.ask(account, client.authorized(account.access_token))
    except TikTokBusinessError as error:
        logger.warning("The figures of %s were not synced: %s", account.open_id, error)
        return None


@dataclass
class _Run:
    """Profiles under way; the arguments are those of `sync`."""

    calls: CallPool
    using: str
    ahead_seconds: float
    may_go_on: Callable[[], bool]
    on_result: Callable[[BusinessAccount, TikTokBusinessError | None], object] | None
    outage: Breaker = field(default_factory=lambda: Breaker(OUTAGE_THRESHOLD))

    def slot(self) -> float | None:
        """When the next call may be made, on the monotonic clock; None when none shall be."""
        limiter = self.calls.limiter
        while not self.outage.is_open and self.may_go_on():
            if self.calls.in_flight < self.calls.concurrency:
                wait_seconds = limiter.reserve(self.ahead_seconds)
                if wait_seconds is not None:
                    return time.monotonic() + wait_seconds
            if self.calls.in_flight:
                self.store_answered(POLL_SECONDS)
            else:
                time.sleep(min(limiter.wait_seconds(self.ahead_seconds), POLL_SECONDS))
        return None

    def store_answered(self, within_seconds: float | None) -> None:
        """Store what is there, after waiting at most that time for an answer; None: for ever."""
        for account, answer in self.calls.answers(within_seconds):
            self.calls.acknowledge()
            if answer is None or isinstance(answer, AccountMetrics):
                _store_metrics(account, answer, self.using)
                continue
            self.outage.record(answer)
            error = _store_profile(account, answer, self.using)
            if self.on_result is not None:
                self.on_result(account, error)


def _store_metrics(account: BusinessAccount, figures: AccountMetrics | None, using: str) -> None:
    if figures is None:
        return
    try:
        metrics.store(account, figures, using)
    except DatabaseError as error:
        logger.warning(
            "The figures of %s were not stored: %s", account.open_id, describe_error(error)
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
