"""Keep secrets out of reprs, tracebacks and access logs."""

from __future__ import annotations

import copy
import logging
import re
from typing import Any, SupportsIndex

__all__ = ["RedactCallbackQuery", "Secret", "SecretBytes"]


class Secret(str):
    """A string that every API takes as usual and that no ``repr`` shows.

    Debug pages and error trackers print the *repr* of each frame's variables, so a token held as
    a plain ``str`` leaks from the frames of code that is not ours. ``str()`` and f-strings still
    give the value: that is what the caller asked for.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:
        # Some reports show the repr of the first characters.
        return Secret(super().__getitem__(key))


class SecretBytes(bytes):
    """A request body that no ``repr`` shows; see `Secret`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        return SecretBytes(part) if isinstance(part, bytes) else part


# The authorization code and the state are the only secrets that TikTok puts into a URL of ours.
# Two patterns, each of which looks at a character once: one that tried every "?" up to the end
# would take minutes for a line of nothing else, and anybody can send one.
_QUERY = re.compile(r"\?\S*")
# A login page's `next` holds a query within the query.
_SECRET_PARAMETER = re.compile(r"(?:\b|%3F|%26)(?:code|auth_code|state)(?:=|%3D)", re.IGNORECASE)


class RedactCallbackQuery(logging.Filter):
    """Cut the query string of callback requests out of access-log records.

    ``runserver`` logs each request line, and the callback's holds the authorization code. Attach
    the filter to the logger or handler that writes such lines; it never drops a record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(self._redacted(value) for value in record.args)
        elif isinstance(record.args, dict):
            # Gunicorn's dict answers for keys that it does not hold, hence no plain one.
            record.args = copy.copy(record.args)
            record.args.update({name: self._redacted(value) for name, value in record.args.items()})
        record.msg = self._redacted(record.msg)
        return True

    @staticmethod
    def _redacted(value: Any) -> Any:
        return _QUERY.sub(_without_secrets, value) if isinstance(value, str) else value


def _without_secrets(query: re.Match[str]) -> str:
    return "?<redacted>" if _SECRET_PARAMETER.search(query[0]) else query[0]
