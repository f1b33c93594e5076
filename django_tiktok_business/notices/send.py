"""Notify people, once per cause, that an account has to be connected again, now or soon.

What is due is read from the rows, so nothing is lost with a process, a mail server or a queue
message: what could not be sent is found again by the next run. A sender first wins the right to by
a conditional UPDATE or an INSERT. Nothing here raises, and nothing comes before a token: a batch
notifies people after all answers are saved.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from smtplib import SMTPDataError, SMTPRecipientsRefused
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from django_tiktok_business import signals
from django_tiktok_business.conf import conf
from django_tiktok_business.db.pages import Pages
from django_tiktok_business.db.vendors import lock_timeout
from django_tiktok_business.db.writes import after_commit
from django_tiktok_business.models import BusinessAccount, Notice

from . import mail

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from django_tiktok_business.models import BusinessAccountQuerySet


__all__ = ["deferred", "send_due"]

logger = logging.getLogger("tiktok_business")

Kind = Notice.Kind
PAGE_ROWS = 100
LONGEST_SECONDS = 60  # that a run spends on telling; the rest is due the next time
OUTAGE_THRESHOLD = 3  # failures in a row after which a run tries no more

# Longer than the longest dialogue with a mail server: a process that dies in it frees the notice.
CLAIM = timedelta(minutes=10)
_ABOUT_THE_MESSAGE = (SMTPDataError, SMTPRecipientsRefused)

# What has failed lets others go first, so that one address cannot keep all of them waiting.
PAUSE_AFTER_FAILURE = timedelta(hours=1)

# A verdict that is older is no news: whoever sets NOTIFY is not told of the accounts of years.
NEWS = timedelta(days=7)


class _Deferred(threading.local):
    """The accounts that a batch of this thread has seen rejected; None outside of `held_back`."""

    pks: list[int] | None = None


_deferred = _Deferred()


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Tell nobody inside the block; gives the accounts that were rejected in it."""
    if _deferred.pks is not None:  # a receiver of a signal refreshes others
        yield _deferred.pks
        return
    rejected = _deferred.pks = list[int]()
    try:
        yield rejected
    finally:
        _deferred.pks = None


def _on_rejection(*, account: BusinessAccount, **kwargs: object) -> None:
    if _deferred.pks is not None:
        _deferred.pks.append(account.pk)
        return
    accounts = BusinessAccount.objects.using(account._state.db)
    send_due(accounts.filter(pk=account.pk))


# Here and not when the app is set up, where models cannot be imported yet: whatever finds out that
# an account is rejected imports this module.
signals.reauthorization_required.connect(_on_rejection, dispatch_uid="tiktok_business.notices")


def send_due(accounts: BusinessAccountQuerySet, *, rejected: Collection[int] = ()) -> None:
    """Tell what is due about ``accounts`` and about those that were just ``rejected``.

    Inside `held_back` it is left to the batch, inside a transaction it waits for the commit.
    """
    if _deferred.pks is None:
        with _harmless():  # to find out about the transaction may take a new connection
            after_commit(partial(_send_due, accounts, rejected), accounts.db)


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 -- tokens were renewed, and that is what counts
        logger.warning("People were not told what is due: %s", type(error).__name__)


def _send_due(accounts: BusinessAccountQuerySet, rejected: Collection[int]) -> None:
    with _harmless():
        run = _Run(accounts.db)
        for kind in _kinds():
            run.tell_all(kind, accounts)
            if rejected:  # they may not be among the chosen any more, such as the active ones
                just_rejected = BusinessAccount.objects.using(accounts.db)
                run.tell_all(kind, just_rejected.filter(pk__in=rejected))


def _kinds() -> list[Kind]:
    """What somebody wants to be told; without receivers and mails there is nothing to do."""
    is_heard = signals.consent_ends_soon.has_listeners(BusinessAccount)
    by_mail = [Kind.REAUTHORIZATION_REQUIRED, Kind.CONSENT_ENDS_SOON] if conf.NOTIFY else []
    return [*([Kind.CONSENT_ENDS_SOON_SIGNAL] if is_heard else []), *by_mail]


