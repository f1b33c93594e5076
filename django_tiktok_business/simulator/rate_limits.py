"""Rate limits: so many calls in any 60 seconds, then a pause.

40 per minute for one account and one endpoint, 600 per minute for the app, then five minutes of
pause: official appendix (doc ids 1737172488964097, 1749734684478466, 1759977800177665) and Accounts
API pages, 2026-11-22.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

__all__ = ["RateLimits"]

WINDOW_SECONDS = 60.0


class RateLimits:
    """Sliding windows by key; a refused call does not count. Not locked."""

    def __init__(self) -> None:
        self._windows: dict[Hashable, deque[float]] = {}
        self._blocked_until: dict[Hashable, float] = {}

    def allows(self, key: Hashable, limit: int, now: float, penalty_seconds: float) -> bool:
        """Count one call; False when it is one too many or the key is still blocked."""
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
