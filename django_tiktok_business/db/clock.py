"""One clock for all machines: the database's.

Machines disagree about the time by seconds or minutes, and what they share through a cache (see
`api.rate_limit`) has to mean the same instant on each. The database is the one thing they all talk
to, so each process measures how far its own clock is off and adds that.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any, Final

from django.db import Error, connections
from django.db.models.functions import Now

__all__ = ["DatabaseNow", "instant", "now", "synchronize"]

SYNCHRONIZE_SECONDS = 300  # how long a measurement holds; clocks drift by milliseconds in that time

# Unix seconds by the database's clock as it is when the statement runs: NOW() of PostgreSQL would
# be the beginning of the transaction, and that of MySQL repeats an hour when the clocks go back.
_STATEMENTS: Final = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1000000",
}


class _Offset:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seconds = 0.0  # to be added to this machine's clock
        self.measured_at: float | None = None  # monotonic


_offset = _Offset()


def now() -> float:
    """Unix seconds by the database's clock, as far as this process has measured it."""
    return time.time() + _offset.seconds


def instant() -> datetime:
    """`now` as an aware datetime, for what workers on several machines compare."""
    return datetime.fromtimestamp(now(), UTC)


def synchronize(using: str) -> None:
    """Measure how far this machine's clock is off, unless that was done lately; one query.

    SQLite runs on this machine, and has its clock. A database that does not answer leaves the last
    measurement in force: whoever needs the database itself will say so.
    """
    connection = connections[using]
    statement = _STATEMENTS.get(connection.vendor)
    if statement is None:
        return
    with _offset.lock:
        last = _offset.measured_at
        if last is not None and time.monotonic() - last < SYNCHRONIZE_SECONDS:
            return
        _offset.measured_at = time.monotonic()  # the others go on with what is known
    began = time.time()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            (theirs,) = cursor.fetchone()
    except Error:
        return
    _offset.seconds = float(theirs) - (began + time.time()) / 2


class DatabaseNow(Now):
    """The database's clock, in UTC on MySQL as well, where NOW() follows the session's zone."""

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)
