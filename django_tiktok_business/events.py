"""Record what happens to an account as an event, and announce it as a signal after the commit.

An event that cannot be written is only missing in the event log. Inside `batched` events wait, so
that a batch writes many of them with a few statements; a process that is killed loses the events
that wait, and nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, IntegrityError, InterfaceError, transaction
from django.db.models import Count, F, Max, QuerySet
from django.dispatch import Signal
from django.utils import timezone

from .conf import conf
from .db import clock
from .db.vendors import lock_timeout
from .db.writes import after_commit, is_in_transaction
from .exceptions import APIError, ConfigurationError, TikTokBusinessError
from .models import BusinessAccount, ConnectionEvent

__all__ = ["Kind", "announce", "batched", "record"]

logger = logging.getLogger("tiktok_business")

Kind = ConnectionEvent.Kind
WRITTEN_AT_ONCE = 64

# Events that happen every day: a repetition is counted in the last event of its kind.
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
    """The events that this thread has still to write; None outside of `batched`."""

    entries: list[_Entry] | None = None


_waiting = _Waiting()


def _entry(account: BusinessAccount, kind: Kind, error: TikTokBusinessError | None) -> _Entry:
    now = timezone.now()
    if isinstance(error, APIError):
        return _Entry(account.pk, kind, now, error.code, error.message, error.request_id)
    return _Entry(account.pk, kind, now, message="" if error is None else str(error))


def record(
    account: BusinessAccount,
    kind: Kind | None,
    using: str,
    *,
    error: TikTokBusinessError | None = None,
    scopes_before: Collection[str] | None = None,
) -> None:
    """Record an event of ``account``; with ``kind`` None, only a change of its scopes.

    ``error`` gives the code, message and request id. ``scopes_before``: if ``account.scopes`` has
    changed since, another event records that.
    """
    entries = []
    if kind is not None:
        entries.append(_entry(account, kind, error))
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
    """Keep the events of this thread inside the block, and write many at once.

    Events of the kinds ``without`` are not written at all.
    """
    if _waiting.entries is not None:  # nested: a receiver of a signal refreshes other accounts
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
    except IntegrityError:  # one of the accounts has been deleted
        if len(entries) > 1:
            for entry in entries:
                _write([entry], using)
    except (DatabaseError, InterfaceError, ConfigurationError) as error:
        logger.warning("Events were not written: %s", type(error).__name__)


def _store(entries: Sequence[_Entry], kept: int, longest: timedelta, using: str) -> None:
    events = ConnectionEvent.objects.using(using)
    pks = {entry.account_pk for entry in entries}
    # Without a transaction: on SQLite one that reads before it writes fails at once when others
    # write. Inside the caller's transaction a savepoint protects it from a failure.
    savepoint = transaction.atomic(using=using) if is_in_transaction(using) else nullcontext()
    with lock_timeout(using), savepoint:
        newest = events.filter(account__in=pks).values("account").annotate(newest=Max("pk"))
        latest = {
            event.account_id: event for event in events.filter(pk__in=newest.values("newest"))
        }
        new: list[ConnectionEvent] = []
        repeated: list[ConnectionEvent] = []
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
                repeated.append(event)
        _count(repeated, events)
        if new:
            events.bulk_create(new)
            # Not after a refresh, which a caller waits for: there is another event before the next
            # new one of this kind.
            grown = {event.account_id for event in new if event.kind != Kind.REFRESHED}
            if grown:
                _delete_old(events.filter(account__in=grown), kept, longest)


def _count(repeated: Collection[ConnectionEvent], events: QuerySet[ConnectionEvent]) -> None:
    """Save events that were repeated; all refreshes, of which there are many, in one statement."""
    times = Counter(event.pk for event in repeated if event.kind == Kind.REFRESHED)
    refreshed = [pk for pk, count in times.items() if count == 1]
    if refreshed:
        last_at = max(event.last_at for event in repeated)
        events.filter(pk__in=refreshed).update(count=F("count") + 1, last_at=last_at)
    for event in repeated:
        if event.pk not in refreshed:
            event.save(update_fields=["count", "last_at", "message", "request_id"])


def _delete_old(events: QuerySet[ConnectionEvent], kept: int, longest: timedelta) -> None:
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
    """Record an event and send a signal, both once the change is committed.

    ``arguments`` are those of the signal; ``kind`` and ``scopes_before`` are those of `record`.
    """

    def record_and_send() -> None:
        error = arguments.get("error")
        record(account, kind, using, error=error, scopes_before=scopes_before)
        signal.send_robust(sender=BusinessAccount, account=account, **arguments)

    after_commit(record_and_send, using)
