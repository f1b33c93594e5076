"""Rate limits: a number of calls in any 60 seconds, then a penalty.

TikTok allows 40 calls a minute per account and endpoint and 600 per app, then blocks for five
minutes: official appendix (doc ids 1737172488964097, 1749734684478466, 1759977800177665) and
Accounts API pages, 2026-11-22.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

WINDOW_SECONDS = 60.0


class RateLimits:
    """Sliding windows by key; refused calls do not count. Not thread-safe."""

    def __init__(self) -> None:
        self._windows: dict[Hashable, deque[float]] = {}
        self._blocked_until: dict[Hashable, float] = {}

    def allows(self, key: Hashable, limit: int, now: float, penalty_seconds: float) -> bool:
        """Count one call; False if it exceeds the limit or the key is still blocked."""
        if now < self._blocked_until.get(key, now):
            return False
        window = self._windows.setdefault(key, deque())
        while window and window[0] <= now - WINDOW_SECONDS:
            window.popleft()
        if len(window) >= limit:
            self._blocked_until[key] = now + penalty_seconds
            return False
        window.append(now)
        return True
