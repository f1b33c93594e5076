"""Refresh many accounts with a bounded pool of calls, by the protocol of `refresh`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from django.db.models import F

from django_tiktok_business import events
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.oauth import TokenGrant
from django_tiktok_business.api.outage import is_outage
from django_tiktok_business.api.rate_limit import BATCH
from django_tiktok_business.db import clock, writes
from django_tiktok_business.exceptions import (
    AccountBusyError,
    APIError,
    AppCredentialsRejectedError,
    RateLimitError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount

from . import claims, refresh, storage
from .claims import ClaimTimes
from .due import Due
from .pool import Call, CallPool
from .report import RefreshReport, RefreshResult

POLL_SECONDS = 0.1  # how often a run that waits for an answer checks whether it has to stop

# After this many consecutive failures of TikTok itself, an account that has nothing to do with them
# becomes the probe. When TikTok fails for the probe too, it is down, and the run stops.
OUTAGE_THRESHOLD = 5
MOST_PAUSES = 3  # pauses in a row; when TikTok asks for one more, the run stops
LONGEST_WAIT_SECONDS = 310  # for a slot: a little over TikTok's usual pause of five minutes


def refresh_accounts(
    due: Due,
    calls: CallPool,
    *,
    limit: int | None,
    stop: threading.Event,
    on_result: Callable[[RefreshResult], None],
) -> RefreshReport:
    """Refresh the accounts that are ``due``, the most urgent first, at most ``limit``.

    Only this thread uses the database, and it saves each answer as soon as it arrives. When
    ``stop`` is set, or something is raised, the calls in flight are finished and saved first.
    """
    run = _Batch(due, calls, stop, on_result)
    started = time.monotonic()
    with events.batched(run.using):
        _run_to_the_end(run, limit)
    run.report.duration_seconds = time.monotonic() - started
    return run.report


def _run_to_the_end(run: _Batch, limit: int | None) -> None:
    failure: BaseException | None = None
    try:
        run.report.backing_off = run.due.backing_off()
        run.submit_all(limit)
    except BaseException as error:  # noqa: BLE001 -- raised once all answers are saved
        failure = error
    while not run.is_finished:
        try:
            if failure is not None:
                run.calls.cancel_pending()
            run.finish()
        except BaseException as error:  # noqa: BLE001 -- Ctrl-C in the middle of this, too
            failure = failure or error
    if failure is not None:
        raise failure


class _Batch:
    """One batch under way: the calls in flight, and the results so far."""

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
        self.is_finished = False
        self.slots: deque[float] = deque()  # when calls may be made, on the monotonic clock
        self.waiting: deque[tuple[int, str]] = deque()  # primary key and open id, next one first
        # Failures that may be due to the account or to an outage of TikTok.
        self.unconfirmed: deque[tuple[BusinessAccount, TikTokBusinessError]] = deque()
        self.probe: int | None = None  # the primary key of the account that decides between them
        self.probed: set[int] = set()
        self.refused: dict[int, RefreshResult] = {}  # by primary key; tried again after the pause
        self.has_database_answered = False

    # Calling TikTok

    def submit_all(self, limit: int | None) -> None:
        """Claim the due accounts in small groups, and submit a call for each once it has a slot."""
        candidates = islice(self.candidates(), limit)
        while True:
            free = self.free_places()
            if self.must_stop():
                return
            if self.probe is None:
                self.waiting.extend(islice(candidates, max(0, free - len(self.waiting))))
                wanted = min(free, len(self.waiting))
            else:  # no other call is made until the probe has been answered
                wanted = int(self.probe in {pk for pk, _ in self.waiting})
            if wanted and self.reserve_slots(wanted):
                ready = min(wanted, len(self.slots))
                self.submit([self.waiting.popleft() for _ in range(ready)])
            elif not self.calls.in_flight and not self.waiting:
                return
            elif not wanted:
                self.save_answers(POLL_SECONDS)

    def must_stop(self) -> bool:
        if self.stop.is_set():
            self.report.stopped = self.report.stopped or "interrupted"
        return self.report.stopped is not None

    def candidates(self) -> Iterator[tuple[int, str]]:
        pages = self.due.pages()
        while page := self.with_database(pages.next):
            clock.synchronize(self.using)
            yield from ((row.pk, row.open_id) for row in page if row.pk not in self.probed)

    def free_places(self) -> int:
        """The number of free places for calls, after saving the answers that have arrived.

        Waits for an answer while there are only a few: claiming rows one by one would cost more
        than the calls. Without a rate limit some calls wait in the pool, so that its threads need
        not wait for the database.
        """
        places = self.calls.concurrency + self.calls.ahead
        while True:
            self.save_answers(0)
            free = places - self.calls.in_flight
            is_enough = free >= max(1, self.calls.ahead or places // 4)
            if is_enough or self.must_stop():
                return free
            self.save_answers(POLL_SECONDS)

    def reserve_slots(self, wanted: int) -> bool:
        """Reserve slots of the rate limiter; if there is none, wait a little and return False."""
        # Slots of rows that another worker held may be left over. Calls that are made too long
        # after their slots could break the rate limit.
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
            self.save_answers(min(wait_seconds, POLL_SECONDS))
        else:
            self.stop.wait(wait_seconds)
        return False

    def submit(self, rows: list[tuple[int, str]]) -> None:
        open_ids = dict(rows)
        for pk in open_ids:
            self.refused.pop(pk, None)
        times = claims.ClaimTimes.now()
        claimed, busy = self.claim_free(list(open_ids), claims.new_claim_id())
        self.calls.submit(
            *(
                Call(account, self.slots.popleft(), partial(self.request_tokens, account, times))
                for account in claimed
            )
        )
        for account in claimed:
            del open_ids[account.pk]
        if self.probe in open_ids:
            self.probe = None  # another worker holds it; the next failure chooses another probe
        for pk, open_id in open_ids.items():
            outcome = "retry_later" if pk in busy else "skipped"
            self.count(RefreshResult(pk, open_id, outcome, message=busy.get(pk, "")))

    def request_tokens(
        self, account: BusinessAccount, times: ClaimTimes, client: TikTokClient
    ) -> TokenGrant | TikTokBusinessError | None:
        """Call TikTok, in a thread of the pool; None when the call should not be made now."""
        is_late = time.monotonic() > times.begin_by
        if is_late or self.must_stop() or self.calls.limiter.is_paused:
            return None
        return refresh.request_tokens(account, client, until=times.end_by)

    def claim_free(
        self, pks: list[int], claim_id: str
    ) -> tuple[list[BusinessAccount], dict[int, str]]:
        """Claim the rows; return those claimed, and for locked ones the reason by primary key.

        Other workers hold the rest.
        """
        try:
            return self.claim(pks, claim_id), {}
        except AccountBusyError as error:
            if len(pks) == 1:
                return [], {pks[0]: str(error)}
        # One by one, to leave out the locked row; with the same id, because some rows may already
        # be claimed.
        parts = [self.claim_free([pk], claim_id) for pk in pks]
        accounts = [account for part, _ in parts for account in part]
        return accounts, {pk: why for _, part in parts for pk, why in part.items()}

    def claim(self, pks: list[int], claim_id: str) -> list[BusinessAccount]:
        condition = self.due.condition
        claimed: list[BusinessAccount] = self.with_database(
            lambda: claims.claim(pks, self.using, claim_id=claim_id, condition=condition)
        )
        self.has_database_answered = True
        return claimed

    def with_database(self, work: Callable[[], Any]) -> Any:
        """Run a query, again while the database is away; raise if it has never answered."""
        if not self.has_database_answered:
            return work()
        return writes.retry_while_unavailable(work, self.using)

    # Saving the answers

    def save_answers(self, within_seconds: float | None) -> None:
        """Save the answers that have arrived, after waiting at most this long for the first."""
        for account, answer in self.calls.answers(within_seconds):
            self.save_answer(account, answer)

    def save_answer(self, account: BusinessAccount, answer: Any) -> None:
        if isinstance(answer, TokenGrant):
            error = self.save_grant(account, answer)
            self.store_unconfirmed()  # TikTok is not down
            self.count(RefreshResult.of(account, error))
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
            may_be_down = len(self.unconfirmed) >= OUTAGE_THRESHOLD and self.probe is None
            if may_be_down and (is_probe or not self.has_probe()):
                self.report.stopped = self.report.stopped or "tiktok_unavailable"
            return
        error = storage.store_result(account, answer, self.using)
        if isinstance(answer, APIError) and answer.http_status is not None:
            self.store_unconfirmed()  # TikTok is not down: it has answered
        if isinstance(error, AppCredentialsRejectedError):
            self.report.stopped = "app_credentials_rejected"
        if isinstance(error, RateLimitError):
            self.retry_after_pause(account, error)
        else:
            self.count(RefreshResult.of(account, error))

    def has_probe(self) -> bool:
        """Choose a probe if possible; otherwise the calls in flight decide, if there are any."""
        return self.send_probe() or bool(self.calls.in_flight)

    def send_probe(self) -> bool:
        """Put the due account with the latest successful refresh next; False if there is none.

        Without a probe a handful of accounts for which TikTok always fails, being the most urgent
        ones, would stop each run before it reached any other.
        """
        rows = self.due.chosen.filter(self.due.condition, claim_id="").exclude(pk__in=self.probed)
        latest = rows.order_by(F("last_refreshed_at").desc(nulls_last=True), "-pk")
        probe = self.with_database(latest.values_list("pk", "open_id").first)
        if probe is None:
            return False
        self.probe = probe[0]
        self.probed.add(probe[0])
        others = [row for row in self.waiting if row != probe]
        self.waiting = deque([probe, *others])
        return True

    def save_grant(self, account: BusinessAccount, grant: TokenGrant) -> TikTokBusinessError | None:
        """Save the tokens before anything else; after Ctrl-C in the middle, `finish` repeats it."""
        try:
            error = storage.store_result(account, grant, self.using)
        except Exception:  # a thread goes on trying to save them
            self.calls.acknowledge()
            raise
        self.calls.acknowledge()
        return error

    def retry_after_pause(self, account: BusinessAccount, error: RateLimitError) -> None:
        """Try the account again after the pause that TikTok asks for, or stop after too many."""
        self.slots.clear()  # they were reserved before the pause
        self.refused[account.pk] = RefreshResult.of(account, error)
        self.waiting.append((account.pk, account.open_id))  # last, so that others come first
        if self.calls.limiter.pauses > MOST_PAUSES:
            self.report.stopped = self.report.stopped or "rate_limited"

    def store_unconfirmed(self) -> None:
        """Store the failures in their rows: they were due to the accounts, not to an outage."""
        self.probe = None
        while self.unconfirmed:
            account, error = self.unconfirmed.popleft()
            stored_error = storage.store_result(account, error, self.using)
            self.count(RefreshResult.of(account, stored_error))

    def finish(self) -> None:
        """Save the answers of all calls in flight, and count the accounts without a result."""
        while self.calls.in_flight:
            self.save_answers(None)
        if self.report.stopped != "tiktok_unavailable":
            self.store_unconfirmed()
        while self.unconfirmed:  # TikTok is down, which says nothing about these accounts
            account, error = self.unconfirmed.popleft()
            claims.release(account, self.using)
            self.count(RefreshResult.of(account, error))
        while self.refused:
            self.count(self.refused.popitem()[1])
        self.is_finished = True

    def count(self, result: RefreshResult) -> None:
        self.report.add(result)
        self.on_result(result)
