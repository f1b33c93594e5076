"""Exchange an authorization code and store the grant, for a new account or one connected again.

Two grants for one account can cross on their way, and TikTok may end the tokens of one grant when
it issues the next. So the pair that arrives last need not be the valid one, and only TikTok knows
which is. Where it matters, the pair in the row is refreshed, which proves that it is valid.
"""

from __future__ import annotations

import logging
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

from django.db import IntegrityError, router, transaction

from django_tiktok_business import cache, events, signals
from django_tiktok_business.api.factory import client_from_settings
from django_tiktok_business.api.oauth import OAuth, TokenGrant
from django_tiktok_business.conf import conf
from django_tiktok_business.db import clock
from django_tiktok_business.db.vendors import lock_timeout
from django_tiktok_business.db.writes import (
    SAVE_PATIENCE_SECONDS,
    SHORT_PATIENCE_SECONDS,
    commit_independently,
    is_in_transaction,
    retry_while_unavailable,
    save_later,
    store_answer,
)
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountOwnedByAnotherUserError,
    ReauthorizationRequired,
    RejectionUnconfirmedError,
    TikTokBusinessError,
)
from django_tiktok_business.interrupts import defer_signals
from django_tiktok_business.masking import Secret
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet
from django_tiktok_business.models.columns import NO_CLAIM
from django_tiktok_business.notices.send import deferred, send_due

from . import refresh
from .rows import credential_changes, reload

logger = logging.getLogger("tiktok_business")

# One is proof enough here: a new pair is at hand.
_REJECTIONS = (ReauthorizationRequired, RejectionUnconfirmedError)
CHECKS_PER_MINUTE = 20  # half of the calls that TikTok allows for one account and endpoint


class _SupersededError(TikTokBusinessError):
    """The row has received another pair since the code was sent."""

    def __init__(self, account: BusinessAccount) -> None:
        super().__init__("The account was connected or refreshed at the same time.")
        self.account = account


def connect(user: Any, *, code: Secret, redirect_uri: str) -> BusinessAccount:
    """See `services.connect_account`."""
    # Raise for a missing or unusable key before the code is used up.
    BusinessAccount(app_id=conf.APP_ID, open_id="trial").encrypt("access_token", "trial")
    using = router.db_for_write(BusinessAccount)
    # Waiting for a row that the caller's own transaction has locked would be in vain.
    may_wait = not is_in_transaction(using)
    if may_wait:
        clock.synchronize(using)
    with defer_signals(), closing(client_from_settings()) as client:
        sent_at = clock.instant()
        grant = OAuth(client).exchange_code(code, redirect_uri=redirect_uri)

        def store(**known: Any) -> BusinessAccount:
            new_grant = _NewGrant(user, grant, using, **known)
            try:
                return commit_independently(
                    lambda: _store(new_grant, may_wait=may_wait),
                    using,
                    patience_seconds=SHORT_PATIENCE_SECONDS,
                )
            except BaseException:
                if not new_grant.versions_seen:  # no second connection or thread could be had
                    new_grant.store_later()
                raise

        with deferred() as rejected:  # send no notice about a pair that is replaced at once
            try:
                account = store(sent_at=sent_at)
            except _SupersededError as superseded:
                try:
                    account = _prove(superseded.account, using) or store()
                except _REJECTIONS:
                    account = store()
            except AccountOwnedByAnotherUserError:
                # The refused grant may have ended the owner's tokens: store it for the owner then.
                active = BusinessAccount.objects.using(using).active()
                rows = active.filter(app_id=conf.APP_ID, open_id=grant.open_id)
                for found in retry_while_unavailable(lambda: list(rows), using):
                    try:
                        _prove(found, using)
                    except _REJECTIONS:
                        with suppress(AccountOwnedByAnotherUserError):
                            store(lost_version=found.credentials_version)
                raise
        send_due(BusinessAccount.objects.using(using).filter(pk__in=rejected))
        return account


def _prove(account: BusinessAccount, using: str) -> BusinessAccount | None:
    """Prove that the pair in the row is valid by refreshing it; return the refreshed row.

    An access token that TikTok accepts proves nothing: it may outlive its refresh token.

    Returns None when TikTok did not answer, or was asked too often. Raises
    `ReauthorizationRequired` or `RejectionUnconfirmedError` when TikTok rejects the pair.
    """
    if not cache.allow("check", f"{account.app_id} {account.open_id}", CHECKS_PER_MINUTE):
        return None
    version: int = account.credentials_version

    def refresh_row() -> BusinessAccount:
        with deferred():  # per thread, and this may run in a thread of its own
            return refresh.refresh_once(
                account.pk, using, is_fresh_enough=lambda row: row.credentials_version > version
            )

    try:
        return commit_independently(refresh_row, using)
    except _REJECTIONS as error:
        if error.code is not None:
            raise
    except Exception as error:  # noqa: BLE001 -- in any case the new pair has to be stored
        logger.warning(
            "Account %s could not be refreshed: %s", account.open_id, type(error).__name__
        )
    return None


