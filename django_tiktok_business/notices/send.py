"""Notify people, once per cause, that an account has to be connected again, now or soon.

The rows say which notices are due, so none is lost with a process, a mail server or a queue
message: the next run finds the notices that could not be sent. A sender claims a notice first, by a
conditional UPDATE or an INSERT. Nothing here raises, and tokens come first: a batch sends notices
after it has saved all answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from smtplib import SMTPDataError, SMTPRecipientsRefused
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from django_tiktok_business import signals
from django_tiktok_business.conf import conf
from django_tiktok_business.db.pages import Pages
from django_tiktok_business.db.vendors import lock_timeout
from django_tiktok_business.db.writes import after_commit
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet, Notice

from . import mail

logger = logging.getLogger("tiktok_business")

Kind = Notice.Kind
PAGE_ROWS = 100
LONGEST_SECONDS = 60  # that a run spends on notices; the next run sends the rest
OUTAGE_THRESHOLD = 3  # a run ends after this many failures in a row

# Longer than any dialogue with a mail server takes. The claim of a process that dies expires.
CLAIM = timedelta(minutes=10)
_ABOUT_THE_MESSAGE = (SMTPDataError, SMTPRecipientsRefused)

# A notice that failed waits this long, so that one bad address does not delay all others.
PAUSE_AFTER_FAILURE = timedelta(hours=1)

# Older rejections are not reported, so that setting NOTIFY does not send years of notices.
NEWS = timedelta(days=7)


class _Deferred(threading.local):
    """The accounts that were rejected in this thread; None outside of `deferred`."""

    pks: list[int] | None = None


_deferred = _Deferred()


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Send no notices inside the block; yields the accounts that are rejected in it."""
    if _deferred.pks is not None:  # nested: a receiver of a signal refreshes other accounts
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


# Here, because models cannot be imported yet when the app is set up. All code that can reject an
# account imports this module.
signals.reauthorization_required.connect(_on_rejection, dispatch_uid="tiktok_business.notices")


def send_due(accounts: BusinessAccountQuerySet, *, rejected: Collection[int] = ()) -> None:
    """Send the notices that are due about ``accounts`` and about those that were ``rejected``.

    Inside `deferred` this does nothing, inside a transaction it waits for the commit.
    """
    if _deferred.pks is None:
        with _errors_logged():  # finding out about the transaction may need a new connection
            after_commit(partial(_send_due, accounts, rejected), accounts.db)


@contextmanager
def _errors_logged() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 -- the caller has renewed tokens, which matters more
        logger.warning("Notices that are due were not sent: %s", type(error).__name__)


def _send_due(accounts: BusinessAccountQuerySet, rejected: Collection[int]) -> None:
    with _errors_logged():
        run = _Run(accounts.db)
        for kind in _kinds():
            run.notify_all(kind, accounts)
            if rejected:  # a queryset such as active() does not hold them any more
                just_rejected = BusinessAccount.objects.using(accounts.db)
                run.notify_all(kind, just_rejected.filter(pk__in=rejected))


def _kinds() -> list[Kind]:
    """The kinds of notices that somebody receives, by mail or by the signal."""
    is_heard = signals.consent_ends_soon.has_listeners(BusinessAccount)
    by_mail = [Kind.REAUTHORIZATION_REQUIRED, Kind.CONSENT_ENDS_SOON] if conf.NOTIFY else []
    return [*([Kind.CONSENT_ENDS_SOON_SIGNAL] if is_heard else []), *by_mail]


def _due(accounts: BusinessAccountQuerySet, kind: Kind) -> BusinessAccountQuerySet:
    """Those of ``accounts`` about which a notice of this kind is due and not claimed."""
    now = timezone.now()
    if kind == Kind.REAUTHORIZATION_REQUIRED:
        status = BusinessAccount.Status.REAUTHORIZATION_REQUIRED
        accounts = accounts.filter(status=status, last_error_at__gt=now - NEWS)
        same_cause = Q(credentials_version=OuterRef("credentials_version"))
    else:
        warning_period = timedelta(days=conf.REAUTHORIZATION_WARNING_DAYS)
        accounts = accounts.active().filter(
            refresh_token_expires_at__gt=now, refresh_token_expires_at__lte=now + warning_period
        )
        consent_at = Coalesce(OuterRef("connected_at"), OuterRef("created_at"))
        same_cause = Q(consent_at=consent_at)
    known = Notice.objects.filter(same_cause, account=OuterRef("pk"), kind=kind)
    return accounts.exclude(Exists(known.exclude(told_at=None, claimed_until__lte=now)))


class _Run:
    """Send notices until all are sent, the time is up or the mail server seems to be down."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.ends_at = time.monotonic() + LONGEST_SECONDS
        self.failures = 0  # in a row

    def notify_all(self, kind: Kind, accounts: BusinessAccountQuerySet) -> None:
        due = _due(accounts, kind).order_by("pk").only("pk")
        # First those that have not failed yet: a notice that failed once may fail again.
        tried = Exists(Notice.objects.filter(account=OuterRef("pk"), kind=kind, told_at=None))
        for row in Pages(due.exclude(tried), due.filter(tried), size=PAGE_ROWS):
            if self.failures >= OUTAGE_THRESHOLD or time.monotonic() > self.ends_at:
                return
            # Read it again: it may have been connected again while other notices were sent.
            account = _due(accounts.filter(pk=row.pk), kind).select_related("owner").first()
            if account is not None:
                self.notify(kind, account)

    def notify(self, kind: Kind, account: BusinessAccount) -> None:
        try:
            _notify_once(kind, account, self.using)
        except Exception as error:  # noqa: BLE001 -- of any mail backend, template or database
            error_type = type(error).__name__  # the text may hold addresses
            logger.warning(
                "The notice about %s (%s) was not sent: %s", account.open_id, kind, error_type
            )
            # A refused address or text says nothing about the other notices.
            is_outage = isinstance(error, OSError) and not isinstance(error, _ABOUT_THE_MESSAGE)
            self.failures += is_outage
        else:
            self.failures = 0


def _notify_once(kind: Kind, account: BusinessAccount, using: str) -> None:
    claimed_until = timezone.now() + CLAIM
    if not _claim(kind, account, claimed_until, using):
        return
    claim = Notice.objects.using(using).filter(
        account=account.pk, kind=kind, claimed_until=claimed_until
    )
    try:
        _notify(kind, account)
    except Exception:
        claim.update(claimed_until=timezone.now() + PAUSE_AFTER_FAILURE)
        raise
    claim.update(told_at=timezone.now())


def _claim(kind: Kind, account: BusinessAccount, claimed_until: datetime, using: str) -> bool:
    """Claim the notice; of all workers that try, one succeeds."""
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
    except IntegrityError:  # another worker has claimed it, or the account is deleted
        return False
    return True


def _notify(kind: Kind, account: BusinessAccount) -> None:
    if kind == Kind.CONSENT_ENDS_SOON_SIGNAL:
        ends_at = account.refresh_token_expires_at
        signals.consent_ends_soon.send_robust(BusinessAccount, account=account, ends_at=ends_at)
    else:
        mail.send(kind, account)
