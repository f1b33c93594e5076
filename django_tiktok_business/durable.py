"""Writes that last, whatever happens to the database or to the caller's transaction."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from django.db import (
    Error,
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)

from .exceptions import AccountBusyError, TikTokBusinessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = [
    "LOCK_PATIENCE_SECONDS",
    "PASSING_ERRORS",
    "SAVE_PATIENCE_SECONDS",
    "busy_if_locked",
    "committed",
    "is_in_transaction",
    "persisted",
    "save_later",
    "short_lock_waits",
]

T = TypeVar("T")

logger = logging.getLogger("tiktok_business")

POLL_SECONDS = 0.1  # how often a locked or missing database is tried again, at first
SAVE_PATIENCE_SECONDS = 60  # how long an answer is kept in memory while the database is away
LOCK_PATIENCE_SECONDS = 3  # how long a refresh waits for a row that an open transaction has locked

# What passes when the database is well again. InternalError: of PostgreSQL that is read-only while
# a standby takes over.
PASSING_ERRORS = (OperationalError, InterfaceError, InternalError)

_LOCKED = "An open transaction (perhaps the caller's own) has locked the account."


def persisted(
    write: Callable[[], T], using: str, *, patience_seconds: float = SAVE_PATIENCE_SECONDS
) -> T:
    """Write down an answer of TikTok, waiting for the database if it is away for a while.

    Inside a transaction there is nothing to wait for: it is broken with its first error.
    """
    connection = connections[using]
    # Not get_autocommit(): it would connect, and the database may be away.
    is_manual = connection.connection is not None and not connection.autocommit
    deadline = time.monotonic() + patience_seconds
    pause = POLL_SECONDS
    is_new = False
    while True:
        try:
            if is_new:
                connection.set_autocommit(True)  # the project's settings may have it off
            return write()
        except PASSING_ERRORS:
            if connection.in_atomic_block or is_manual or time.monotonic() > deadline:
                logger.critical("An answer of TikTok could not be stored: is the database away?")
                raise
            connection.close()
            is_new = True
            time.sleep(pause)
            pause = min(pause * 2, 5)


@contextmanager
def short_lock_waits(using: str) -> Iterator[None]:
    """Let a statement wait for a locked row for no longer than LOCK_PATIENCE_SECONDS.

    By itself PostgreSQL waits without end, and MariaDB for 50 seconds. Changes nothing inside a
    transaction, and nothing on SQLite.
    """
    connection = connections[using]
    is_plain = not connection.in_atomic_block and connection.get_autocommit()
    if connection.vendor == "postgresql" and is_plain:
        # Local to a transaction: a pooler would hand the session to somebody else as it is.
        with transaction.atomic(using=using):
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_PATIENCE_SECONDS}s'")
            yield
    elif connection.vendor == "mysql" and is_plain:
        with _session_waits_briefly(connection):
            yield
    else:
        yield


@contextmanager
def _session_waits_briefly(connection: BaseDatabaseWrapper) -> Iterator[None]:
    if connection.vendor == "postgresql":
        begin, end = f"SET lock_timeout = '{LOCK_PATIENCE_SECONDS}s'", "RESET lock_timeout"
    else:
        name = "innodb_lock_wait_timeout"
        begin = f"SET @tiktok_business = @@{name}, SESSION {name} = {LOCK_PATIENCE_SECONDS}"
        end = f"SET SESSION {name} = @tiktok_business"
    with connection.cursor() as cursor:
        cursor.execute(begin)
    try:
        yield
    finally:
        # Not where the connection is lost, and with it the setting.
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute(end)


@contextmanager
def busy_if_locked(using: str) -> Iterator[None]:
    """Raise `AccountBusyError` where a transaction holds a row that the block needs."""
    connection = connections[using]
    connection.ensure_connection()
    begun_with = connection.connection
    try:
        with short_lock_waits(using):
            yield
    except OperationalError:
        # A connection that is lost means something else; atomic() may have made another since.
        is_lost = connection.connection is not begun_with or not connection.is_usable()
        if is_lost or connection.in_atomic_block:
            raise
        raise AccountBusyError(_LOCKED) from None


def is_in_transaction(using: str) -> bool:
    """Whether a transaction of the caller could undo what we write.

    The transactions that Django's TestCase wraps around a test are not such: nothing outside the
    test may see what it writes.
    """
    connection = connections[using]
    if _is_in_test(using):
        return False
    return connection.in_atomic_block or not connection.get_autocommit()


def _is_in_test(using: str) -> bool:
    blocks = connections[using].atomic_blocks
    return any(getattr(block, "_from_testcase", False) for block in blocks)


def committed(work: Callable[[], T], using: str) -> T:
    """Run ``work`` so that a rollback of the caller's transaction does not undo its writes.

    Outside a transaction it just runs. Inside one it runs in a thread with a connection of its
    own; rows that the caller's transaction has locked give `AccountBusyError`. SQLite allows one
    writer only, which the caller's transaction may already be: there it runs inside, and what it
    saved is saved once more after a rollback (see `save_later`).
    """
    if not is_in_transaction(using) or connections[using].vendor == "sqlite":
        return work()

    def on_own_connection() -> T:
        connection = connections[using]
        try:
            connection.set_autocommit(True)  # the project's settings may have it off
            # Receivers of signals too may touch what the caller has locked, and it waits for us.
            with _session_waits_briefly(connection):
                return work()
        except OperationalError:
            raise AccountBusyError(_LOCKED) from None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(on_own_connection).result()


def save_later(
    save: Callable[[], object],
    using: str,
    *,
    patience_seconds: float = 10 * SAVE_PATIENCE_SECONDS,
) -> None:
    """Try to save until it succeeds, in a thread that keeps the process from exiting before that.

    For what could not be saved at once, and for what the caller's transaction on SQLite, whose
    write lock the thread waits for, may still undo. ``save`` is conditional: once the row holds
    what it writes, or something newer, it matches no row.
    """
    if _is_in_test(using):
        return  # the thread would wait for a transaction that is never committed

    def until_saved() -> None:
        connection = connections[using]
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            try:
                connection.set_autocommit(True)
                save()
            except Error:
                time.sleep(POLL_SECONDS)
            except TikTokBusinessError as error:
                logger.critical("A token pair could not be stored: %s", error)
                return
            else:
                return
            finally:
                connection.close()
        logger.critical("A token pair could not be stored: the database stayed locked or away.")

    threading.Thread(target=until_saved, name="tiktok_business save").start()
