"""Share limits and halts among processes through Django's cache; a cache that fails allows all."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import BaseDatabaseCache
from django.db import connections, router, transaction

from .conf import conf

__all__ = ["LIMIT_SECONDS", "allow", "cached", "halt", "halt_reason", "is_exhausted"]

logger = logging.getLogger("tiktok_business")

LIMIT_SECONDS = 60
WARN_AGAIN_SECONDS = 60.0


def allow(event: str, subject: str, limit: int) -> bool:
    """Count an event; False when there are more than ``limit`` of its kind within LIMIT_SECONDS.

    ``subject``: whom the limit is for. True when the cache fails or stores nothing.
    """
    key = _key(event, subject)

    def is_counted(cache: BaseCache) -> bool:
        # A key for each event: `add` is atomic even where `incr` is not, as in the database.
        keys = (f"{key}.{number}" for number in range(1, limit + 1))
        return any(cache.add(each, 1, timeout=2 * LIMIT_SECONDS) for each in keys)

    is_allowed: bool = cached(is_counted, otherwise=True)
    return is_allowed


def is_exhausted(event: str, subject: str, limit: int) -> bool:
    """Whether `allow` has counted ``limit`` events within LIMIT_SECONDS; counts none itself."""
    key = f"{_key(event, subject)}.{limit}"
    return cached(lambda cache: cache.get(key), otherwise=None) is not None


def _key(event: str, subject: str) -> str:
    window = int(time.time()) // LIMIT_SECONDS
    digest = hashlib.sha256(subject.encode(errors="replace")).hexdigest()
    # The window is part of the key since some caches extend a key's lifetime when it changes.
    return f"tiktok_business.{event}.{digest}.{window}"


def halt(reason: str, seconds: int) -> None:
    """Halt the queue jobs of all processes for so many seconds; `halt_reason` returns why."""
    key = _halt_key()
    cached(lambda cache: cache.set(key, reason, seconds), otherwise=None)


def halt_reason() -> str | None:
    """Why queue jobs may not call TikTok at present; None when they may."""
    key = _halt_key()
    reason: str | None = cached(lambda cache: cache.get(key), otherwise=None)
    return reason


def _halt_key() -> str:
    return f"tiktok_business:{conf.APP_ID}:halted"


def cached(
    ask: Callable[[BaseCache], Any],
    *,
    otherwise: Any,
    alias: str | None = None,
    own_connection: bool = False,
) -> Any:
    """Return what ``ask`` returns for the cache, or ``otherwise`` when the cache fails.

    ``alias`` defaults to CACHE_ALIAS. A database cache that fails leaves the caller's transaction
    intact. With ``own_connection``, others see what is written to it before that transaction ends.
    """
    alias = conf.usable("CACHE_ALIAS") if alias is None else alias
    try:
        cache = caches[alias]
        if not isinstance(cache, BaseDatabaseCache):
            return ask(cache)
        using = router.db_for_write(cache.cache_model_class)
        if own_connection and not _is_only_writer(using):
            # A new thread has a connection of its own. Unlike a pool's, its connection is closed.
            with ThreadPoolExecutor(max_workers=1) as thread:
                return thread.submit(_ask_and_disconnect, ask, alias).result()
        with transaction.atomic(using=using):
            return ask(cache)
    except Exception as error:  # noqa: BLE001 -- each cache backend has errors of its own
        _warn(alias, error)
        return otherwise


def _ask_and_disconnect(ask: Callable[[BaseCache], Any], alias: str) -> Any:
    try:
        return ask(caches[alias])
    finally:
        connections.close_all()


_WRITING_MODES: Final = ("IMMEDIATE", "EXCLUSIVE")


def _is_only_writer(using: str) -> bool:
    """Whether another connection would wait in vain for the caller's transaction to end.

    SQLite has one writer. If the caller's transaction has been it from its beginning, nobody else
    can write to the cache until it ends, so it needs no other connection.
    """
    connection: Any = connections[using]
    is_writer = connection.vendor == "sqlite" and connection.in_atomic_block
    return is_writer and connection.transaction_mode in _WRITING_MODES


_warned_at: dict[str, float] = {}  # monotonic seconds, by alias


def _warn(alias: str, error: Exception) -> None:
    now = time.monotonic()
    if now - _warned_at.get(alias, -WARN_AGAIN_SECONDS) >= WARN_AGAIN_SECONDS:
        _warned_at[alias] = now
        logger.warning(
            "The cache %r does not answer (%s): until it does, each process keeps to "
            "REQUESTS_PER_MINUTE by itself, and no other limit holds.",
            alias,
            type(error).__name__,
        )
