"""Refresh many accounts: a bounded pool of calls over the protocol of `refresh`."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from django.db.models import F

from . import refresh
from .answers import TokenGrant
from .exceptions import (
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
    from collections.abc import Callable, Iterator

    from .client import TikTokClient
    from .models import BusinessAccount, BusinessAccountQuerySet

__all__ = ["RefreshReport", "RefreshResult", "refresh_accounts"]

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
    using = due.db
    started = time.monotonic()
    report = RefreshReport()
    outage_streak = 0
    clients = _ClientsPerThread()
    in_flight: dict[Future[TokenGrant | TikTokBusinessError], BusinessAccount] = {}

    def finish(future: Future[TokenGrant | TikTokBusinessError]) -> None:
        account = in_flight.pop(future)
        error = refresh.settle(account, future.result(), using)
        if isinstance(error, AppCredentialsRejectedError):
            report.stopped = "app_credentials_rejected"
        is_outage = isinstance(error, ConnectionFailedError | ServerError | RateLimitError)
        nonlocal outage_streak
        outage_streak = outage_streak + 1 if is_outage else 0
        if outage_streak >= OUTAGE_THRESHOLD:
            report.stopped = report.stopped or "tiktok_unavailable"
        _count(report, _result(account, error), on_result)

    with ThreadPoolExecutor(max_workers=concurrency) as pool, clients:
        try:
            for account in _claimed(due, limit, report, on_result):
                in_flight[pool.submit(clients.ask, account)] = account
                # Paced, not in bursts: TikTok counts by the second as well as by the minute.
                pause = 60 / requests_per_minute if requests_per_minute else 0
                is_full = len(in_flight) >= concurrency
                ready = wait(in_flight, None if is_full else 0, FIRST_COMPLETED).done
                for future in ready:
                    finish(future)
                if stop.wait(pause):
                    report.stopped = report.stopped or "interrupted"
                if report.stopped:
                    break
        finally:
            failure: Exception | None = None
            while in_flight:
                for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                    try:
                        finish(future)
                    except Exception as error:  # noqa: BLE001 -- the others' tokens come first
                        failure = failure or error
            if failure is not None:
                raise failure
    report.duration_seconds = time.monotonic() - started
    return report


def _claimed(
    due: BusinessAccountQuerySet,
    limit: int | None,
    report: RefreshReport,
    on_result: Callable[[RefreshResult], None],
) -> Iterator[BusinessAccount]:
    """Claim the due accounts one by one, each only when its turn has come."""
    most_urgent_first = due.order_by(F("access_token_expires_at").asc(nulls_first=True), "pk")
    for pk, open_id in list(most_urgent_first.values_list("pk", "open_id")[:limit]):
        account = refresh.claim(pk, due.db)
        # What was due when the list was made may have been refreshed since.
        if account is not None and not due.filter(pk=pk).exists():
            refresh.release(account, due.db)
            account = None
        if account is None:
            _count(report, RefreshResult(pk, open_id, "skipped"), on_result)
        else:
            yield account


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


def _count(
    report: RefreshReport, result: RefreshResult, on_result: Callable[[RefreshResult], None]
) -> None:
    setattr(report, result.outcome, getattr(report, result.outcome) + 1)
    if result.outcome not in ("refreshed", "skipped"):
        report.failures.append(result)
    on_result(result)


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