def _due(accounts: BusinessAccountQuerySet, kind: Kind) -> BusinessAccountQuerySet:
    now = timezone.now()
    if kind == Kind.REAUTHORIZATION_REQUIRED:
        status = BusinessAccount.Status.REAUTHORIZATION_REQUIRED
        accounts = accounts.filter(status=status, last_error_at__gt=now - NEWS)
        about_the_same = Q(credentials_version=OuterRef("credentials_version"))
    else:
        warning_period = timedelta(days=conf.REAUTHORIZATION_WARNING_DAYS)
        accounts = accounts.active().filter(
            refresh_token_expires_at__gt=now, refresh_token_expires_at__lte=now + warning_period
        )
        consent_at = Coalesce(OuterRef("connected_at"), OuterRef("created_at"))
        about_the_same = Q(consent_at=consent_at)
    known = Notice.objects.filter(about_the_same, account=OuterRef("pk"), kind=kind)
    return accounts.exclude(Exists(known.exclude(told_at=None, claimed_until__lte=now)))


class _Run:
    """One round of telling, as long as it may last."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.ends_at = time.monotonic() + LONGEST_SECONDS
        self.failures = 0  # in a row

    def tell_all(self, kind: Kind, accounts: BusinessAccountQuerySet) -> None:
        due = _due(accounts, kind).order_by("pk").only("pk")
        # First those nobody has tried to notify about: what failed once may fail again.
        tried = Exists(Notice.objects.filter(account=OuterRef("pk"), kind=kind, told_at=None))
        for row in Pages(due.exclude(tried), due.filter(tried), size=PAGE_ROWS):
            if self.failures >= OUTAGE_THRESHOLD or time.monotonic() > self.ends_at:
                return
            # Read afresh: it may have been connected again while others were notified.
            account = _due(accounts.filter(pk=row.pk), kind).select_related("owner").first()
            if account is not None:
                self.tell(kind, account)

    def tell(self, kind: Kind, account: BusinessAccount) -> None:
        try:
            _tell_once(kind, account, self.using)
        except Exception as error:  # noqa: BLE001 -- of any mail backend, template or database
            what = type(error).__name__  # its text may hold addresses
            logger.warning("Nobody was told about %s (%s): %s", account.open_id, kind, what)
            # What is wrong with one address or text says nothing about the others.
            is_outage = isinstance(error, OSError) and not isinstance(error, _ABOUT_THE_MESSAGE)
            self.failures += is_outage
        else:
            self.failures = 0


def _tell_once(kind: Kind, account: BusinessAccount, using: str) -> None:
    claimed_until = timezone.now() + CLAIM
    if not _claim(kind, account, claimed_until, using):
        return
    claim = Notice.objects.using(using).filter(
        account=account.pk, kind=kind, claimed_until=claimed_until
    )
    try:
        _tell(kind, account)
    except Exception:
        claim.update(claimed_until=timezone.now() + PAUSE_AFTER_FAILURE)
        raise
    claim.update(told_at=timezone.now())


def _claim(kind: Kind, account: BusinessAccount, claimed_until: datetime, using: str) -> bool:
    """Win the right to tell; one of those who try does."""
    about: dict[str, Any] = {
        "consent_at": account.connected_at or account.created_at,
        "credentials_version": account.credentials_version,
        "claimed_until": claimed_until,
        "told_at": None,
    }
    key = "consent_at"
    if kind == Kind.REAUTHORIZATION_REQUIRED:
        key = "credentials_version"
    notices = Notice.objects.using(using)
    about_another = ~Q(**{key: about[key]})
    is_free = about_another | Q(told_at=None, claimed_until__lte=timezone.now())
    try:
        with lock_timeout(using):
            if not notices.filter(is_free, account=account.pk, kind=kind).update(**about):
                with transaction.atomic(using=using):
                    notices.create(account=account, kind=kind, **about)
    except IntegrityError:  # somebody else has it, or the account is gone
        return False
    return True


def _tell(kind: Kind, account: BusinessAccount) -> None:
    if kind == Kind.CONSENT_ENDS_SOON_SIGNAL:
        ends_at = account.refresh_token_expires_at
        signals.consent_ends_soon.send_robust(BusinessAccount, account=account, ends_at=ends_at)
    else:
        mail.send(kind, account)
