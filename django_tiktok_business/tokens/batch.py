"""Refresh many accounts: a bounded pool of calls over the protocol of `refresh`."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.db.models import F

from django_tiktok_business import events
from django_tiktok_business.api.oauth import TokenGrant
from django_tiktok_business.api.outage import is_outage
from django_tiktok_business.api.rate_limit import BATCH
from django_tiktok_business.db import clock, writes
from django_tiktok_business.exceptions import (
    AccountBusyError,
    APIError,
    AppCredentialsRejectedError,
    DecryptionError,
    RateLimitError,
    ReauthorizationRequired,
    TikTokBusinessError,
)

from . import claims, refresh, storage
from .pool import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_tiktok_business.api.client import TikTokClient
    from django_tiktok_business.models import BusinessAccount

    from .claims import ClaimTimes
    from .due import Due
    from .pool import CallPool


__all__ = ["RefreshReport", "RefreshResult", "refresh_accounts"]

POLL_SECONDS = 0.1  # how often a run that waits for an answer looks whether it shall stop

# So many consecutive failures of TikTok itself make a probe be asked: an account that has nothing
# to do with them. When TikTok fails for that one too, it is down, and the batch stops.
OUTAGE_THRESHOLD = 5
MOST_PAUSES = 3  # in a row; refused again after them, the run stops
LONGEST_WAIT_SECONDS = 310  # for a turn: five minutes and some; TikTok may ask for a longer pause


@dataclass(frozen=True)
class RefreshResult:
    """What became of one account.

    ``outcome`` is "refreshed", "retry_later", "reauthorization_required", "undecryptable" or
    "skipped" (another worker had it); the rest is None or "" where TikTok reported no error.
    """

    pk: int
    open_id: str
    outcome: str
    code: int | None = None
    message: str = ""
    request_id: str = ""


@dataclass
class RefreshReport:
    """What became of a batch.

    ``backing_off`` counts due accounts that were left alone because they kept failing for passing
    reasons; their next attempt comes later. ``stopped`` is None, or why the rest was not tried:
    "app_credentials_rejected", "tiktok_unavailable", "rate_limited" or "interrupted".
    """

    refreshed: int = 0
    retry_later: int = 0
    reauthorization_required: int = 0
    undecryptable: int = 0
    skipped: int = 0
    backing_off: int = 0
    stopped: str | None = None
    duration_seconds: float = 0.0
    failures: list[RefreshResult] = field(default_factory=list)

    @property
    def all_refreshed(self) -> bool:
        """Whether every due account was refreshed, by us or by the worker that had it."""
        return self.stopped is None and not self.failures and not self.backing_off


def refresh_accounts(
    due: Due,
    calls: CallPool,
    *,
    limit: int | None,
    stop: threading.Event,
    on_result: Callable[[RefreshResult], None],
) -> RefreshReport:
    """Refresh the accounts that are ``due``, the most urgent first, at most ``limit``.

    The database is touched by this thread alone, and each answer is saved as soon as it is there.
    When ``stop`` is set, the calls in flight are finished and saved. Database errors are raised
    after the same.
    """
    run = _Batch(due, calls, stop, on_result)
    started = time.monotonic()
    with events.batched(run.using):
        _finish(run, limit)
    run.report.duration_seconds = time.monotonic() - started
    return run.report


def _finish(run: _Batch, limit: int | None) -> None:
    failure: BaseException | None = None
    try:
        run.report.backing_off = run.due.backing_off()
        run.submit_all(limit)
    except BaseException as error:  # noqa: BLE001 -- raised when all answers are saved
        failure = error
    while not run.is_concluded:
        try:
            if failure is not None:
                run.calls.cancel_pending()
            run.conclude()
        except BaseException as error:  # noqa: BLE001 -- Ctrl-C while that goes on, too
            failure = failure or error
    if failure is not None:
        raise failure


class _Batch:
    """One batch under way: what is in flight, and what has become of the rest."""

    def __init__(
        self,
        due: Due,
        calls: CallPool,
        stop: threading.Event,
        on_result: Callable[[RefreshResult], None],
    ) -> None:
        self.due = due
        self.calls = calls
        self.stop = stop
        self.on_result = on_result
        self.using = due.chosen.db
        self.report = RefreshReport()
        self.is_concluded = False
        self.slots: deque[float] = deque()  # when calls may be made, on the monotonic clock
        self.waiting: deque[tuple[int, str]] = deque()  # whose turn comes next
        # Those of whom it is not known yet whether they or TikTok itself are the trouble.
        self.unconfirmed: deque[tuple[BusinessAccount, TikTokBusinessError]] = deque()
        self.probe: int | None = None  # the primary key of the account that is to tell
        self.probed: set[int] = set()
        self.refused: dict[int, RefreshResult] = {}  # by primary key; to be tried after the pause
        self.is_database_proven = False

    # Out to TikTok

    def submit_all(self, limit: int | None) -> None:
        """Claim the due accounts in small batches, each not before its turn has come."""
        candidates = islice(self.candidates(), limit)
        while True:
            room = self.room()
            if self.shall_stop():
                return
            if self.probe is None:
                self.waiting.extend(islice(candidates, max(0, room - len(self.waiting))))
                wanted = min(room, len(self.waiting))
            else:  # until it has told, nobody else is sent after it
                wanted = int(self.probe in {pk for pk, _ in self.waiting})
            if wanted and self.has_slot(wanted):
                ready = min(wanted, len(self.slots))
                self.submit([self.waiting.popleft() for _ in range(ready)])
            elif not self.calls.in_flight and not self.waiting:
                return
            elif not wanted:
                self.finish_answered(POLL_SECONDS)

    def shall_stop(self) -> bool:
        if self.stop.is_set():
            self.report.stopped = self.report.stopped or "interrupted"
        return self.report.stopped is not None

    def candidates(self) -> Iterator[tuple[int, str]]:
        pages = self.due.pages()
        while page := self.patiently(pages.next):
            clock.synchronize(self.using)
            yield from ((row.pk, row.open_id) for row in page if row.pk not in self.probed)

    def room(self) -> int:
        """Free places for calls, after saving what has been answered.

        Waits for an answer while the places are few: to claim rows one by one would cost more than
        the calls. Where no ceiling holds the pool up, some calls wait in it, so that its threads
        need not wait for the database.
        """
        places = self.calls.concurrency + self.calls.ahead
        while True:
            self.finish_answered(0)
            room = places - self.calls.in_flight
            is_enough = room >= max(1, self.calls.ahead or places // 4)
            if is_enough or self.shall_stop():
                return room
            self.finish_answered(POLL_SECONDS)

    def has_slot(self, wanted: int) -> bool:
        """Take turns under the ceiling; when there is none, wait a little."""
        # Left over from rows that somebody else had; too late a call could be one too many.
        while self.slots and self.slots[0] < time.monotonic() - BATCH:
            self.slots.popleft()
        while len(self.slots) < wanted:
            wait_seconds = self.calls.limiter.reserve(BATCH)
            if wait_seconds is None:
                break
            self.slots.append(time.monotonic() + wait_seconds)
        if self.slots:
            return True
        wait_seconds = self.calls.limiter.wait_seconds(BATCH)
        if wait_seconds > LONGEST_WAIT_SECONDS:
            self.report.stopped = "rate_limited"
        elif self.calls.in_flight:
            self.finish_answered(min(wait_seconds, POLL_SECONDS))
        else:
            self.stop.wait(wait_seconds)
        return False

    def submit(self, rows: list[tuple[int, str]]) -> None:
        open_ids = dict(rows)
        for pk in open_ids:
            self.refused.pop(pk, None)
        times = claims.ClaimTimes.now()
        claimed, busy = self.claimed(list(open_ids), claims.new_claim_id())
        self.calls.submit(
            *(
                Call(account, self.slots.popleft(), partial(self.ask, account, times))
                for account in claimed
            )
        )
        for account in claimed:
            del open_ids[account.pk]
        if self.probe in open_ids:
            self.probe = None  # somebody else has it; the next failure calls another one
        for pk, open_id in open_ids.items():
            outcome = "retry_later" if pk in busy else "skipped"
            self.count(RefreshResult(pk, open_id, outcome, message=busy.get(pk, "")))

    def ask(
        self, account: BusinessAccount, times: ClaimTimes, client: TikTokClient
    ) -> TokenGrant | TikTokBusinessError | None:
        """In a thread of the pool: the answer, None when this is no time to ask (any more)."""
        is_late = time.monotonic() > times.begin_by
        if is_late or self.shall_stop() or self.calls.limiter.is_paused:
            return None
        return refresh.request_tokens(account, client, until=times.end_by)

    def claimed(
        self, pks: list[int], claim_id: str
    ) -> tuple[list[BusinessAccount], dict[int, str]]:
        """The rows that could be claimed, and why others are busy; the rest somebody else has."""
        try:
            return self.claim(pks, claim_id), {}
        except AccountBusyError as error:
            if len(pks) == 1:
                return [], {pks[0]: str(error)}
        # One by one, to leave out the one that somebody has locked; under the same id, because
        # those before it may be claimed by now.
        parts = [self.claimed([pk], claim_id) for pk in pks]
        accounts = [account for part, _ in parts for account in part]
        return accounts, {pk: why for _, part in parts for pk, why in part.items()}

    def claim(self, pks: list[int], claim_id: str) -> list[BusinessAccount]:
        condition = self.due.condition
        claimed: list[BusinessAccount] = self.patiently(
            lambda: claims.claim(pks, self.using, claim_id=claim_id, condition=condition)
        )
        self.is_database_proven = True
        return claimed

    def patiently(self, work: Callable[[], Any]) -> Any:
        """Wait for a database that goes away; one that was never there is reported at once."""
        return (
            writes.retry_while_unavailable(work, self.using) if self.is_database_proven else work()
        )

    # Back from TikTok

    def finish_answered(self, within_seconds: float | None) -> None:
        """Save what TikTok has answered, after waiting at most that time for an answer."""
        for account, answer in self.calls.answers(within_seconds):
            self.finish(account, answer)

    def finish(self, account: BusinessAccount, answer: Any) -> None:
        if isinstance(answer, TokenGrant):
            error = self.save(account, answer)
            self.clear_unconfirmed()  # TikTok is there
            self.count(_result(account, error))
            return
        is_probe = account.pk == self.probe
        self.probe = None if is_probe else self.probe
        self.calls.acknowledge()
        if answer is None:
            claims.release(account, self.using)
            self.waiting.appendleft((account.pk, account.open_id))
            self.probe = account.pk if is_probe else self.probe
            return
        if not isinstance(answer, TikTokBusinessError):
            claims.release(account, self.using)
            raise answer
        if is_outage(answer):
            self.unconfirmed.append((account, answer))
            is_in_doubt = len(self.unconfirmed) >= OUTAGE_THRESHOLD and self.probe is None
            if is_in_doubt and (is_probe or not self.has_probe()):
                self.report.stopped = self.report.stopped or "tiktok_unavailable"
            return
        error = storage.store_result(account, answer, self.using)
        if isinstance(answer, APIError) and answer.http_status is not None:
            self.clear_unconfirmed()  # it was TikTok that said so
        if isinstance(error, AppCredentialsRejectedError):
            self.report.stopped = "app_credentials_rejected"
        if isinstance(error, RateLimitError):
            self.refuse(account, error)
        else:
            self.count(_result(account, error))

    def has_probe(self) -> bool:
        """Whether somebody will tell; those in flight do when nobody else is left to be called."""
        return self.send_probe() or bool(self.calls.in_flight)

    def send_probe(self) -> bool:
        """Let the due account come next with which TikTok has worked most lately, if there is one.

        Were the next ones taken as they come, a handful of accounts for which TikTok fails, as the
        most urgent ones, would stop each run before it reached any other.
        """
        rows = self.due.chosen.filter(self.due.condition, claim_id="").exclude(pk__in=self.probed)
        latest = rows.order_by(F("last_refreshed_at").desc(nulls_last=True), "-pk")
        probe = self.patiently(latest.values_list("pk", "open_id").first)
        if probe is None:
            return False
        self.probe = probe[0]
        self.probed.add(probe[0])
        others = [row for row in self.waiting if row != probe]
        self.waiting = deque([probe, *others])
        return True

    def save(self, account: BusinessAccount, grant: TokenGrant) -> TikTokBusinessError | None:
        """Before anything else is done. Ctrl-C leaves it to be done once more, by `conclude`."""
        try:
            error = storage.store_result(account, grant, self.using)
        except Exception:  # what could not be saved is being saved in the background
            self.calls.acknowledge()
            raise
        self.calls.acknowledge()
        return error

    def refuse(self, account: BusinessAccount, error: RateLimitError) -> None:
        """Try it once more when the pause is over, unless that has been done often enough."""
        self.slots.clear()  # they were taken before the pause
        self.refused[account.pk] = _result(account, error)
        self.waiting.append((account.pk, account.open_id))  # others may be spared the next one
        if self.calls.limiter.pauses > MOST_PAUSES:
            self.report.stopped = self.report.stopped or "rate_limited"

    def clear_unconfirmed(self) -> None:
        """The trouble was with these accounts: write it down."""
        self.probe = None
        while self.unconfirmed:
            account, error = self.unconfirmed.popleft()
            verdict = storage.store_result(account, error, self.using)
            self.count(_result(account, verdict))

    def conclude(self) -> None:
        """Save all that is in flight, and settle what was left open."""
        while self.calls.in_flight:
            self.finish_answered(None)
        if self.report.stopped != "tiktok_unavailable":
            self.clear_unconfirmed()
        while self.unconfirmed:  # TikTok is down, and not one of these connections the worse for it
            account, error = self.unconfirmed.popleft()
            claims.release(account, self.using)
            self.count(_result(account, error))
        while self.refused:
            self.count(self.refused.popitem()[1])
        self.is_concluded = True

    def count(self, result: RefreshResult) -> None:
        outcome = result.outcome
        setattr(self.report, outcome, getattr(self.report, outcome) + 1)
        if outcome not in ("refreshed", "skipped"):
            self.report.failures.append(result)
        self.on_result(result)


def _result(account: BusinessAccount, error: TikTokBusinessError | None) -> RefreshResult:
    if error is None:
        return RefreshResult(account.pk, account.open_id, "refreshed")
    if isinstance(error, ReauthorizationRequired):
        outcome = "reauthorization_required"
    else:
        outcome = "undecryptable" if isinstance(error, DecryptionError) else "retry_later"
    if not isinstance(error, APIError):
        return RefreshResult(account.pk, account.open_id, outcome, message=str(error))
    return RefreshResult(
        account.pk, account.open_id, outcome, error.code, error.message, error.request_id
    )
