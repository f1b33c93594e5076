"""Database writes that survive outages and the caller's rollback.

TikTok is never asked twice for a token pair, so its answer has to be stored even if the database is
away for a while, or the caller rolls back the transaction that happens to be open.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from django.db import (
    Error,
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)
from django.db.models import Model

from django_tiktok_business.exceptions import AccountBusyError, TikTokBusinessError

from .vendors import (
    LOCK_PATIENCE_SECONDS,
    LOCKED,
    is_autocommit,
    is_conflict,
    lock_timeout,
    session_lock_timeout,
)

logger = logging.getLogger("tiktok_business")

T = TypeVar("T")
POLL_SECONDS = 0.1  # the first pause before a locked or unreachable database is tried again
SAVE_PATIENCE_SECONDS = 60  # how long an answer is kept in memory while the database is away
SHORT_PATIENCE_SECONDS = 1  # the same, from the first time that was too short until it answers

# Errors that end when the database has recovered. InternalError: PostgreSQL that is read-only while
# a standby takes over.
PASSING_ERRORS = (OperationalError, InterfaceError, InternalError)
_given_up: set[str] = set()  # databases that stayed away for too long the last time


def store_answer(
    write: Callable[[], T], using: str, *, patience_seconds: float = SAVE_PATIENCE_SECONDS
) -> T:
    """Store an answer of TikTok; if the database is away, wait for it."""
    try:
        return retry_while_unavailable(write, using, patience_seconds=patience_seconds)
    except PASSING_ERRORS:
        logger.critical("An answer of TikTok could not be stored: is the database away?")
        raise


def retry_while_unavailable(
    work: Callable[[], T], using: str, *, patience_seconds: float = SAVE_PATIENCE_SECONDS
) -> T:
    """Run ``work``; while the database is away, run it again on a new connection.

    When a connection breaks, ``work`` may already have taken effect, so it must be safe to repeat.
    Inside a transaction waiting is useless, because the first error breaks the transaction.
    """
    connection = connections[using]
    # Not get_autocommit(), which connects: the database may be away.
    is_manual = connection.connection is not None and not connection.autocommit
    if using in _given_up:  # the next answers need not wait as long to find out the same
        patience_seconds = min(patience_seconds, SHORT_PATIENCE_SECONDS)
    deadline = time.monotonic() + patience_seconds
    pause = POLL_SECONDS
    is_new = False
    while True:
        try:
            if is_new:
                connection.set_autocommit(True)  # the project's settings may turn it off
            result = work()
        except PASSING_ERRORS:
            if connection.in_atomic_block or is_manual:
                raise
            if time.monotonic() > deadline:
                if patience_seconds > SHORT_PATIENCE_SECONDS:  # a short wait proves nothing
                    _given_up.add(using)
                raise
            connection.close()
            is_new = True
            time.sleep(pause)
            pause = min(pause * 2, 5)
        else:
            _given_up.discard(using)
            return result


def update_row(
    model: type[Model], changes: Mapping[str, Any], *, where: Mapping[str, Any], using: str
) -> int:
    """Run ``filter(**where).update(**changes)`` with plain values and a `lock_timeout`.

    Returns the number of rows. For the one statement at the end of each refresh: the ORM takes
    longer to compose it than the database to run it, and on PostgreSQL the lock timeout is part of
    the statement, which then needs no explicit transaction.
    """
    connection = connections[using]
    quote = connection.ops.quote_name

    def terms(values: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        fields: list[Any] = [model._meta.get_field(name) for name in values]
        prepared = [
            field.get_db_prep_save(value, connection)
            for field, value in zip(fields, values.values(), strict=True)
        ]
        return [f"{quote(field.column)} = %s" for field in fields], prepared

    set_terms, set_values = terms(changes)
    where_terms, where_values = terms(where)
    timeout: AbstractContextManager[None] = lock_timeout(using)
    if connection.vendor == "postgresql" and is_autocommit(connection):
        # Evaluated once, before anything else; in force until the end of the statement, which is a
        # transaction by itself.
        where_terms = ["(SELECT set_config('lock_timeout', %s, true)) IS NOT NULL", *where_terms]
        where_values = [f"{LOCK_PATIENCE_SECONDS}s", *where_values]
        timeout = nullcontext()
    sql = (
        f"UPDATE {quote(model._meta.db_table)} SET {', '.join(set_terms)} "  # noqa: S608 -- names alone
        f"WHERE {' AND '.join(where_terms)}"
    )
    with timeout, connection.cursor() as cursor:
        cursor.execute(sql, [*set_values, *where_values])
        rows: int = cursor.rowcount
    return rows


def is_in_transaction(using: str) -> bool:
    """Whether a transaction of the caller could undo what we write.

    The transactions that Django's TestCase wraps around a test do not count: what the test writes
    must stay invisible outside of it.
    """
    connection = connections[using]
    if _is_in_test(using):
        return False
    if connection.connection is None:  # get_autocommit() would connect, perhaps for nothing
        return not connection.settings_dict["AUTOCOMMIT"]
    return connection.in_atomic_block or not connection.autocommit


def _is_in_test(using: str) -> bool:
    blocks = connections[using].atomic_blocks
    return any(getattr(block, "_from_testcase", False) for block in blocks)


def after_commit(work: Callable[[], object], using: str) -> None:
    """Run ``work`` when everything written so far is committed.

    If the caller manages transactions by hand, Django cannot tell when that is: it runs now.
    """
    connection = connections[using]
    if connection.in_atomic_block or connection.get_autocommit():
        transaction.on_commit(work, using=using)
    else:
        work()


def commit_independently(work: Callable[[], T], using: str, *, patience_seconds: float = 0) -> T:
    """Run ``work`` so that a rollback of the caller's transaction does not undo its writes.

    Outside a transaction it just runs. Inside one it runs in a thread with a connection of its
    own, and rows that the caller's transaction has locked raise `AccountBusyError`. SQLite allows
    one writer only, which may be the caller's transaction: there it runs inside of that, and
    `save_later` saves again after a rollback.

    ``patience_seconds`` is how long to wait if no connection can be opened: meanwhile the caller
    keeps its own, which others may be waiting for.
    """
    if not is_in_transaction(using) or connections[using].vendor == "sqlite":
        return work()

    def on_own_connection() -> T:
        connection = connections[using]
        try:
            # Connects; the project's settings may turn autocommit off.
            retry_while_unavailable(
                lambda: connection.set_autocommit(True), using, patience_seconds=patience_seconds
            )
            # Signal receivers may also need rows that the caller, which waits for us, has locked.
            with session_lock_timeout(connection):
                return work()
        except OperationalError as error:
            if is_conflict(error):
                raise AccountBusyError(LOCKED) from None
            raise
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
    """Try to save until it succeeds, in a thread that the process waits for before it exits.

    For what could not be saved at once, and for what a transaction of the caller on SQLite may
    still undo: the thread then waits for its write lock. ``save`` has to be conditional, so that it
    changes nothing once the row holds the same or something newer.
    """
    if _is_in_test(using):
        return  # the thread would wait for a transaction that never ends in a commit

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
