"""How often something has happened within a minute, counted in the cache that processes share."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from django.core.cache import caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.db import router, transaction

from . import conf

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from django.core.cache.backends.base import BaseCache

__all__ = ["LIMIT_SECONDS", "cached", "count", "number"]

logger = logging.getLogger("tiktok_business")

LIMIT_SECONDS = 60


def count(event: str, whose: str) -> int:
    """Count one more ``event``, and say how many it is within LIMIT_SECONDS.

    1 where the cache is down or keeps nothing: then nobody is stopped.
    """
    key = _key(event, whose)

    def count_in(cache: BaseCache) -> int:
        if cache.add(key, 1, timeout=2 * LIMIT_SECONDS):
            return 1
        return int(cache.incr(key))

    number: int = cached(count_in, otherwise=1)
    return number


def number(event: str, whose: str) -> int:
    """How many of ``event`` there were within LIMIT_SECONDS; 0 where the cache is down."""
    key = _key(event, whose)
    found = cached(lambda cache: cache.get(key), otherwise=0)
    return found if isinstance(found, int) else 0


def _key(event: str, whose: str) -> str:
    window = int(time.time()) // LIMIT_SECONDS
    digest = hashlib.sha256(whose.encode(errors="replace")).hexdigest()
    # The window is in the key: some caches prolong the life of what they count.
    return f"tiktok_business.{event}.{digest}.{window}"


def cached(ask: Callable[[BaseCache], Any], *, otherwise: Any) -> Any:
    """What the cache says, or ``otherwise`` when it does not work."""
    alias = conf.or_default("CACHE_ALIAS")
    try:
        cache = caches[alias]
        with _savepoint(cache):
            return ask(cache)
    except Exception as error:  # noqa: BLE001 -- each cache backend has errors of its own
        logger.warning("The cache %s does not work: %s", alias, type(error).__name__)
        return otherwise


def _savepoint(cache: BaseCache) -> AbstractContextManager[object]:
    """A cache in the database that fails must not fail the transaction of the request."""
    if not isinstance(cache, BaseDatabaseCache):
        return nullcontext()
    return transaction.atomic(using=router.db_for_write(cache.cache_model_class))
