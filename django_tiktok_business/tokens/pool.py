"""A pool of threads that call TikTok, for batches of refreshes and of profile syncs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from django_tiktok_business.api import factory
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.rate_limit import RateLimiter
from django_tiktok_business.models import BusinessAccount

_Request = Callable[[TikTokClient], Any]


class Call:
    """A call to make once, not before ``at`` on the monotonic clock."""

    def __init__(self, account: BusinessAccount, at: float, request: _Request) -> None:
        self.account = account
        self.at = at
        self.request = request
        self._begun = threading.Lock()

    def begin(self) -> bool:
        """Whether the caller has to make the call; True only once."""
        return self._begun.acquire(blocking=False)


class CallPool:
    """Make calls to TikTok in threads; the answers are what the calls return or raise.

    A call is in flight from before it is handed to a thread until its answer is acknowledged, so
    that none is lost wherever the thread that reads the answers is interrupted.
    """

    def __init__(self, concurrency: int, limiter: RateLimiter) -> None:
        self.concurrency = concurrency
        self.limiter = limiter
        # How many more calls may wait for a thread: none under a rate limit, whose slots expire.
        self.ahead = 0 if limiter.per_minute else concurrency // 2
        self._open: set[Call] = set()
        self._answered: deque[tuple[Call, Any]] = deque()
        self._has_answer = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=concurrency)
        self._of_thread = threading.local()
        self._clients: list[TikTokClient] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown()
        for client in self._clients:
            client.close()

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def submit(self, *calls: Call) -> None:
        """Hand the calls to the threads."""
        self._open.update(calls)
        for call in calls:
            self._pool.submit(self._make, call)

    def answers(self, within_seconds: float | None) -> Iterator[tuple[BusinessAccount, Any]]:
        """The answers that have arrived, after waiting at most this long for the first.

        None: as long as it takes. The same answer is repeated until it is acknowledged.
        """
        while self._open:
            if not self._answered:
                self._has_answer.clear()
                # Check again: an answer may have arrived just before the event was cleared.
                if not self._answered and not self._has_answer.wait(within_seconds):
                    return
            within_seconds = 0
            call, answer = self._answered[0]
            yield call.account, answer

    def acknowledge(self) -> None:
        """Forget the first of the answers, and its call with it."""
        self._open.discard(self._answered[0][0])
        self._answered.popleft()

    def cancel_pending(self) -> None:
        """Give the answer None to the calls that no thread has begun."""
        for call in list(self._open):
            if call.begin():
                self._answered.append((call, None))

    def _make(self, call: Call) -> None:
        if not call.begin():
            return
        try:
            if (left_seconds := call.at - time.monotonic()) > 0:
                time.sleep(left_seconds)
            answer = call.request(self._client().with_slot())
        except BaseException as error:  # noqa: BLE001 -- raised where the answers are read
            answer = error
        self._answered.append((call, answer))
        self._has_answer.set()

    def _client(self) -> TikTokClient:
        if not hasattr(self._of_thread, "client"):
            self._of_thread.client = factory.client_from_settings(self.limiter)
            self._clients.append(self._of_thread.client)
        client: TikTokClient = self._of_thread.client
        return client
