"""The refresh in pieces, for queues: find what is due, refresh some accounts, sync some profiles.

Knows no queue: `celery_tasks` and `django_tasks` wrap it. What travels through a queue is primary
keys. Nothing depends on a message arriving once, in order, or at all: what is still due when a
chunk runs is refreshed under the same claims as by ``refresh_tokens``, the rest is left alone, and
what was missed is found again the next time. So nothing here needs to be retried.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from django.db import router
from django.utils import timezone

from django_tiktok_business import cache
from django_tiktok_business.api import factory
from django_tiktok_business.conf import conf
from django_tiktok_business.db import clock
from django_tiktok_business.interrupts import defer_signals, set_soon
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.notices.send import send_due
from django_tiktok_business.sync import profile
from django_tiktok_business.tokens.due import Due
from django_tiktok_business.tokens.pool import CallPool
from django_tiktok_business.tokens.report import RefreshReport, RefreshResult

from . import accounts

if TYPE_CHECKING:
    from django_tiktok_business.models import BusinessAccountQuerySet


__all__ = [
    "CHUNK_SIZE",
    "LONGEST_RUN_SECONDS",
    "MESSAGE_LIFETIME_SECONDS",
    "due_chunks",
    "hand_out",
    "is_stale",
    "refresh_chunk",
    "stop_running",
    "sync_chunk",
]

logger = logging.getLogger("tiktok_business")

# Ten seconds of a ceiling of 600 calls a minute: small enough to be waited for when a worker shuts
# down, large enough that queue and chunk cost next to nothing beside the calls.
CHUNK_SIZE: Final = 100

# A message that waited longer is dropped: by then what it names has been handed out again.
MESSAGE_LIFETIME_SECONDS: Final = 900
LONGEST_RUN_SECONDS: Final = 600  # of one chunk; what is left of it stays due

# After TikTok was down, refused the app or asked for a pause: long enough for the other chunks of
# the queue not to find out one by one, shorter than the time until they are handed out again.
HALT_SECONDS: Final = 300
CLOCK_TOLERANCE_SECONDS: Final = 5
_running: set[threading.Event] = set()


# What is due


def due_chunks(
    *,
    within_seconds: float | None = None,
    chunk_size: int = CHUNK_SIZE,
    limit: int | None = None,
) -> Iterator[list[int]]:
    """The primary keys of what a refresh would try now, most urgent first, in short lists.

    Nothing is held open between two, and memory does not grow with the number of accounts.
    """
    if within_seconds is None:
        within_seconds = conf.REFRESH_WITHIN_SECONDS
    pages = Due.now(_accounts(), timedelta(seconds=within_seconds)).pages()
    pks = islice((row.pk for row in pages), limit)
    while chunk := list(islice(pks, chunk_size)):
        yield chunk


def hand_out(
    send: Callable[[list[int]], object],
    *,
    within_seconds: float | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> dict[str, Any]:
    """Call ``send`` with each chunk of what is due; returns how many were sent.

    No more than REQUESTS_PER_MINUTE lets be refreshed before the messages expire: a queue that is
    behind holds the same accounts several times otherwise.
    """
    counts: dict[str, Any] = {"accounts": 0, "chunks": 0, "stopped": cache.halt_reason()}
    if counts["stopped"] is None:
        limit = conf.REQUESTS_PER_MINUTE * MESSAGE_LIFETIME_SECONDS // 60 or None
        for chunk in due_chunks(within_seconds=within_seconds, chunk_size=chunk_size, limit=limit):
            send(chunk)
            counts["accounts"] += len(chunk)
            counts["chunks"] += 1
    # A chunk tells about its own accounts: what is left are rejected ones, which are in no chunk.
    send_due(_accounts())
    return counts


def is_stale(sent_at: datetime | None) -> bool:
    """Whether a message has waited too long, for queues that do not drop such by themselves."""
    lifetime = timedelta(seconds=MESSAGE_LIFETIME_SECONDS)
    return sent_at is not None and sent_at < timezone.now() - lifetime


# What is done about it


def refresh_chunk(
    pks: Collection[int],
    *,
    within_seconds: float | None = None,
    then: Callable[[list[int], float], object] | None = None,
) -> dict[str, Any]:
    """Refresh those of the accounts that are still due; returns what became of how many.

    ``then`` is called with what `sync_chunk` takes, if any account was refreshed.
    """
    clock.synchronize(_accounts().db)
    # Seconds ago, because the clock may be measured anew before the accounts are refreshed.
    since = clock.now() - CLOCK_TOLERANCE_SECONDS
    within = None if within_seconds is None else timedelta(seconds=within_seconds)
    refreshed: list[int] = []
    report = RefreshReport(stopped=cache.halt_reason())

    def collect(result: RefreshResult) -> None:
        if result.outcome == "refreshed":
            refreshed.append(result.pk)

    if report.stopped is None:
        with _stoppable() as stop:
            report = accounts.refresh_due_accounts(
                within=within,
                accounts=_accounts().filter(pk__in=pks),
                on_result=collect,
                stop=stop,
            )
            if report.stopped not in (None, "interrupted"):
                cache.halt(report.stopped, HALT_SECONDS)
            if refreshed and then is not None:
                then(refreshed, since)
    return {
        "refreshed": report.refreshed,
        "retry_later": report.retry_later,
        "reauthorization_required": report.reauthorization_required,
        "undecryptable": report.undecryptable,
        "skipped": report.skipped,
        "backing_off": report.backing_off,
        "stopped": report.stopped,
    }


def sync_chunk(pks: Collection[int], *, since: float) -> dict[str, Any]:
    """Sync the profiles of those of the accounts that were refreshed ``since`` then (Unix seconds).

    What has been synced since is left alone. Uses what no token needs of the ceiling, as
    ``refresh_tokens --sync-profiles`` does; returns how many were synced.
    """
    stopped = cache.halt_reason()
    began_at = timezone.now()
    chosen = _accounts().filter(pk__in=pks)
    if stopped is None:
        clock.synchronize(chosen.db)
        calls = CallPool(conf.REFRESH_CONCURRENCY, factory.limiter_from_settings())
        with _stoppable() as stop, calls:
            profile.sync_refreshed(
                chosen,
                calls,
                since=datetime.fromtimestamp(since, UTC),
                stop=stop,
                ends_at=time.monotonic() + LONGEST_RUN_SECONDS,
            )
            stopped = "interrupted" if stop.is_set() else None
    synced = chosen.filter(profile_synced_at__gte=began_at).count()
    return {"synced": synced, "stopped": stopped}


def _accounts() -> BusinessAccountQuerySet:
    # Where they are written: a replica may name what was refreshed a moment ago.
    using = router.db_for_write(BusinessAccount)
    return BusinessAccount.objects.using(using).filter(app_id=conf.APP_ID)


# Stopping


def stop_running() -> None:
    """Let each job of this process finish the calls it has in flight, save them and return."""
    for stop in list(_running):
        set_soon(stop)


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """An event that ends a job: after LONGEST_RUN_SECONDS, by `stop_running`, by a signal.

    A signal takes its usual effect when the block is left, a second one of its kind at once.
    """
    stop = threading.Event()
    timer = threading.Timer(LONGEST_RUN_SECONDS, stop.set)
    timer.daemon = True
    timer.start()
    _running.add(stop)
    try:
        with defer_signals(lambda: set_soon(stop)):
            yield stop
    finally:
        _running.discard(stop)
        timer.cancel()
