"""Writes that last, whatever happens to the database or to the caller's transaction."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

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
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

__all__ = [
    "LOCK_PATIENCE_SECONDS",
    "PASSING_ERRORS",
    "SAVE_PATIENCE_SECONDS",
    "SHORT_PATIENCE_SECONDS",
    "after_commit",
    "busy_if_locked",
    "committed",
    "is_in_transaction",
    "patiently",
    "persisted",
    "save_later",
    "short_lock_waits",
    "told",
    "update_row",
]

T = TypeVar("T")

logger = logging.getLogger("tiktok_business")

POLL_SECONDS = 0.1  # how often a locked or missing database is tried again, at first
SAVE_PATIENCE_SECONDS = 60  # how long an answer is kept in memory while the database is away
SHORT_PATIENCE_SECONDS = 1  # ... once that was in vain, until the database answers again
LOCK_PATIENCE_SECONDS = 3  # how long a refresh waits for a row that an open transaction has locked

# What passes when the database is well again. InternalError: of PostgreSQL that is read-only while
# a standby takes over.
PASSING_ERRORS = (OperationalError, InterfaceError, InternalError)

_LOCKED = "An open transaction (perhaps the caller's own) has locked the account."


_given_up: set[str] = set()  # databases that were away for too long when last asked


def persisted(
    write: Callable[[], T], using: str, *, patience_seconds: float = SAVE_PATIENCE_SECONDS
) -> T:
    """Write down an answer of TikTok, waiting for the database if it is away for a while."""
    try:
        return patiently(write, using, patience_seconds=patience_seconds)
    except PASSING_ERRORS:
        logger.critical("An answer of TikTok could not be stored: is the database away?")
        raise


def patiently(
    work: Callable[[], T], using: str, *, patience_seconds: float = SAVE_PATIENCE_SECONDS
) -> T:
    """Do something with the database, again on a new connection while it is away.

    ``work`` may have happened when the connection broke, so it must not mind to happen twice.
    Inside a transaction there is nothing to wait for: it is broken with its first error.
    """
    connection = connections[using]
    # Not get_autocommit(): it would connect, and the database may be away.
    is_manual = connection.connection is not None and not connection.autocommit
    if using in _given_up:  # the next answer need not wait as long, to find out the same
        patience_seconds = min(patience_seconds, SHORT_PATIENCE_SECONDS)
    deadline = time.monotonic() + patience_seconds
    pause = POLL_SECONDS
    is_new = False
    while True:
        try:
            if is_new:
                connection.set_autocommit(True)  # the project's settings may have it off
            done = work()
        except PASSING_ERRORS:
            if connection.in_atomic_block or is_manual:
                raise
            if time.monotonic() > deadline:
                if patience_seconds > SHORT_PATIENCE_SECONDS:  # or it was not waited for
                    _given_up.add(using)
                raise
            connection.close()
            is_new = True
            time.sleep(pause)
            pause = min(pause * 2, 5)
        else:
            _given_up.discard(using)
            return done


@contextmanager
def short_lock_waits(using: str) -> Iterator[None]:
    """Let a statement wait for a locked row for no longer than LOCK_PATIENCE_SECONDS.

    By itself PostgreSQL waits without end, and MariaDB for 50 seconds. Changes nothing inside a
    transaction, and nothing on SQLite.
    """
    connection = connections[using]
    is_plain = _is_plain(connection)
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


def update_row(
    model: type[Model], changes: Mapping[str, Any], *, where: Mapping[str, Any], using: str
) -> int:
    """``filter(**where).update(**changes)`` with plain values, and with `short_lock_waits`.

    For the one statement that each refresh ends with: the ORM takes longer to put its text together
    than the database to run it, and on PostgreSQL the bound on lock waits goes into the statement
    instead of making a transaction of it. Returns the number of rows.
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
    waits: AbstractContextManager[None] = short_lock_waits(using)
    if connection.vendor == "postgresql" and _is_plain(connection):
        # Evaluated once and first; holds until the statement, a transaction by itself, is done.
        where_terms = ["(SELECT set_config('lock_timeout', %s, true)) IS NOT NULL", *where_terms]
        where_values = [f"{LOCK_PATIENCE_SECONDS}s", *where_values]
        waits = nullcontext()
    sql = (
        f"UPDATE {quote(model._meta.db_table)} SET {', '.join(set_terms)} "  # noqa: S608 -- names alone
        f"WHERE {' AND '.join(where_terms)}"
    )
    with waits, connection.cursor() as cursor:
        cursor.execute(sql, [*set_values, *where_values])
        rows: int = cursor.rowcount
    return rows


