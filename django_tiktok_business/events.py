"""Record what happened to an account, and announce it once it is committed.

No trouble with writing an event changes anything but the log. Inside `batched` events wait, so that
a batch writes many with a few statements; a process that is killed loses those that wait, and
nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, IntegrityError, InterfaceError, transaction
from django.db.models import Count, F, Max
from django.utils import timezone

from .conf import conf
from .db import clock
from .db.vendors import lock_timeout
from .db.writes import after_commit, is_in_transaction
from .exceptions import APIError, ConfigurationError
from .models import BusinessAccount, ConnectionEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from django.db.models import QuerySet
    from django.dispatch import Signal

    from .exceptions import TikTokBusinessError


__all__ = ["Kind", "announce", "batched", "record"]

logger = logging.getLogger("tiktok_business")

Kind = ConnectionEvent.Kind
WRITTEN_AT_ONCE = 64

# What happens day after day: once more in a row is no event of its own.
_COUNTED = (Kind.RECONNECTED, Kind.REFRESHED, Kind.FAILED)


@dataclass(frozen=True)
class _Entry:
    account_pk: int
    kind: Kind
    at: datetime = field(default_factory=timezone.now)
    code: int | None = None
    message: str = ""
    request_id: str = ""
    scopes_added: Sequence[str] = ()
    scopes_removed: Sequence[str] = ()

    def continues(self, event: ConnectionEvent) -> bool:
        return self.kind in _COUNTED and (event.kind, event.code) == (self.kind, self.code)

    def event(self) -> ConnectionEvent:
        return ConnectionEvent(
            account_id=self.account_pk,
            kind=self.kind,
            at=self.at,
            last_at=self.at,
            code=self.code,
            message=self.message,
            request_id=self.request_id,
            scopes_added=list(self.scopes_added),
            scopes_removed=list(self.scopes_removed),
        )


class _Waiting(threading.local):
    """What a batch of this thread has not written yet; None outside of `collected`."""

    entries: list[_Entry] | None = None


_waiting = _Waiting()


def record(
    account: BusinessAccount,
    kind: Kind | None,
    using: str,
    *,
    error: TikTokBusinessError | None = None,
    scopes_before: Collection[str] | None = None,
) -> None:
    """Note that this has happened to ``account``; None: nothing but, perhaps, other scopes.

    ``error`` gives the code, words and request id. ``scopes_before``: a change to
    ``account.scopes`` is noted as well, as an event after this one.
    """
    told = error if isinstance(error, APIError) else APIError("" if error is None else str(error))
    entries = []
    if kind is not None:
        now = timezone.now()
        entries.append(_Entry(account.pk, kind, now, told.code, told.message, told.request_id))
    if scopes_before is not None and set(scopes_before) != set(account.granted_scopes):
        entries.append(
            _Entry(
                account.pk,
                Kind.SCOPES_CHANGED,
                scopes_added=sorted(set(account.granted_scopes) - set(scopes_before)),
                scopes_removed=sorted(set(scopes_before) - set(account.granted_scopes)),
            )
        )
    if _waiting.entries is None:
        _write(entries, using)
        return
    _waiting.entries += entries
    if len(_waiting.entries) >= WRITTEN_AT_ONCE:
        _write_waiting(using)


@contextmanager
def batched(using: str, *, without: Collection[Kind] = ()) -> Iterator[None]:
    """Let the events of this thread wait inside the block, and write them by the dozen.

    Those ``without`` are not written at all.
    """
    if _waiting.entries is not None:  # a receiver of a signal refreshes others
        yield
        return
    _waiting.entries = []
    try:
        yield
    finally:
        _waiting.entries = [entry for entry in _waiting.entries if entry.kind not in without]
        _write_waiting(using)
        _waiting.entries = None


def _write_waiting(using: str) -> None:
    entries, _waiting.entries = _waiting.entries or [], []
    _write(entries, using)


def _write(entries: Sequence[_Entry], using: str) -> None:
    try:
        kept, longest = conf.EVENTS_KEPT_PER_ACCOUNT, timedelta(days=conf.EVENTS_KEPT_DAYS)
        if entries and kept:
            _store(entries, kept, longest, using)
    except IntegrityError:  # one of the accounts was deleted meanwhile
        if len(entries) > 1:
            for entry in entries:
                _write([entry], using)
    except (DatabaseError, InterfaceError, ConfigurationError) as error:
        logger.warning("Events were not written down: %s", type(error).__name__)


def _store(entries: Sequence[_Entry], kept: int, longest: timedelta, using: str) -> None:
    events = ConnectionEvent.objects.using(using)
    pks = {entry.account_pk for entry in entries}
    # In no transaction of its own: one that reads before it writes fails at once on SQLite when
    # others write. Inside of somebody else's a savepoint keeps a failure away from it.
    savepoint = transaction.atomic(using=using) if is_in_transaction(using) else nullcontext()
    with lock_timeout(using), savepoint:
        newest = events.filter(account__in=pks).values("account").annotate(newest=Max("pk"))
        latest = {
            event.account_id: event for event in events.filter(pk__in=newest.values("newest"))
        }
        new: list[ConnectionEvent] = []
        once_more: list[ConnectionEvent] = []
        for entry in entries:
            event = latest.get(entry.account_pk)
            if event is None or not entry.continues(event):
                latest[entry.account_pk] = event = entry.event()
                new.append(event)
                continue
            event.count += 1
            event.last_at = entry.at
            event.message, event.request_id = entry.message, entry.request_id
            if event.pk is not None:
                once_more.append(event)
        _count(once_more, events)
        if new:
            events.bulk_create(new)
            # Not after a refresh, which somebody waits for: between two of them there is another.
            grown = {event.account_id for event in new if event.kind != Kind.REFRESHED}
            if grown:
                _forget(events.filter(account__in=grown), kept, longest)


def _count(once_more: Collection[ConnectionEvent], events: QuerySet[ConnectionEvent]) -> None:
    """Save events that have happened once more; refreshes, of which there are many, at once."""
    times = Counter(event.pk for event in once_more if event.kind == Kind.REFRESHED)
    refreshed = [pk for pk, count in times.items() if count == 1]
    if refreshed:
        last_at = max(event.last_at for event in once_more)
        events.filter(pk__in=refreshed).update(count=F("count") + 1, last_at=last_at)
    for event in once_more:
        if event.pk not in refreshed:
            event.save(update_fields=["count", "last_at", "message", "request_id"])


def _forget(events: QuerySet[ConnectionEvent], kept: int, longest: timedelta) -> None:
    events.filter(last_at__lt=clock.instant() - longest).delete()
    counts = events.values("account").annotate(count=Count("pk")).filter(count__gt=kept)
    for account_pk in counts.values_list("account", flat=True):
        of_account = events.filter(account=account_pk).order_by("-pk")
        for oldest_kept in of_account.values_list("pk", flat=True)[kept - 1 : kept]:
            of_account.filter(pk__lt=oldest_kept).delete()


def announce(
    signal: Signal,
    account: BusinessAccount,
    using: str,
    *,
    kind: Kind | None,
    scopes_before: list[str] | None = None,
    **arguments: Any,
) -> None:
    """Write the event down and send the signal, when what they tell is committed."""

    def tell_now() -> None:
        error = arguments.get("error")
        record(account, kind, using, error=error, scopes_before=scopes_before)
        signal.send_robust(sender=BusinessAccount, account=account, **arguments)

    after_commit(tell_now, using)
