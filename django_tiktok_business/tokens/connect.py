"""Exchange an authorization code and store the grant: a new account, or one connected again.

The answer to a code may cross others on its way, and TikTok may end the pair of one grant when it
issues the next. So the pair that arrives last need not be the one that lives, and only TikTok
knows: where it matters, the pair in the row is renewed, which proves it.
"""

from __future__ import annotations

import logging
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, router, transaction

from django_tiktok_business import cache, events, signals
from django_tiktok_business.api.factory import client_from_settings
from django_tiktok_business.api.oauth import OAuth
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
from django_tiktok_business.events import announce
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountOwnedByAnotherUserError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.interrupts import defer_signals
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.columns import NO_CLAIM
from django_tiktok_business.notices.send import deferred, send_due

from . import refresh
from .rows import credential_changes, reload

if TYPE_CHECKING:
    from datetime import datetime

    from django_tiktok_business.api.oauth import TokenGrant
    from django_tiktok_business.masking import Secret
    from django_tiktok_business.models import BusinessAccountQuerySet


__all__ = ["connect"]

logger = logging.getLogger("tiktok_business")

CHECKS_PER_MINUTE = 20  # half of the calls that TikTok allows for one account and endpoint


class _SupersededError(TikTokBusinessError):
    """The row was given another pair while the code was exchanged."""

    def __init__(self, account: BusinessAccount) -> None:
        super().__init__("The account was connected or refreshed at the same time.")
        self.account = account


def connect(user: Any, *, code: Secret, redirect_uri: str) -> BusinessAccount:
    """See `services.connect_account`."""
    # A key that is missing or unusable has to show before the code is used up.
    BusinessAccount(app_id=conf.APP_ID, open_id="trial").encrypt("access_token", "trial")
    using = router.db_for_write(BusinessAccount)
    # A row that the caller's own transaction has locked stays so for as long as we wait.
    is_patient = not is_in_transaction(using)
    if is_patient:
        clock.synchronize(using)
    with defer_signals(), closing(client_from_settings()) as client:
        sent_at = clock.instant()
        grant = OAuth(client).exchange_code(code, redirect_uri=redirect_uri)

        def store(**known: Any) -> BusinessAccount:
            consent = _NewGrant(user, grant, using, **known)
            try:
                return commit_independently(
                    lambda: _store(consent, is_patient=is_patient),
                    using,
                    patience_seconds=SHORT_PATIENCE_SECONDS,
                )
            except BaseException:
                if not consent.versions_seen:  # no connection but the caller's, or no thread
                    consent.store_later()
                raise

        with deferred() as rejected:  # nobody is told of a pair that is replaced at once
            try:
                account = store(sent_at=sent_at)
            except _SupersededError as crossed:
                try:
                    account = _renewed(crossed.account, using) or store()
                except ReauthorizationRequired:
                    account = store()
            except AccountOwnedByAnotherUserError:
                owned = BusinessAccount.objects.using(using).active()
                named = owned.filter(app_id=conf.APP_ID, open_id=grant.open_id)
                for found in retry_while_unavailable(lambda: list(named), using):
                    try:
                        _renewed(found, using)
                    except ReauthorizationRequired:
                        with suppress(AccountOwnedByAnotherUserError):
                            store(lost_version=found.credentials_version)
                raise
        send_due(BusinessAccount.objects.using(using).filter(pk__in=rejected))
        return account


def _renewed(account: BusinessAccount, using: str) -> BusinessAccount | None:
    """The row with a new pair, which proves that TikTok knew the old one; an access token does not,
    since it may outlive the refresh token that it came with.

    None when TikTok did not say, or was asked too often. Raises `ReauthorizationRequired` when it
    rejects the pair.
    """
    if not cache.allow("check", f"{account.app_id} {account.open_id}", CHECKS_PER_MINUTE):
        return None
    version: int = account.credentials_version

    def renew() -> BusinessAccount:
        with deferred():  # in a thread of its own, too
            return refresh.refresh_once(
                account.pk, using, is_fresh_enough=lambda row: row.credentials_version > version
            )

    try:
        return commit_independently(renew, using)
    except ReauthorizationRequired as error:
        if error.code is not None:
            raise
    except Exception as error:  # noqa: BLE001 -- whatever it is, the new pair waits to be stored
        logger.warning("%s could not be renewed: %s", account.open_id, type(error).__name__)
    return None


