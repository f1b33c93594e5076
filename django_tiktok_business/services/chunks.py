"""Split a refresh into jobs for a task queue: find due accounts, refresh a chunk, sync a chunk.

Knows no queue: `celery_tasks` and `django_tasks` wrap these functions. Messages hold primary keys.
Nothing depends on a message arriving once, in order, or at all: a chunk refreshes the accounts that
are still due, under the same claims as ``refresh_tokens``, and leaves the rest alone. Accounts that
were missed are found again the next time, so no job needs to be retried.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from django.db import router
from django.utils import timezone

from django_tiktok_business import cache
from django_tiktok_business.api.factory import limiter_from_settings
from django_tiktok_business.conf import conf
from django_tiktok_business.db import clock
from django_tiktok_business.interrupts import defer_signals, set_soon
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet
from django_tiktok_business.notices.send import send_due
from django_tiktok_business.sync import profile
from django_tiktok_business.tokens.due import Due
from django_tiktok_business.tokens.pool import CallPool
from django_tiktok_business.tokens.report import RefreshReport, RefreshResult

from .accounts import refresh_due_accounts

logger = logging.getLogger("tiktok_business")

# Ten seconds at 600 calls a minute: small enough for a worker that shuts down to wait for, large
# enough that the cost of the queue is negligible beside that of the calls.
CHUNK_SIZE: Final = 100

# A message that waited longer is ignored: its accounts have been handed out again by then.
MESSAGE_LIFETIME_SECONDS: Final = 900
LONGEST_RUN_SECONDS: Final = 600  # of one chunk; the accounts that are left stay due

# After TikTok was down, rejected the app or asked for a pause: long enough that the other chunks in
# the queue do not find out one by one, shorter than the time until they are handed out again.
HALT_SECONDS: Final = 300
CLOCK_TOLERANCE_SECONDS: Final = 5
_running: set[threading.Event] = set()


def due_chunks(
    *,
    within_seconds: float | None = None,
    chunk_size: int = CHUNK_SIZE,
    limit: int | None = None,
) -> Iterator[list[int]]:
    """Yield the primary keys of the due accounts in lists, most urgent first.

    No cursor stays open between two lists, and memory does not grow with the number of accounts.
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
    """Call ``send`` with each chunk of due accounts; returns the numbers sent.

    Sends no more accounts than REQUESTS_PER_MINUTE allows to refresh before the messages expire.
    Otherwise a queue with a backlog would hold the same accounts several times.
    """
    counts: dict[str, Any] = {"accounts": 0, "chunks": 0, "stopped": cache.halt_reason()}
    if counts["stopped"] is None:
        limit = conf.REQUESTS_PER_MINUTE * MESSAGE_LIFETIME_SECONDS // 60 or None
        for chunk in due_chunks(within_seconds=within_seconds, chunk_size=chunk_size, limit=limit):
            send(chunk)
            counts["accounts"] += len(chunk)
            counts["chunks"] += 1
    # A chunk sends the notices about its own accounts. Rejected accounts are in no chunk.
    send_due(_accounts())
    return counts


def is_stale(sent_at: datetime | None) -> bool:
    """Whether a message has waited too long, for queues whose messages do not expire."""
    lifetime = timedelta(seconds=MESSAGE_LIFETIME_SECONDS)
    return sent_at is not None and sent_at < timezone.now() - lifetime


def refresh_chunk(
    pks: Collection[int],
    *,
    within_seconds: float | None = None,
    then: Callable[[list[int], float], object] | None = None,
) -> dict[str, Any]:
    """Refresh the accounts that are still due; returns the number of accounts by outcome.

    If any account was refreshed, ``then`` is called with the arguments of `sync_chunk`.
    """
    clock.synchronize(_accounts().db)
    # Some seconds early, because the clock may be measured again before the accounts are refreshed.
    since = clock.now() - CLOCK_TOLERANCE_SECONDS
    within = None if within_seconds is None else timedelta(seconds=within_seconds)
    refreshed: list[int] = []
    report = RefreshReport(stopped=cache.halt_reason())

    def collect(result: RefreshResult) -> None:
        if result.outcome == "refreshed":
            refreshed.append(result.pk)

    if report.stopped is None:
        with _stoppable() as stop:
            report = refresh_due_accounts(
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
    """Sync the profiles of the accounts refreshed ``since`` this Unix time; returns their number.

    Profiles synced since then are left alone. Like ``refresh_tokens --sync-profiles``, this leaves
    the rate limit to token requests.
    """
    stopped = cache.halt_reason()
    began_at = timezone.now()
    chosen = _accounts().filter(pk__in=pks)
    if stopped is None:
        clock.synchronize(chosen.db)
        calls = CallPool(conf.REFRESH_CONCURRENCY, limiter_from_settings())
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
    # Not from a replica, which may list accounts that were refreshed a moment ago.
    using = router.db_for_write(BusinessAccount)
    return BusinessAccount.objects.using(using).filter(app_id=conf.APP_ID)


def stop_running() -> None:
    """Stop all jobs of this process: each finishes its open calls, stores them and returns."""
    for stop in list(_running):
        set_soon(stop)


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Yield an event that is set after LONGEST_RUN_SECONDS, by `stop_running` or by a signal.

    A signal takes its usual effect when the block ends; a second one of its kind immediately.
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
