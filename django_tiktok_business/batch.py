"""Refresh many accounts: a bounded pool of calls over the protocol of `refresh`."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from django.db.models import F

from . import refresh, settlement
from .answers import TokenGrant
from .exceptions import (
    AccountBusyError,
    APIError,
    AppCredentialsRejectedError,
    ConnectionFailedError,
    DecryptionError,
    RateLimitError,
    ReauthorizationRequired,
    ServerError,
    TikTokBusinessError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from .client import TikTokClient
    from .models import BusinessAccount, BusinessAccountQuerySet

    _Call = Future[TokenGrant | TikTokBusinessError]

__all__ = ["RefreshReport", "RefreshResult", "refresh_accounts"]

POLL_SECONDS = 0.1  # how often a run that waits for an answer looks whether it shall stop
OUTAGE_THRESHOLD = 5  # consecutive failures of TikTok itself after which the batch stops


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
    """What became of a batch. ``stopped`` is None, or why the rest was not tried."""

    refreshed: int = 0
    retry_later: int = 0
    reauthorization_required: int = 0
    undecryptable: int = 0
    skipped: int = 0
    stopped: str | None = None
    duration_seconds: float = 0.0
    failures: list[RefreshResult] = field(default_factory=list)

    @property
    def all_refreshed(self) -> bool:
        """Whether every due account was refreshed, by us or by the worker that had it."""
        return self.stopped is None and not self.failures


def refresh_accounts(
    due: BusinessAccountQuerySet,
    *,
    limit: int | None,
    concurrency: int,
    requests_per_minute: int,
    stop: threading.Event,
    on_result: Callable[[RefreshResult], None],
) -> RefreshReport:
    """Refresh the accounts in ``due``, the most urgent first.

    Calls run in a pool of ``concurrency`` threads; the database is touched by this thread alone,
    and each answer is saved as soon as it is there. When ``stop`` is set, the calls in flight are
    finished and saved. Database errors are raised after the same.
    """
    run = _Run(due, concurrency, requests_per_minute, stop, on_result)
    started = time.monotonic()
    failure: BaseException | None = None
    clients = _ClientsPerThread()
    with ThreadPoolExecutor(max_workers=concurrency) as pool, clients:
        try:
            run.submit_all(limit, lambda account: pool.submit(clients.ask, account))
        except BaseException as error:  # noqa: BLE001 -- raised when all answers are saved
            failure = error
        while run.in_flight:
            try:
                run.finish_answered(None)
            except BaseException as error:  # noqa: BLE001 -- Ctrl-C while that goes on, too
                failure = failure or error
    if failure is not None:
        raise failure
    run.report.duration_seconds = time.monotonic() - started
    return run.report


class _Run:
    """One batch under way: what is in flight, and what has become of the rest."""

    def __init__(
        self,
        due: BusinessAccountQuerySet,
        concurrency: int,
        requests_per_minute: int,
        stop: threading.Event,
        on_result: Callable[[RefreshResult], None],
    ) -> None:
        self.due = due
        self.using = due.db
        self.concurrency = concurrency
        # Paced, not in bursts: TikTok counts by the second as well as by the minute.
        self.pause_seconds = 60 / requests_per_minute if requests_per_minute else 0
        self.stop = stop
        self.on_result = on_result
        self.report = RefreshReport()
        self.in_flight: dict[_Call, BusinessAccount] = {}
        self.outage_streak = 0

    def submit_all(self, limit: int | None, submit: Callable[[BusinessAccount], _Call]) -> None:
        """Claim the due accounts one by one, each only when its turn has come."""
        most_urgent_first = self.due.order_by(
            F("access_token_expires_at").asc(nulls_first=True), "pk"
        )
        next_at = 0.0
        for pk, open_id in list(most_urgent_first.values_list("pk", "open_id")[:limit]):
            self.wait_for_turn(next_at)
            if self.stop.is_set():
                self.report.stopped = self.report.stopped or "interrupted"
            if self.report.stopped:
                return
            account = self.claimed(pk, open_id)
            if account is not None:
                self.in_flight[submit(account)] = account
                next_at = time.monotonic() + self.pause_seconds

    def wait_for_turn(self, next_at: float) -> None:
        """Until there is room for a call and the pause is over; answers are saved meanwhile."""
        self.finish_answered(None if len(self.in_flight) >= self.concurrency else 0)
        while not self.stop.is_set() and (left_seconds := next_at - time.monotonic()) > 0:
            if self.in_flight:
                self.finish_answered(min(left_seconds, POLL_SECONDS))
            else:
                self.stop.wait(left_seconds)

    def claimed(self, pk: int, open_id: str) -> BusinessAccount | None:
        try:
            account = refresh.claim(pk, self.using)
        except AccountBusyError as error:
            self.count(RefreshResult(pk, open_id, "retry_later", message=str(error)))
            return None
        # What was due when the list was made may have been refreshed since.
        if account is not None and not self.due.filter(pk=pk).exists():
            settlement.release(account, self.using)
            account = None
        if account is None:
            self.count(RefreshResult(pk, open_id, "skipped"))
        return account

    def finish_answered(self, within_seconds: float | None) -> None:
        """Save what TikTok has answered, after waiting at most that time for an answer."""
        for call in wait(self.in_flight, within_seconds, FIRST_COMPLETED).done:
            self.finish(call)

    def finish(self, call: _Call) -> None:
        account = self.in_flight.pop(call)
        try:
            answer = call.result()
        except BaseException:
            settlement.release(account, self.using)
            raise
        error = settlement.settle(account, answer, self.using)
        if isinstance(error, AppCredentialsRejectedError):
            self.report.stopped = "app_credentials_rejected"
        is_outage = isinstance(error, ConnectionFailedError | ServerError | RateLimitError)
        self.outage_streak = self.outage_streak + 1 if is_outage else 0
        if self.outage_streak >= OUTAGE_THRESHOLD:
            self.report.stopped = self.report.stopped or "tiktok_unavailable"
        self.count(_result(account, error))

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


class _ClientsPerThread:
    """One client, and so one HTTP session, for each thread of a pool."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._clients: list[TikTokClient] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for client in self._clients:
            client.close()

    def ask(self, account: BusinessAccount) -> TokenGrant | TikTokBusinessError:
        if not hasattr(self._local, "client"):
            self._local.client = refresh.client_from_settings()
            self._clients.append(self._local.client)
        return refresh.ask(account, self._local.client)
