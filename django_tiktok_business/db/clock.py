"""One clock for all machines: the database's.

Clocks of machines differ by seconds or minutes, but what the machines share through a cache (see
`api.rate_limit`) has to mean the same instant on all of them. They all talk to one database, so
each process measures how far its own clock differs from that and adds the difference.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any, Final

from django.db import Error, connections
from django.db.models.functions import Now

SYNCHRONIZE_SECONDS = 300  # how long a measurement is used; clocks drift by milliseconds meanwhile

# The database's Unix seconds when the statement runs. Not NOW(): PostgreSQL's is the beginning of
# the transaction, and MySQL's repeats an hour when the clocks go back.
_STATEMENTS: Final = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1000000",
}


class _Offset:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seconds = 0.0  # added to this machine's clock
        self.measured_at: float | None = None  # monotonic


_offset = _Offset()


def now() -> float:
    """Unix seconds by the database's clock, as far as this process has measured it."""
    return time.time() + _offset.seconds


def instant() -> datetime:
    """`now` as an aware datetime, for times that workers on several machines compare."""
    return datetime.fromtimestamp(now(), UTC)


def synchronize(using: str) -> None:
    """Measure how far this machine's clock is off, with one query, unless done recently.

    Does nothing on SQLite, which uses this machine's clock. If the database does not answer, the
    last measurement stays in use: code that needs the database reports the failure.
    """
    connection = connections[using]
    statement = _STATEMENTS.get(connection.vendor)
    if statement is None:
        return
    with _offset.lock:
        last = _offset.measured_at
        if last is not None and time.monotonic() - last < SYNCHRONIZE_SECONDS:
            return
        _offset.measured_at = time.monotonic()  # other threads use the last measurement meanwhile
    began = time.time()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            (database_seconds,) = cursor.fetchone()
    except Error:
        return
    _offset.seconds = float(database_seconds) - (began + time.time()) / 2


class DatabaseNow(Now):
    """The database's clock, in UTC also on MySQL, whose NOW() follows the session's time zone."""

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)
