"""What processes share through Django's cache. A cache that is down stops nobody."""

from __future__ import annotations

import hashlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from django.core.cache import caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.db import connections, router, transaction

from .conf import conf

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.core.cache.backends.base import BaseCache


__all__ = ["LIMIT_SECONDS", "allow", "cached", "halt", "halt_reason", "is_exhausted"]

logger = logging.getLogger("tiktok_business")

LIMIT_SECONDS = 60
WARN_AGAIN_SECONDS = 60.0


def allow(event: str, whose: str, most: int) -> bool:
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


def is_exhausted(event: str, whose: str, most: int) -> bool:
    """Whether there were ``most`` within LIMIT_SECONDS, without counting another one."""
    key = f"{_key(event, whose)}.{most}"
    return cached(lambda cache: cache.get(key), otherwise=None) is not None


def _key(event: str, whose: str) -> str:
    window = int(time.time()) // LIMIT_SECONDS
    digest = hashlib.sha256(whose.encode(errors="replace")).hexdigest()
    # The window is in the key: some caches prolong the life of what they count.
    return f"tiktok_business.{event}.{digest}.{window}"


def halt(reason: str, seconds: int) -> None:
    """Have `halt_reason` tell all processes for so many seconds why not to call TikTok."""
    cached(lambda cache: cache.set(_halt_key(), reason, seconds), otherwise=None)


def halt_reason() -> str | None:
    """Why no queue job may call TikTok just now; None when all may."""
    reason: str | None = cached(lambda cache: cache.get(_halt_key()), otherwise=None)
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
    """What the cache says, or ``otherwise`` when it does not work.

    ``alias`` defaults to CACHE_ALIAS. A cache in the database that fails does not fail the caller's
    transaction. With ``own_connection`` others see at once what is written there, not only when
    that transaction ends.
    """
    alias = conf.usable("CACHE_ALIAS") if alias is None else alias
    try:
        cache = caches[alias]
        if not isinstance(cache, BaseDatabaseCache):
            return ask(cache)
        using = router.db_for_write(cache.cache_model_class)
        if own_connection and not _is_only_writer(using):
            # Its own thread has its own connection; a pool's threads have none to close.
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

    SQLite has one writer: the caller's transaction, if it writes from its beginning on. Nobody else
    can take a slot meanwhile.
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
