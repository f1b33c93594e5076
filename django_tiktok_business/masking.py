"""Keep secrets out of reprs, tracebacks and access logs."""

from __future__ import annotations

import copy
import logging
import re
from typing import TYPE_CHECKING, Any, SupportsIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "SECRET_PARAMETER",
    "RedactCallbackQuery",
    "Secret",
    "SecretBytes",
    "without_secrets",
]


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


# A character, however often and however it is escaped: as in a URL, in a script, in HTML.
_SIGN = re.compile(
    r"%(?:25)*(?P<url>[0-9a-f]{2})"
    r"|\\+(?:u\{?|x)(?P<script>[0-9a-f]{2,4})\}?"
    r"|&(?:amp;)*#(?:x(?P<hex>[0-9a-f]{1,4})|(?P<decimal>[0-9]{1,4}));"
    r"|.",
    re.IGNORECASE | re.DOTALL,
)
_PIECE = 8  # so many successive letters and digits give a secret away
_REST = re.compile(r"\S*")


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """``text`` with "<secret>" in the place of what repeats a secret, or a piece of one.

    Letters and digits alone count: all else is what escaping, wrapping and decoding change.
    """
    signs = list(_signs_of(text))
    plain = "".join(sign for sign, _ in signs)
    is_secret = [False] * len(plain)
    for secret in secrets:
        letters = "".join(sign for sign, _ in _signs_of(secret))
        length = min(_PIECE, len(letters))
        pieces = {letters[at : at + length] for at in range(len(letters) - length + 1)} - {""}
        for at in range(len(plain) - length + 1):
            if plain[at : at + length] in pieces:
                is_secret[at : at + length] = [True] * length
    shown = ""
    end = 0  # of what was shown or left out
    for at, (_, place) in enumerate(signs):
        if not is_secret[at] or place.start() < end:
            continue
        last = is_secret.index(False, at) if False in is_secret[at:] else len(is_secret)
        shown += f"{text[end : place.start()]}<secret>"
        end = _REST.match(text, signs[last - 1][1].end()).end()  # type: ignore[union-attr]
    return shown + text[end:]


def _signs_of(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The letters and digits of a text, in small letters, and where they stand."""
    for match in _SIGN.finditer(text):
        code = next(filter(None, match.group("url", "script", "hex")), None)
        number = int(code, 16) if code else int(match["decimal"] or ord(match[0][0]))
        if number < 128 and chr(number).isalnum():
            yield chr(number).lower(), match


# The authorization code and the state are the only secrets that TikTok puts into a URL of ours.
# Two patterns, each of which looks at a character once: one that tried every "?" up to the end
# would take minutes for a line of nothing else, and anybody can send one.
_QUERY = re.compile(r"\?\S*")
# A login page's `next` holds a query within the query.
SECRET_PARAMETER = re.compile(r"(?:\b|%3F|%26)(?:code|auth_code|state)(?:=|%3D)", re.IGNORECASE)


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
    return "?<redacted>" if SECRET_PARAMETER.search(query[0]) else query[0]
