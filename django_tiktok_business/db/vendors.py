"""Where PostgreSQL, MariaDB/MySQL and SQLite differ: lock timeouts, and what their errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import Error, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_tiktok_business.exceptions import AccountBusyError

LOCK_PATIENCE_SECONDS = (
    3  # how long a statement waits for a row that an open transaction has locked
)
LOCKED = "An open transaction (perhaps the caller's own) has locked the account."


@contextmanager
def lock_timeout(using: str) -> Iterator[None]:
    """Let statements wait for a locked row for at most LOCK_PATIENCE_SECONDS.

    By default PostgreSQL waits forever, and MariaDB for 50 seconds. Changes nothing inside a
    transaction, and nothing on SQLite.
    """
    connection = connections[using]
    may_change = is_autocommit(connection)
    if connection.vendor == "postgresql" and may_change:
        # Local to a transaction, because a pooler may hand the session on with its settings.
        with transaction.atomic(using=using):
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_PATIENCE_SECONDS}s'")
            yield
    elif connection.vendor == "mysql" and may_change:
        with session_lock_timeout(connection):
            yield
    else:
        yield


def is_autocommit(connection: BaseDatabaseWrapper) -> bool:
    return not connection.in_atomic_block and connection.get_autocommit()


@contextmanager
def session_lock_timeout(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Like `lock_timeout`, for a session of our own: also holds for transactions in the block."""
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
        # If the connection is lost, so is the setting.
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute(end)


@contextmanager
def lock_errors_as_busy(using: str) -> Iterator[None]:
    """Raise `AccountBusyError` if a transaction has locked a row that the block needs."""
    connection = connections[using]
    connection.ensure_connection()
    at_first = connection.connection
    try:
        with lock_timeout(using):
            yield
    except OperationalError as error:
        # A lost connection is another problem; atomic() may have opened a new one since.
        is_lost = connection.connection is not at_first or not connection.is_usable()
        if is_lost or connection.in_atomic_block or not is_conflict(error):
            raise
        raise AccountBusyError(LOCKED) from None


# The errors of a statement that met somebody else's lock. A full disk or a read-only database is an
# OperationalError as well, but waiting for others does not help there.
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


def is_conflict(error: Error) -> bool:
    """Whether the statement failed because of somebody else's lock or change."""
    return not _CONFLICTS.isdisjoint(_codes(error))


def _codes(error: Error) -> tuple[Any, ...]:
    """The codes of the driver's own exception, which Django wraps."""
    cause = error.__cause__
    return (
        getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None),  # psycopg 3 and 2
        getattr(cause, "sqlite_errorname", None),
        *(cause.args[:1] if cause is not None else ()),
    )


# What an operator can fix: the codes of PostgreSQL, MySQL and SQLite.
_STATES = {
    "is read-only": {"25006", 1290, 1792, 1836, "SQLITE_READONLY", "SQLITE_READONLY_DBMOVED"},
    "is full": {"53100", 28, 1021, 1114, "SQLITE_FULL"},
}


def describe_error(error: Error) -> str:
    """What is wrong with the database, without the error's own text, which may quote a row."""
    for state, codes in _STATES.items():
        if not codes.isdisjoint(_codes(error)):
            return f"The database {state}"
    return f"The database failed ({type(error).__name__})"
