"""Writes that last, whatever happens to the database or to the caller's transaction."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from django.db import InterfaceError, OperationalError, connections

from .exceptions import AccountBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LOCK_PATIENCE_SECONDS",
    "committed",
    "is_in_transaction",
    "persisted",
    "save_after_rollback",
]

T = TypeVar("T")

logger = logging.getLogger("tiktok_business")

POLL_SECONDS = 0.1  # how often a locked or missing database is tried again, at first
SAVE_PATIENCE_SECONDS = 60  # how long an answer is kept in memory while the database is away
LOCK_PATIENCE_SECONDS = 3  # how long a refresh waits for a row that an open transaction has locked


def persisted(write: Callable[[], T], using: str) -> T:
    """Write down an answer of TikTok, waiting for the database if it is away for a while.

    Inside a transaction there is nothing to wait for: it is broken with its first error.
    """
    connection = connections[using]
    # Not get_autocommit(): it would connect, and the database may be away.
    is_manual = connection.connection is not None and not connection.autocommit
    deadline = time.monotonic() + SAVE_PATIENCE_SECONDS
    pause = POLL_SECONDS
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block or is_manual or time.monotonic() > deadline:
                logger.critical("An answer of TikTok could not be stored: the database is away.")
                raise
            connection.close()
            time.sleep(pause)
            pause = min(pause * 2, 5)


def is_in_transaction(using: str) -> bool:
    """Whether a transaction of the caller could undo what we write.

    The transactions that Django's TestCase wraps around a test are not such: nothing outside the
    test may see what it writes.
    """
    connection = connections[using]
    if any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
        return False
    return connection.in_atomic_block or not connection.get_autocommit()


def committed(work: Callable[[], T], using: str) -> T:
    """Run ``work`` so that a rollback of the caller's transaction does not undo its writes.

    Outside a transaction it just runs. Inside one it runs in a thread with a connection of its
    own; rows that the caller's transaction has locked give `AccountBusyError`. SQLite allows one
    writer only, which the caller's transaction may already be: there it runs inside, and what it
    saved is saved once more after a rollback (see `save_after_rollback`).
    """
    if not is_in_transaction(using) or connections[using].vendor == "sqlite":
        return work()

    def on_own_connection() -> T:
        connection = connections[using]
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SET lock_timeout = '{LOCK_PATIENCE_SECONDS}s'"
                    if connection.vendor == "postgresql"
                    else f"SET SESSION innodb_lock_wait_timeout = {LOCK_PATIENCE_SECONDS}"
                )
            return work()
        except OperationalError:
            raise AccountBusyError(
                "An open transaction (perhaps the caller's own) has locked the account."
            ) from None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(on_own_connection).result()


def save_after_rollback(
    save: Callable[[], object],
    using: str,
    *,
    patience_seconds: float = 10 * SAVE_PATIENCE_SECONDS,
) -> None:
    """Repeat a save once the caller's transaction on SQLite has ended.

    ``save`` is conditional: after a commit it matches no row. It waits for the write lock that the
    transaction holds, in a thread that keeps the process from exiting before it is done.
    """

    def when_unlocked() -> None:
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            try:
                save()
            except OperationalError:
                time.sleep(POLL_SECONDS)
            else:
                return
            finally:
                connections[using].close()
        logger.critical("A token pair could not be stored: SQLite stayed locked.")

    threading.Thread(target=when_unlocked, name="tiktok_business save after rollback").start()