def _store(consent: _NewGrant, *, is_patient: bool) -> BusinessAccount:
    using = consent.using
    patience_seconds = SAVE_PATIENCE_SECONDS if is_patient else 0
    try:
        account = store_answer(consent.store, using, patience_seconds=patience_seconds)
    except TikTokBusinessError:
        raise
    except BaseException:  # Ctrl-C and the time limits of workers too
        consent.store_later()
        raise
    if is_in_transaction(using):
        consent.store_later()
    consent.tell(account)
    return account


class _NewGrant:
    """What a new consent gave, on its way into the account's row.

    ``sent_at``: a row that got another pair since raises `_CrossedError`. ``lost_version``: an
    account that another user owns is renewed for that user, if its tokens are still of this
    version; otherwise raises `AccountOwnedByAnotherUserError`.
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
            # A new consent starts a new year, also when TikTok does not say so.
            "refresh_token_expires_at": grant.refresh_token_expires_at,
            "connected_at": now,
            "last_refreshed_at": now,
            **NO_CLAIM,  # a refresh in flight stands down
        }
        self.versions_seen: list[int | None] = []  # of the pair in the row; None: there was no row
        self.is_for_later = False
        self.is_new = False
        self.scopes_before: list[str] | None = None

    def store(self) -> BusinessAccount:
        """Raises `AccountBusyError` when others change the row or its owner all the time."""
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
        """Store it unless that has happened, or something newer is there."""
        for _ in range(3):
            known = self._look()
            if self.versions_seen[-1] != self.versions_seen[0]:
                return
            try:
                account = self._try(known)
            except _SupersededError:  # the database was away since, and others could store theirs
                return
            if account is not None:
                self.tell(account)
                return
        raise AccountBusyError("The account is being connected or changed by somebody else.")

    def tell(self, account: BusinessAccount) -> None:
        logger.info("Account %s is connected.", account.open_id)
        kind = events.Kind.CONNECTED if self.is_new else events.Kind.RECONNECTED
        announce(
            signals.account_connected,
            account,
            self.using,
            kind=kind,
            scopes_before=self.scopes_before,
            created=self.is_new,
        )

    def _look(self) -> BusinessAccount | None:
        known = self.rows.filter(**self.identity).first()
        self.versions_seen.append(None if known is None else known.credentials_version)
        return known

    def _try(self, known: BusinessAccount | None) -> BusinessAccount | None:
        """The stored account; None when the row has changed since it was looked at."""
        self.is_new = known is None
        if known is None:
            values = {**self.identity, **self.changes, "credentials_version": 1}
            # In bulk, because no receiver of post_save may take the row with it when it raises.
            # IntegrityError: another request connects the same account.
            with (
                suppress(IntegrityError),
                lock_timeout(self.using),
                transaction.atomic(using=self.using),
            ):
                self.rows.bulk_create([BusinessAccount(**values, owner_id=self.user.pk)])
                return self.rows.get(**self.identity)  # MySQL tells no primary keys
            return None
        is_lost = known.credentials_version == self.lost_version
        may_renew = known.owner_id in (None, self.user.pk) or is_lost
        if not may_renew and not self.user.has_perm("tiktok_business.change_businessaccount"):
            raise AccountOwnedByAnotherUserError("Another user has connected this account.")
        if self._has_crossed(known):
            raise _SupersededError(known)
        self.scopes_before = known.granted_scopes
        as_seen = self.rows.filter(
            pk=known.pk, owner=known.owner_id, credentials_version=known.credentials_version
        )
        try:
            with lock_timeout(self.using):
                is_updated = as_seen.update(**self.changes, owner=known.owner_id or self.owner_id)
        except IntegrityError:  # the user was deleted meanwhile, so nobody's stays nobody's
            is_updated, self.owner_id = 0, None
        return known if is_updated and reload(known, self.using) else None

    def _has_crossed(self, known: BusinessAccount) -> bool:
        if self.sent_at is None or known.status != known.Status.ACTIVE:
            return False
        stored_at = known.last_refreshed_at
        return stored_at is not None and stored_at >= self.sent_at
