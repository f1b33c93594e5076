"""Connect, refresh, sync and disconnect accounts."""

from __future__ import annotations

import logging
import math
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, router

from django_tiktok_business.api import factory
from django_tiktok_business.conf import conf
from django_tiktok_business.db import writes
from django_tiktok_business.exceptions import (
    TikTokBusinessError,
)
from django_tiktok_business.masking import Secret
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet
from django_tiktok_business.notices.send import deferred, send_due
from django_tiktok_business.sync import metrics
from django_tiktok_business.sync import profile as profile_sync
from django_tiktok_business.tokens import batch, connect, disconnect
from django_tiktok_business.tokens.due import Due
from django_tiktok_business.tokens.pool import CallPool

from .access import database_of
from .client import account_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django_tiktok_business.tokens.report import RefreshReport, RefreshResult


__all__ = [
    "connect_account",
    "disconnect_account",
    "refresh_due_accounts",
    "sync_profile",
]

logger = logging.getLogger("tiktok_business")


def connect_account(user: Any, *, code: str, redirect_uri: str) -> BusinessAccount:
    """Exchange an authorization code and store the account as connected by ``user``.

    ``redirect_uri`` must be the one that the authorization URL had. The profile is not asked for:
    call `sync_profile` afterwards. An account that another user owns raises
    `AccountOwnedByAnotherUserError`, unless ``user`` may change accounts: then its tokens are
    renewed and the owner stays. Sends ``account_connected``.
    """
    code = Secret(code)  # an error report shows the variables' reprs
    return connect.connect(user, code=code, redirect_uri=redirect_uri)


def refresh_due_accounts(
    *,
    within: timedelta | None = None,
    accounts: Iterable[BusinessAccount] | None = None,
    limit: int | None = None,
    concurrency: int | None = None,
    sync_profiles: bool = False,
    on_result: Callable[[RefreshResult], None] | None = None,
    requests_per_minute: int | None = None,
    ignore_backoff: bool = False,
    stop: threading.Event | None = None,
    sync_seconds: float = math.inf,
) -> RefreshReport:
    """Refresh the active accounts whose access tokens expire ``within`` that time.

    ``accounts`` (a queryset or any iterable) narrows the choice, ``limit`` bounds the number of
    accounts tried. Defaults come from the settings. ``on_result`` is called for each account.
    Accounts that kept failing for passing reasons wait for their next attempt, unless
    ``ignore_backoff``. When all tokens are safe, people are told which accounts have to be
    connected again (NOTIFY); then ``sync_profiles`` asks for the profiles of the refreshed
    accounts, until ``sync_seconds`` after the beginning of the run. A mail or a profile that fails
    is logged and changes nothing. Setting ``stop`` ends the run early: calls in flight are
    finished and saved.

    One account's trouble never stops the others. The run stops early when TikTok refuses the app's
    credentials, is evidently down, or goes on to refuse calls for their rate. Inside a transaction
    the run has a thread and a connection of its own, to which ``on_result`` and the receivers of
    signals belong.
    """
    stop = stop or threading.Event()
    using = router.db_for_write(BusinessAccount)
    rows = BusinessAccount.objects.using(using).filter(app_id=conf.APP_ID)
    if isinstance(accounts, BusinessAccountQuerySet) and not (
        accounts.query.is_sliced or accounts.query.combinator
    ):
        # As a subquery: joins give rows twice, and an order of its own would turn ours round.
        rows = rows.filter(pk__in=accounts.using(using).order_by().values("pk"))
    elif accounts is not None:
        rows = rows.filter(pk__in=[account.pk for account in accounts])
    within = timedelta(seconds=conf.REFRESH_WITHIN_SECONDS) if within is None else within
    limiter = factory.limiter_from_settings(requests_per_minute)
    calls = CallPool(concurrency or conf.REFRESH_CONCURRENCY, limiter)
    sync_ends_at = time.monotonic() + sync_seconds

    def run() -> RefreshReport:
        due = Due.now(rows, within, ignores_backoff=ignore_backoff)
        with calls:
            with deferred() as rejected:
                report = batch.refresh_accounts(
                    due, calls, limit=limit, stop=stop, on_result=on_result or (lambda result: None)
                )
            if not stop.is_set():
                send_due(rows, rejected=rejected)
            if sync_profiles and report.stopped is None:
                profile_sync.sync_refreshed(
                    rows,
                    calls,
                    since=due.began_at,
                    stop=stop,
                    ends_at=sync_ends_at,
                )
        return report

    return writes.commit_independently(run, using)


def sync_profile(account: BusinessAccount) -> BusinessAccount:
    """Ask TikTok for the profile and store it; updates ``account``. Sends ``profile_synced``.

    Only fields that the granted scopes allow are asked for. When TikTok refuses all the same, the
    scopes are asked for afresh and the basic fields tried: the account stays connected. What
    TikTok leaves out does not overwrite what is known.

    Once a day, when the account's ``user.insights`` are granted, its daily figures are asked for as
    well and kept as `DailyMetrics`. Trouble with them is logged and changes nothing else.
    """
    using = database_of(account)
    with account_client(account) as client:
        changes = client.with_token(lambda caller: profile_sync.fetch(account, caller))
        profile_sync.store(account, changes, using)
        if metrics.is_due(account):
            try:
                metrics.store(account, metrics.fetch(account, client), using)
            except (TikTokBusinessError, DatabaseError) as error:
                logger.warning("The metrics of %s were not synced: %s", account.open_id, error)
    return account


def disconnect_account(account: BusinessAccount) -> TikTokBusinessError | None:
    """Revoke the grant at TikTok, then clear the tokens and mark the account ``revoked``.

    The tokens are cleared also when TikTok cannot be told; the reason is then returned, None when
    TikTok confirmed. Updates ``account``, sends ``account_disconnected``. Raises `AccountBusyError`
    when the account is connected again meanwhile, and `AccountGoneError`.
    """
    using = database_of(account)
    return writes.commit_independently(lambda: disconnect.disconnect(account, using), using)
