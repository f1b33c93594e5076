"""How often something has happened within a minute, counted in the cache that processes share."""

from __future__ import annotations

import hashlib
import logging
import time
from typing import TYPE_CHECKING, Any

from django.core.cache import caches

from . import conf

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.core.cache.backends.base import BaseCache

__all__ = ["LIMIT_SECONDS", "cached", "count"]

logger = logging.getLogger("tiktok_business")

LIMIT_SECONDS = 60


def count(event: str, whose: str) -> int:
    """Count one more ``event``, and say how many it is within LIMIT_SECONDS.

    1 where the cache is down or keeps nothing: then nobody is stopped.
    """
    window = int(time.time()) // LIMIT_SECONDS
    digest = hashlib.sha256(whose.encode(errors="replace")).hexdigest()
    # The window is in the key: some caches prolong the life of what they count.
    key = f"tiktok_business.{event}.{digest}.{window}"

    def count_in(cache: BaseCache) -> int:
        if cache.add(key, 1, timeout=2 * LIMIT_SECONDS):
            return 1
        return int(cache.incr(key))

    number: int = cached(count_in, otherwise=1)
    return number


def cached(ask: Callable[[BaseCache], Any], *, otherwise: Any) -> Any:
    """What the cache says, or ``otherwise`` when it does not work."""
    try:
        return ask(caches[conf.CACHE_ALIAS])
    except Exception as error:  # noqa: BLE001 -- each cache backend has errors of its own
        logger.warning("The cache %s does not work: %s", conf.CACHE_ALIAS, type(error).__name__)
        return otherwise