def _is_plain(connection: BaseDatabaseWrapper) -> bool:
    return not connection.in_atomic_block and connection.get_autocommit()


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
    except OperationalError as error:
        # A connection that is lost means something else; atomic() may have made another since.
        is_lost = connection.connection is not begun_with or not connection.is_usable()
        if is_lost or connection.in_atomic_block or not _is_conflict(error):
            raise
        raise AccountBusyError(_LOCKED) from None


# What a statement ends with that met somebody else's lock. A full disk or a read-only database is
# an OperationalError as well, and no matter of waiting for somebody.
_CONFLICTS = frozenset(
    {
        "40001",  # PostgreSQL: serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available, after lock_timeout
        "57014",  # query_canceled, after a statement_timeout of the project's
        1020,  # MariaDB: the row has changed since it was read (snapshot isolation)
        1205,  # MySQL: lock wait time-out
        1213,  # deadlock
        "SQLITE_BUSY",
        "SQLITE_BUSY_SNAPSHOT",
        "SQLITE_LOCKED",
    }
)


def _is_conflict(error: Error) -> bool:
    return not _CONFLICTS.isdisjoint(_codes(error))


def _codes(error: Error) -> tuple[Any, ...]:
    """What the driver's own exception, which Django wraps, is called by."""
    cause = error.__cause__
    return (
        getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None),  # psycopg 3 and 2
        getattr(cause, "sqlite_errorname", None),
        *(cause.args[:1] if cause is not None else ()),
    )


# What an operator can do something about: PostgreSQL's, MySQL's and SQLite's codes.
_STATES = {
    "is read-only": {"25006", 1290, 1792, 1836, "SQLITE_READONLY", "SQLITE_READONLY_DBMOVED"},
    "is full": {"53100", 28, 1021, 1114, "SQLITE_FULL"},
}


def told(error: Error) -> str:
    """What is wrong with the database; the text of the error itself may quote a row."""
    for state, codes in _STATES.items():
        if not codes.isdisjoint(_codes(error)):
            return f"The database {state}"
    return f"The database failed ({type(error).__name__})"


def is_in_transaction(using: str) -> bool:
    """Whether a transaction of the caller could undo what we write.

    The transactions that Django's TestCase wraps around a test are not such: nothing outside the
    test may see what it writes.
    """
    connection = connections[using]
    if _is_in_test(using):
        return False
    if connection.connection is None:  # get_autocommit() would connect, and many may only wait
        return not connection.settings_dict["AUTOCOMMIT"]
    return connection.in_atomic_block or not connection.autocommit


def _is_in_test(using: str) -> bool:
    blocks = connections[using].atomic_blocks
    return any(getattr(block, "_from_testcase", False) for block in blocks)


def after_commit(work: Callable[[], object], using: str) -> None:
    """Do it when what has been written so far is committed.

    Where the caller manages its transactions by hand, nobody can say when that is: it is done now.
    """
    connection = connections[using]
    if connection.in_atomic_block or connection.get_autocommit():
        transaction.on_commit(work, using=using)
    else:
        work()


def committed(work: Callable[[], T], using: str, *, patience_seconds: float = 0) -> T:
    """Run ``work`` so that a rollback of the caller's transaction does not undo its writes.

    Outside a transaction it just runs. Inside one it runs in a thread with a connection of its
    own; rows that the caller's transaction has locked give `AccountBusyError`. SQLite allows one
    writer only, which the caller's transaction may already be: there it runs inside, and what it
    saved is saved once more after a rollback (see `save_later`).

    ``patience_seconds`` is how long a connection is waited for that cannot be had: the caller keeps
    its own meanwhile, which others may be waiting for.
    """
    if not is_in_transaction(using) or connections[using].vendor == "sqlite":
        return work()

    def on_own_connection() -> T:
        connection = connections[using]
        try:
            # Connects; the project's settings may have it off.
            patiently(
                lambda: connection.set_autocommit(True), using, patience_seconds=patience_seconds
            )
            # Receivers of signals too may touch what the caller has locked, and it waits for us.
            with _session_waits_briefly(connection):
                return work()
        except OperationalError as error:
            if _is_conflict(error):
                raise AccountBusyError(_LOCKED) from None
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
