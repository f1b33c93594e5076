"""The rate limit that all processes share, and the pauses that TikTok asks for.

Time is cut into slots, each a little longer than a minute divided by the calls that a minute may
hold. A slot belongs to the caller who adds its key to the cache first: ``add`` is atomic on Redis,
on Memcached, on Django's database cache (a key is never used twice there) and, within one process,
on local memory. So all processes together spread their calls evenly, and none needs to know of the
others.

A caller that may take slots further in the future goes first. Somebody waits for an on-demand
refresh: it takes the next free slot, wherever that is. A batch takes slots of the next moments
only,
and profile syncs take what nobody has taken until it is time.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from django_tiktok_business.cache import cached
from django_tiktok_business.db import clock

from .retry import LONGEST_PAUSE_SECONDS

if TYPE_CHECKING:
    from django_tiktok_business.exceptions import RateLimitError


__all__ = ["BATCH", "ON_DEMAND", "WHEN_IDLE", "RateLimiter", "shared_limiter"]

logger = logging.getLogger("tiktok_business")

# How far ahead a slot may be taken, in seconds: who sees further comes first.
ON_DEMAND: Final = LONGEST_PAUSE_SECONDS
BATCH: Final = 0.25
WHEN_IDLE: Final = 0.0

# A slot is longer than 60 / N by this, and can be taken for so many seconds after it has begun, so
# that calls that are sent or arrive a little late do not add up to more than N in any minute:
# slots that begin within 60.5 seconds are 0.9984 N at most, and one for the fence post.
SLACK: Final = 1.01
LATEST: Final = 0.5
MOST_PER_MINUTE: Final = 10_000_000  # more than anybody can make; a slot must have a length

# "Rate limits", TikTok API for Business, 2026-08-13: after too many queries in a second go on in
# the next one, after too many in a minute pause for five minutes.
NEXT_SECOND = 1.0
FIVE_MINUTES = 300.0
LONGEST_PAUSE = 3600.0  # whatever Retry-After says: tokens expire, and a proxy can send that too
CLOCK_TOLERANCE = 60.0  # how far a pause may seem longer than that, should a clock be set meanwhile
IN_A_ROW_SECONDS = 60.0  # a refusal that comes so soon after a pause is about more than a second
PAUSE_LOOKUP_SECONDS = 0.2  # how often a process looks whether another was told to pause


class RateLimiter:
    """At most ``per_minute`` calls (0: any number) of one app, over all processes with the cache.

    Thread-safe. Processes share a ceiling when app and number are the same; a pause holds for all
    of the app's. When the cache fails, each process keeps to the ceiling by itself.
    """

    def __init__(self, per_minute: int, *, app_id: str, cache_alias: str) -> None:
        self.per_minute = per_minute = min(per_minute, MOST_PER_MINUTE)
        self._slot_seconds = 60 * SLACK / per_minute if per_minute else 0.0
        self._prefix = f"tiktok_business:{app_id}"
        self._cache_alias = cache_alias
        self._lock = threading.Lock()
        self._taken: set[int] = set()  # slots that this process knows to be taken, not yet past
        self._paused_until = 0.0  # by the shared clock
        self._pauses = 0
        self._looked_at = -math.inf  # monotonic; when the pause was last looked up

    @property
    def pauses(self) -> int:
        """How many pauses in a row TikTok has asked for, by the last refusal."""
        return self._pauses

    @property
    def is_paused(self) -> bool:
        """Whether TikTok has asked for a pause that is not over."""
        with self._lock:
            return self._pause_end() > clock.now()

    def reserve(self, ahead_seconds: float) -> float | None:
        """Take a slot; return the seconds until it begins, or None when none is free.

        Looks ``ahead_seconds`` into the future. A slot that was taken and is not used is lost.
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
        """After `reserve` gave None: how long it takes until it is worth another try."""
        with self._lock:
            now = clock.now()
            if (pause := self._pause_end() - now - ahead_seconds) > 0:
                return pause
            if not self._slot_seconds:
                return 0.0
            return self._slot_seconds - (now + ahead_seconds) % self._slot_seconds

    def refused(self, error: RateLimitError, *, sent_at: float) -> float:
        """TikTok has refused a call for its rate: let everybody pause; returns for how long.

        At most LONGEST_PAUSE; then somebody may look whether calls are taken again. ``sent_at`` is
        when the call was sent, by the shared clock: calls that were under way when a pause began
        are refused for the same reason, and prolong nothing.
        """
        with self._lock:
            self._looked_at = -math.inf
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
            return min(max(error.retry_after, NEXT_SECOND), LONGEST_PAUSE)
        # "App reaches the QPS limit." and "... requests from App are temporarily restricted.":
        # the messages seen; TikTok's code is 40100 for both.
        if "QPS" in error.message:
            return NEXT_SECOND
        is_restricted = "QPM" in error.message or "restricted" in error.message
        return FIVE_MINUTES if is_restricted or self._pauses > 1 else NEXT_SECOND

    def _take(self, index: int, wait_seconds: float) -> bool:
        # Past, nobody tries to take it any more: this keeps the keys few. Whole seconds, as
        # Redis and Memcached count them.
        lives_seconds = math.ceil(wait_seconds + self._slot_seconds) + 2
        key = f"{self._prefix}:{self.per_minute}:{index}"
        self._taken.add(index)
        for _ in range(3):
            if self._cached("add", key, 1, lives_seconds) is not False:
                return True
            # Some caches say that too when they fail, or when two collide: a slot that somebody
            # has is there to be seen.
            if self._cached("get", key) is not None:
                return False
        return True  # it fails

    def _pause_end(self) -> float:
        if time.monotonic() - self._looked_at >= PAUSE_LOOKUP_SECONDS:
            self._looked_at = time.monotonic()
            match self._cached("get", f"{self._prefix}:pause"):
                case (float() as until, int() as pauses) if _is_possible(until):
                    self._paused_until, self._pauses = until, pauses
        return self._paused_until if _is_possible(self._paused_until) else 0.0

    def _cached(self, method: str, *arguments: Any) -> Any:
        """Call the cache; None when it fails."""
        return cached(
            lambda cache: getattr(cache, method)(*arguments),
            otherwise=None,
            alias=self._cache_alias,
            own_connection=True,
        )


def _is_possible(paused_until: float) -> bool:
    """Whether it can be the end of a pause: a later one was set by a wrong clock."""
    return paused_until <= clock.now() + LONGEST_PAUSE + CLOCK_TOLERANCE


@lru_cache(maxsize=16)
def shared_limiter(per_minute: int, *, app_id: str, cache_alias: str) -> RateLimiter:
    """The one ceiling of its kind in this process: its threads, too, must not take a slot twice."""
    return RateLimiter(per_minute, app_id=app_id, cache_alias=cache_alias)


# A thread that held a ceiling's lock while another one forked does not live on in the child.
getattr(os, "register_at_fork", lambda **hooks: None)(after_in_child=shared_limiter.cache_clear)
