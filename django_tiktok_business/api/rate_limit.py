"""The rate limit that all processes share, and the pauses that TikTok asks for.

Time is divided into slots, each a little longer than a minute divided by REQUESTS_PER_MINUTE. A
slot belongs to the caller that first adds its key to the cache: ``add`` is atomic on Redis, on
Memcached, on Django's database cache (where no key is used twice) and, within one process, on local
memory. So all processes together spread their calls evenly without knowing of each other.

A caller that looks further ahead goes first. An on-demand refresh, which somebody waits for, takes
the next free slot, wherever that is. A batch takes only slots of the next moments, and profile
syncs take slots that are still free when they begin.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from functools import lru_cache
from typing import Any, Final

from django_tiktok_business.cache import cached
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import RateLimitError

from .retry import LONGEST_PAUSE_SECONDS

logger = logging.getLogger("tiktok_business")

# How far ahead a slot may be taken, in seconds: the further ahead, the higher the priority.
ON_DEMAND: Final = LONGEST_PAUSE_SECONDS
BATCH: Final = 0.25
WHEN_IDLE: Final = 0.0

# A slot lasts SLACK times 60 / N seconds and can be taken until LATEST seconds after its beginning,
# so that calls sent or arriving a little late do not add up to more than N in any minute: at most
# 0.9984 N slots begin within 60.5 seconds, plus one for the fence post.
SLACK: Final = 1.01
LATEST: Final = 0.5
MOST_PER_MINUTE: Final = 10_000_000  # beyond any real rate; keeps the length of a slot above zero

# "Rate limits", TikTok API for Business, 2026-08-13: after too many queries in a second, continue
# in the next second; after too many in a minute, pause for five minutes.
NEXT_SECOND = 1.0
FIVE_MINUTES = 300.0
MAX_PAUSE_SECONDS = 3600.0  # a longer Retry-After may be a proxy's, and tokens expire meanwhile
CLOCK_TOLERANCE_SECONDS = 60.0  # a pause may seem longer by this when somebody sets a clock
IN_A_ROW_SECONDS = 60.0  # a refusal this soon after a pause is about more than one second
PAUSE_LOOKUP_SECONDS = 0.2  # how often a process looks for pauses of the others


class RateLimiter:
    """Limits the calls of one app to ``per_minute`` (0: no limit), in all processes together.

    Thread-safe. Processes that share the cache share the slots of limiters with the same app and
    number; a pause holds for all limiters of the app. When the cache fails, each process keeps to
    the limit by itself.
    """

    def __init__(self, per_minute: int, *, app_id: str, cache_alias: str) -> None:
        self.per_minute = per_minute = min(per_minute, MOST_PER_MINUTE)
        self._slot_seconds = 60 * SLACK / per_minute if per_minute else 0.0
        self._prefix = f"tiktok_business:{app_id}"
        self._cache_alias = cache_alias
        self._lock = threading.Lock()
        self._taken: set[int] = set()  # present and future slots known to be taken
        self._paused_until = 0.0  # by the shared clock
        self._pauses = 0
        self._looked_up_at = -math.inf  # monotonic; when the pause was last looked up

    @property
    def pauses(self) -> int:
        """How many pauses TikTok has asked for in a row, up to the last refusal."""
        return self._pauses

    @property
    def is_paused(self) -> bool:
        """Whether a pause that TikTok has asked for is not over yet."""
        with self._lock:
            return self._pause_end() > clock.now()

    def reserve(self, ahead_seconds: float) -> float | None:
        """Take a slot; return the seconds until it begins, or None when no slot is free.

        Looks ``ahead_seconds`` into the future. A slot that is taken and not used is lost.
        """
        with self._lock:
            now = clock.now()
            begin = max(now, self._pause_end())
            if not self._slot_seconds:
                return begin - now if begin - now <= ahead_seconds else None
            current = math.floor(now / self._slot_seconds)
            self._taken = {slot for slot in self._taken if slot >= current}
            is_late = now - current * self._slot_seconds > LATEST
            if begin > now:
                index = math.ceil(begin / self._slot_seconds)
            else:
                index = current + 1 if is_late else current
            while (wait_seconds := index * self._slot_seconds - now) <= ahead_seconds:
                if index not in self._taken and self._take(index, max(wait_seconds, 0.0)):
                    return max(wait_seconds, 0.0)
                index += 1
            return None

    def wait_seconds(self, ahead_seconds: float) -> float:
        """After `reserve` returned None: the seconds until another try may succeed."""
        with self._lock:
            now = clock.now()
            if (pause := self._pause_end() - now - ahead_seconds) > 0:
                return pause
            if not self._slot_seconds:
                return 0.0
            return self._slot_seconds - (now + ahead_seconds) % self._slot_seconds

    def refused(self, error: RateLimitError, *, sent_at: float) -> float:
        """Make all processes pause after TikTok refused a call; return for how many seconds.

        At most MAX_PAUSE_SECONDS; then a call may show whether TikTok accepts them again.
        ``sent_at``: when the call was sent, by the shared clock. TikTok refuses calls that were
        under way when a pause began for the same reason, so they do not prolong it.
        """
        with self._lock:
            self._looked_up_at = -math.inf
            end = self._pause_end()
            now = clock.now()
            if sent_at < end and error.retry_after is None:
                return max(end - now, 0.0)
            if sent_at >= end:
                is_in_a_row = self._pauses > 0 and sent_at - end < IN_A_ROW_SECONDS
                self._pauses = self._pauses + 1 if is_in_a_row else 1
            seconds = self._asked_for(error)
            self._paused_until = max(end, now + seconds)
            value = (self._paused_until, self._pauses)
            lives_seconds = math.ceil(self._paused_until - now + IN_A_ROW_SECONDS)
            self._cached("set", f"{self._prefix}:pause", value, lives_seconds)
            logger.warning("TikTok asks for fewer calls (%s): pausing for %.0f s.", error, seconds)
            return self._paused_until - now

    def _asked_for(self, error: RateLimitError) -> float:
        if error.retry_after is not None:
            return min(max(error.retry_after, NEXT_SECOND), MAX_PAUSE_SECONDS)
        # Messages seen: "App reaches the QPS limit." and "... requests from App are temporarily
        # restricted."; TikTok's code is 40100 for both.
        if "QPS" in error.message:
            return NEXT_SECOND
        is_restricted = "QPM" in error.message or "restricted" in error.message
        return FIVE_MINUTES if is_restricted or self._pauses > 1 else NEXT_SECOND

    def _take(self, index: int, wait_seconds: float) -> bool:
        # A key expires soon after its slot, which nobody takes then. In whole seconds, as Redis
        # and Memcached count.
        lives_seconds = math.ceil(wait_seconds + self._slot_seconds) + 2
        key = f"{self._prefix}:{self.per_minute}:{index}"
        self._taken.add(index)
        for _ in range(3):
            if self._cached("add", key, 1, lives_seconds) is not False:
                return True
            # Some caches return False also when they fail, or when two callers collide. Only the
            # key shows that somebody has taken the slot.
            if self._cached("get", key) is not None:
                return False
        return True  # the cache fails

    def _pause_end(self) -> float:
        if time.monotonic() - self._looked_up_at >= PAUSE_LOOKUP_SECONDS:
            self._looked_up_at = time.monotonic()
            match self._cached("get", f"{self._prefix}:pause"):
                case (float() as until, int() as pauses) if _is_possible(until):
                    self._paused_until, self._pauses = until, pauses
        return self._paused_until if _is_possible(self._paused_until) else 0.0

    def _cached(self, method: str, *arguments: Any) -> Any:
        """Call a method of the cache; None when the cache fails."""
        return cached(
            lambda cache: getattr(cache, method)(*arguments),
            otherwise=None,
            alias=self._cache_alias,
            own_connection=True,
        )


def _is_possible(paused_until: float) -> bool:
    """Whether it can be the end of a pause; a later one comes from a wrong clock."""
    return paused_until <= clock.now() + MAX_PAUSE_SECONDS + CLOCK_TOLERANCE_SECONDS


@lru_cache(maxsize=16)
def shared_limiter(per_minute: int, *, app_id: str, cache_alias: str) -> RateLimiter:
    """The limiter that all threads of this process share, so that none takes a slot twice."""
    return RateLimiter(per_minute, app_id=app_id, cache_alias=cache_alias)


# A forked child does not inherit the thread that held a limiter's lock, only the locked lock.
getattr(os, "register_at_fork", lambda **hooks: None)(after_in_child=shared_limiter.cache_clear)
