"""What a site does with its TikTok Business accounts: connect, use, renew, disconnect.

Everything here commits what TikTok has issued on its own: a transaction of the caller that is
rolled back afterwards does not take a token pair with it. Errors are those of
`django_tiktok_business.exceptions`; a wrong setting raises `ConfigurationError`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from django.db import DatabaseError, router
from django.utils import timezone

from . import (
    batch,
    clock,
    conf,
    consents,
    durable,
    events,
    insights,
    notices,
    profiles,
    refresh,
    settlement,
    signals,
)
from .answers import Insights, Profile, TokenInfo
from .batch import RefreshReport, RefreshResult
from .calls import Calls
from .due import Due
from .exceptions import (
    AccessTokenRejectedError,
    AccountBusyError,
    AccountGoneError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from .masking import Secret
from .models import BusinessAccount, BusinessAccountQuerySet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "AccountClient",
    "RefreshReport",
    "RefreshResult",
    "account_client",
    "connect_account",
    "disconnect_account",
    "get_access_token",
    "refresh_account",
    "refresh_due_accounts",
    "sync_profile",
]

T = TypeVar("T")

logger = logging.getLogger("tiktok_business")

ACCESS_TOKEN_LIFETIME_SECONDS = 86400  # "Accounts API - Authorization", 2026-09-02


def connect_account(user: Any, *, code: str, redirect_uri: str) -> BusinessAccount:
    """Exchange an authorization code and store the account as connected by ``user``.

    ``redirect_uri`` must be the one that the authorization URL had. The profile is not asked for:
    call `sync_profile` afterwards. An account that another user owns raises
    `AccountOwnedByAnotherUserError`, unless ``user`` may change accounts: then its tokens are
    renewed and the owner stays. Sends ``account_connected``.
    """
    code = Secret(code)  # an error report shows the variables' reprs
    return consents.connect(user, code=code, redirect_uri=redirect_uri)


def get_access_token(account: BusinessAccount, *, min_validity_seconds: float | None = None) -> str:
    """Return an access token that is valid for at least ``min_validity_seconds`` more.

    Default: REFRESH_MARGIN_SECONDS. With a good token in hand this takes no query and no call.
    Otherwise the account is refreshed, once across all threads and processes: the others wait for
    the result, and ``account`` is updated in place.

    Raises `ReauthorizationRequired` when only the account holder can help, a `RetryableError` when
    it may work later, `DecryptionError`, and ValueError for a validity that no token has.
    """
    seconds = conf.REFRESH_MARGIN_SECONDS if min_validity_seconds is None else min_validity_seconds
    if not 0 <= seconds < ACCESS_TOKEN_LIFETIME_SECONDS:
        raise ValueError(
            f"min_validity_seconds must be at least 0 and below {ACCESS_TOKEN_LIFETIME_SECONDS}, "
            "the lifetime of TikTok's access tokens."
        )
    # What is in hand decides only when it is good: another worker may have renewed the row since.
    if account.status == BusinessAccount.Status.ACTIVE:
        expires_at = account.access_token_expires_at
        # As is_access_token_valid_for() does, in a third of the time: most calls end here.
        is_in_time = (
            expires_at is not None
            and expires_at.tzinfo is not None
            and expires_at.timestamp() > time.time() + seconds
        )
        token: str = account.access_token if is_in_time else ""
        if token:
            return token
    period = timedelta(seconds=seconds)

    def is_good(row: BusinessAccount) -> bool:
        if row.status == BusinessAccount.Status.REAUTHORIZATION_REQUIRED:
            raise _needs_reauthorization(row)
        is_active = row.status == BusinessAccount.Status.ACTIVE
        return is_active and row.is_access_token_valid_for(period) and bool(row.access_token)

    _refresh(account, is_good=is_good, is_noted=False)  # somebody waits for the token
    if account.status != BusinessAccount.Status.ACTIVE:  # by a receiver, or just now
        raise _needs_reauthorization(account)
    renewed: str = account.access_token
    return renewed


def refresh_account(account: BusinessAccount) -> BusinessAccount:
    """Refresh now, or await the refresh that another worker has under way; updates ``account``.

    Works for an account in ``reauthorization_required`` too: when TikTok accepts its refresh token
    after all, it is active again. Raises as `get_access_token` does.
    """
    return _refresh(account, is_good=lambda row: False)


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
    ceiling = refresh.ceiling_from_settings(requests_per_minute)
    calls = Calls(concurrency or conf.REFRESH_CONCURRENCY, ceiling)
    sync_ends_at = time.monotonic() + sync_seconds

    def run() -> RefreshReport:
        due = Due.now(rows, within, ignores_backoff=ignore_backoff)
        with calls:
            with notices.held_back() as rejected:
                report = batch.refresh_accounts(
                    due, calls, limit=limit, stop=stop, on_result=on_result or (lambda result: None)
                )
            if not stop.is_set():
                notices.send_due(rows, rejected=rejected)
            if sync_profiles and report.stopped is None:
                profiles.sync_refreshed(
                    rows,
                    calls,
                    since=due.began_at,
                    stop=stop,
                    ends_at=sync_ends_at,
                )
        return report

    return durable.committed(run, using)


def sync_profile(account: BusinessAccount) -> BusinessAccount:
    """Ask TikTok for the profile and store it; updates ``account``. Sends ``profile_synced``.

    Only fields that the granted scopes allow are asked for. When TikTok refuses all the same, the
    scopes are asked for afresh and the basic fields tried: the account stays connected. What
    TikTok leaves out does not overwrite what is known.

    Once a day, when the account's ``user.insights`` are granted, its daily figures are asked for as
    well and kept as `DailyMetrics`. Trouble with them is logged and changes nothing else.
    """
    using = _database(account)
    with account_client(account) as client:
        profiles.store(account, client._profile_changes(), using)
        if insights.is_due(account):
            try:
                insights.store(account, client._insights(), using)
            except (TikTokBusinessError, DatabaseError) as error:
                logger.warning("The figures of %s were not synced: %s", account.open_id, error)
    return account


def disconnect_account(account: BusinessAccount) -> TikTokBusinessError | None:
    """Revoke the grant at TikTok, then clear the tokens and mark the account ``revoked``.

    The tokens are cleared also when TikTok cannot be told; the reason is then returned, None when
    TikTok confirmed. Updates ``account``, sends ``account_disconnected``. Raises `AccountBusyError`
    when the account is connected again meanwhile, and `AccountGoneError`.
    """
    using = _database(account)
    rows = BusinessAccount.objects.using(using)

    def clear() -> TikTokBusinessError | None:
        row = rows.filter(pk=account.pk).first()
        if row is None:
            raise AccountGoneError("The account is deleted already.")
        same_consent = rows.filter(pk=row.pk, connected_at=row.connected_at)
        with durable.busy_if_locked(using):  # to know before TikTok is told
            same_consent.update(updated_at=timezone.now())
        error = _revoke(row)
        changes = settlement.disconnect_changes(error)
        if not durable.persisted(lambda: same_consent.update(**changes), using):
            raise AccountBusyError("The account has just been connected again.")
        settlement.reload(row, using)
        _take_over(account, row)
        logger.info("Account %s is disconnected.", account.open_id)
        kind = events.Kind.DISCONNECTED
        settlement.tell(signals.account_disconnected, account, using, kind=kind, error=error)
        return error

    return durable.committed(clear, using)


def _revoke(row: BusinessAccount) -> TikTokBusinessError | None:
    client = refresh.client_from_settings()
    try:
        if row.app_id != conf.APP_ID:
            return ReauthorizationRequired(
                f"The account was connected to app {row.app_id}, not to the configured app."
            )
        if row.access_token:
            client.revoke(row.access_token)
    except TikTokBusinessError as error:
        logger.warning("TikTok did not confirm the end of %s: %s", row.open_id, error)
        return error
    finally:
        client.close()
    return None


def account_client(account: BusinessAccount) -> AccountClient:
    """A client of the Accounts API that acts for ``account``; see `AccountClient`."""
    return AccountClient(account)


class AccountClient:
    """The Accounts API for one account, always with a fresh token.

    A token that TikTok does not accept is renewed and the call repeated once; when the fresh token
    is not accepted either, and TikTok does not know it, the account needs a new consent. Not
    thread-safe. Usable in ``with``.
    """

    def __init__(self, account: BusinessAccount) -> None:
        self.account = account
        clock.synchronize(_database(account))
        self._client = refresh.client_from_settings()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the HTTP connections back."""
        self._client.close()

    def profile(self, *, fields: Iterable[str] | None = None) -> Profile:
        """The account's profile; ``fields`` (TikTok's names) default to what the scopes allow."""
        wanted = list(fields or profiles.fields_for(self.account.granted_scopes))
        return self._with_token(
            lambda token: self._client.profile(token, open_id=self.account.open_id, fields=wanted)
        )

    def _profile_changes(self) -> dict[str, Any]:
        """The account's profile as the columns that it changes; see `sync_profile`."""
        return self._with_token(
            lambda token: profiles.ask(self.account, self._client, access_token=token)
        )

    def _insights(self) -> Insights:
        """The account's daily figures; see `sync_profile`."""
        return self._with_token(
            lambda token: insights.ask(self.account, self._client, access_token=token)
        )

    def token_info(self) -> TokenInfo:
        """Which account and scopes TikTok says the access token has."""
        return self._with_token(self._client.token_info)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call any endpoint of the Accounts API and return the answer's ``data``.

        ``path`` is relative to API_BASE_URL, for example ``"business/video/list/"``. The account's
        ``business_id`` is added. Lists and objects in ``params`` become JSON text. Reads are
        repeated after passing errors; writes only when TikTok cannot have acted on them.
        """
        is_read = method.upper() == "GET"
        business_id = {"business_id": self.account.open_id}
        query = {**business_id, **(params or {})} if is_read else params
        body = None if is_read else {**business_id, **(json or {})}
        return self._with_token(
            lambda token: self._client.request(
                method, path, access_token=token, query=query, body=body
            )
        )

    def _with_token(self, call: Callable[[str], T]) -> T:
        token = get_access_token(self.account)
        try:
            return call(token)
        except AccessTokenRejectedError:
            rejected_version = self.account.credentials_version
        # Another worker may have renewed the tokens since this account was loaded.
        _refresh(
            self.account,
            is_good=lambda row: row.credentials_version > rejected_version,
        )
        try:
            return call(self.account.access_token)
        except AccessTokenRejectedError as error:
            if self._is_token_accepted():
                raise  # nothing is wrong with the connection: the endpoint is not for such tokens
            raise settlement.rejected(self.account, error, _database(self.account)) from None

    def _is_token_accepted(self) -> bool:
        """Whether TikTok knows the token; True also when that cannot be found out."""
        try:
            self._client.token_info(self.account.access_token)
        except AccessTokenRejectedError:
            return False
        except TikTokBusinessError:
            return True
        return True


def _refresh(
    account: BusinessAccount, *, is_good: Callable[[BusinessAccount], bool], is_noted: bool = True
) -> BusinessAccount:
    using = _database(account)
    row = durable.committed(
        lambda: refresh.refresh_once(account.pk, using, is_good=is_good, is_noted=is_noted), using
    )
    _take_over(account, row)
    return account


# What a refresh, a rejection or a disconnect changes; the caller's other attributes are its own.
_CREDENTIAL_ATTRIBUTES = (
    "access_token",
    "refresh_token",
    "access_token_expires_at",
    "refresh_token_expires_at",
    "scopes",
    "status",
    "last_refreshed_at",
    "last_error_at",
    "last_error_code",
    "last_error_message",
    "last_error_request_id",
    "consecutive_failures",
    "next_attempt_at",
    "claim_id",
    "claim_expires_at",
    "credentials_version",
    "updated_at",
)


def _take_over(account: BusinessAccount, row: BusinessAccount) -> None:
    """Bring the caller's instance up to date; tokens move as ciphertext."""
    for name in _CREDENTIAL_ATTRIBUTES:
        account.__dict__[name] = row.__dict__[name]


def _needs_reauthorization(account: BusinessAccount) -> ReauthorizationRequired:
    if account.status == BusinessAccount.Status.REVOKED:
        return ReauthorizationRequired("The account is disconnected.")
    return ReauthorizationRequired(
        account.last_error_message or "TikTok has rejected the account's tokens.",
        code=account.last_error_code,
        request_id=account.last_error_request_id,
    )


def _database(account: BusinessAccount) -> str:
    # The one that is written to: a replica may still hold tokens that are gone.
    return router.db_for_write(BusinessAccount, instance=account)
