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

__all__ = ["LIMIT_SECONDS", "cached", "is_reached", "is_within"]

logger = logging.getLogger("tiktok_business")

LIMIT_SECONDS = 60


def is_within(event: str, whose: str, most: int) -> bool:
    """Count one more ``event``; False when there are more than ``most`` within LIMIT_SECONDS.

    Each is a key of its own: `add` is atomic also where `incr` is not, as in the database. True
    where the cache is down or keeps nothing: then nobody is stopped.
    """
    key = _key(event, whose)

    def is_counted(cache: BaseCache) -> bool:
        keys = (f"{key}.{number}" for number in range(1, most + 1))
        return any(cache.add(each, 1, timeout=2 * LIMIT_SECONDS) for each in keys)

    is_counted_or_down: bool = cached(is_counted, otherwise=True)
    return is_counted_or_down


def is_reached(event: str, whose: str, most: int) -> bool:
    """Whether there were ``most`` within LIMIT_SECONDS, without counting another one."""
    key = f"{_key(event, whose)}.{most}"
    return cached(lambda cache: cache.get(key), otherwise=None) is not None


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