def _store(new_grant: _NewGrant, *, may_wait: bool) -> BusinessAccount:
    using = new_grant.using
    patience_seconds = SAVE_PATIENCE_SECONDS if may_wait else 0
    try:
        account = store_answer(new_grant.store, using, patience_seconds=patience_seconds)
    except TikTokBusinessError:
        raise
    except BaseException:  # Ctrl-C and the time limits of workers too
        new_grant.store_later()
        raise
    if is_in_transaction(using):
        new_grant.store_later()
    new_grant.announce(account)
    return account


class _NewGrant:
    """A grant that TikTok has just issued, on its way into the account's row.

    ``sent_at``: storing it raises `_SupersededError` if the row has received another pair since.

    ``lost_version``: store it for the user who owns the account, if the row still holds the pair of
    this version, which TikTok has rejected. Storing it for any other account of another user
    raises `AccountOwnedByAnotherUserError`.
    """

    def __init__(
        self,
        user: Any,
        grant: TokenGrant,
        using: str,
        *,
        sent_at: datetime | None = None,
        lost_version: int | None = None,
    ) -> None:
        self.user = user
        self.owner_id: Any = user.pk
        self.sent_at = sent_at
        self.lost_version = lost_version
        self.using = using
        self.rows: BusinessAccountQuerySet = BusinessAccount.objects.using(using)
        self.identity = {"app_id": conf.APP_ID, "open_id": grant.open_id}
        now = clock.instant()
        self.changes = {
            **credential_changes(BusinessAccount(**self.identity), grant),
            # A new consent starts a new year, even when TikTok does not say when it ends.
            "refresh_token_expires_at": grant.refresh_token_expires_at,
            "connected_at": now,
            "last_refreshed_at": now,
            **NO_CLAIM,  # a refresh in flight then drops its answer
        }
        # The credentials_version of each look at the row; None: there was no row.
        self.versions_seen: list[int | None] = []
        self.is_for_later = False
        self.is_new = False
        self.scopes_before: list[str] | None = None

    def store(self) -> BusinessAccount:
        """Store the grant and return the account.

        Raises `AccountBusyError` when others change the row or its owner each time.
        """
        for _ in range(3):
            account = self._try(self._look())
            if account is not None:
                return account
        raise AccountBusyError("The account is being connected or changed by somebody else.")

    def store_later(self) -> None:
        if not self.is_for_later:
            self.is_for_later = True
            save_later(self.store_after_all, self.using)

    def store_after_all(self) -> None:
        """Store the grant unless the row holds it, or a newer one, by now."""
        for _ in range(3):
            known = self._look()
            if self.versions_seen[-1] != self.versions_seen[0]:
                return
            try:
                account = self._try(known)
            except _SupersededError:  # while the database was away here, another worker stored one
                return
            if account is not None:
                self.announce(account)
                return
        raise AccountBusyError("The account is being connected or changed by somebody else.")

    def announce(self, account: BusinessAccount) -> None:
        logger.info("Account %s is connected.", account.open_id)
        events.announce(
            signals.account_connected,
            account,
            self.using,
            kind=events.Kind.CONNECTED if self.is_new else events.Kind.RECONNECTED,
            scopes_before=self.scopes_before,
            created=self.is_new,
        )

    def _look(self) -> BusinessAccount | None:
        known = self.rows.filter(**self.identity).first()
        self.versions_seen.append(None if known is None else known.credentials_version)
        return known

    def _try(self, known: BusinessAccount | None) -> BusinessAccount | None:
        """Store the grant in a row that was ``known``; None when the row has changed since."""
        self.is_new = known is None
        if known is None:
            values = {**self.identity, **self.changes, "credentials_version": 1}
            # bulk_create() sends no post_save, whose receivers could raise and undo the insert.
            # IntegrityError: another request has just inserted the same account.
            with (
                suppress(IntegrityError),
                lock_timeout(self.using),
                transaction.atomic(using=self.using),
            ):
                self.rows.bulk_create([BusinessAccount(**values, owner_id=self.user.pk)])
                return self.rows.get(**self.identity)  # MySQL returns no primary keys
            return None
        is_lost = known.credentials_version == self.lost_version
        may_renew = known.owner_id in (None, self.user.pk) or is_lost
        if not may_renew and not self.user.has_perm("tiktok_business.change_businessaccount"):
            raise AccountOwnedByAnotherUserError("Another user has connected this account.")
        if self._is_superseded(known):
            raise _SupersededError(known)
        self.scopes_before = known.granted_scopes
        as_seen = self.rows.filter(
            pk=known.pk, owner=known.owner_id, credentials_version=known.credentials_version
        )
        try:
            with lock_timeout(self.using):
                is_updated = as_seen.update(**self.changes, owner=known.owner_id or self.owner_id)
        except IntegrityError:  # the user has been deleted: store it without an owner next time
            is_updated, self.owner_id = 0, None
        return known if is_updated and reload(known, self.using) else None

    def _is_superseded(self, known: BusinessAccount) -> bool:
        if self.sent_at is None or known.status != known.Status.ACTIVE:
            return False
        stored_at = known.last_refreshed_at
        return stored_at is not None and stored_at >= self.sent_at
