"""Connect and disconnect accounts, refresh their tokens and sync their profiles."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, router

from django_tiktok_business.api.factory import limiter_from_settings
from django_tiktok_business.conf import conf
from django_tiktok_business.db.writes import commit_independently
from django_tiktok_business.exceptions import TikTokBusinessError
from django_tiktok_business.masking import Secret
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet
from django_tiktok_business.notices.send import deferred, send_due
from django_tiktok_business.sync import metrics, profile
from django_tiktok_business.tokens.batch import refresh_accounts
from django_tiktok_business.tokens.connect import connect
from django_tiktok_business.tokens.disconnect import disconnect
from django_tiktok_business.tokens.due import Due
from django_tiktok_business.tokens.pool import CallPool
from django_tiktok_business.tokens.report import RefreshReport, RefreshResult

from .access import database_of
from .client import account_client

logger = logging.getLogger("tiktok_business")


def connect_account(user: Any, *, code: str, redirect_uri: str) -> BusinessAccount:
    """Exchange an authorization code for tokens and store the account, owned by ``user``.

    ``redirect_uri`` must be the one in the authorization URL. The profile is not fetched: call
    `sync_profile` afterwards. Raises `AccountOwnedByAnotherUserError` if another user owns the
    account, unless ``user`` may change accounts: then its tokens are replaced and the owner stays.
    Sends ``account_connected``.
    """
    code = Secret(code)  # an error report shows the reprs of variables
    return connect(user, code=code, redirect_uri=redirect_uri)


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
    """Refresh the active accounts whose access tokens expire ``within`` this time.

    ``accounts`` (a queryset or any iterable) restricts the run to these accounts, and ``limit`` to
    this number. Defaults come from the settings. ``on_result`` is called for each account. Accounts
    that keep failing for temporary reasons wait for their next attempt, unless ``ignore_backoff``.

    Once all tokens are stored, NOTIFY is mailed about the accounts that have to be connected again.
    Then, with ``sync_profiles``, the profiles of the refreshed accounts are synced, until
    ``sync_seconds`` after the start of the run. A mail or a profile that fails is logged and
    changes nothing. Set ``stop`` to end the run early: open calls are finished and stored.

    An account that fails does not stop the others. The run stops early if TikTok rejects the app's
    credentials, is down, or keeps rejecting calls because of their rate. Inside a transaction, the
    run uses a thread and a database connection of its own; ``on_result`` and signal receivers run
    there too.
    """
    stop = stop or threading.Event()
    using = router.db_for_write(BusinessAccount)
    rows = BusinessAccount.objects.using(using).filter(app_id=conf.APP_ID)
    if isinstance(accounts, BusinessAccountQuerySet) and not (
        accounts.query.is_sliced or accounts.query.combinator
    ):
        # A subquery, because joins repeat rows and the queryset's own order would replace ours.
        rows = rows.filter(pk__in=accounts.using(using).order_by().values("pk"))
    elif accounts is not None:
        rows = rows.filter(pk__in=[account.pk for account in accounts])
    within = timedelta(seconds=conf.REFRESH_WITHIN_SECONDS) if within is None else within
    limiter = limiter_from_settings(requests_per_minute)
    calls = CallPool(concurrency or conf.REFRESH_CONCURRENCY, limiter)
    sync_ends_at = time.monotonic() + sync_seconds

    def run() -> RefreshReport:
        due = Due.now(rows, within, ignores_backoff=ignore_backoff)
        with calls:
            with deferred() as rejected:
                report = refresh_accounts(
                    due, calls, limit=limit, stop=stop, on_result=on_result or (lambda result: None)
                )
            if not stop.is_set():
                send_due(rows, rejected=rejected)
            if sync_profiles and report.stopped is None:
                profile.sync_refreshed(
                    rows, calls, since=due.began_at, stop=stop, ends_at=sync_ends_at
                )
        return report

    return commit_independently(run, using)


def sync_profile(account: BusinessAccount) -> BusinessAccount:
    """Fetch the profile from TikTok and store it. Updates ``account``, sends ``profile_synced``.

    Only the fields that the granted scopes allow are requested. If TikTok refuses these too, the
    scopes are fetched again and only the basic fields requested; the account stays connected.
    Fields that TikTok leaves out keep their stored values.

    Once a day, if ``user.insights`` is granted, the account's daily metrics are fetched as well and
    stored as `DailyMetrics`. A failure to do so is logged and changes nothing else.
    """
    using = database_of(account)
    with account_client(account) as client:
        changes = client.with_token(lambda authorized: profile.fetch(account, authorized))
        profile.store(account, changes, using)
        if metrics.is_due(account):
            try:
                metrics.store(account, metrics.fetch(account, client), using)
            except (TikTokBusinessError, DatabaseError) as error:
                logger.warning(
                    "The daily metrics of %s were not synced: %s", account.open_id, error
                )
    return account


def disconnect_account(account: BusinessAccount) -> TikTokBusinessError | None:
    """Revoke the grant at TikTok, then clear the tokens and mark the account ``revoked``.

    Returns None if TikTok confirmed the revocation, or the error that prevented it: the tokens are
    cleared either way. Updates ``account``, sends ``account_disconnected``. Raises
    `AccountBusyError` if the account is connected again meanwhile, and `AccountGoneError`.
    """
    using = database_of(account)
    return commit_independently(lambda: disconnect(account, using), using)
