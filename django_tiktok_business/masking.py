"""Keep secrets out of reprs, tracebacks and access logs."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

__all__ = [
    "SECRET_PARAMETER",
    "RedactCallbackQuery",
    "Secret",
    "SecretBytes",
    "without_secrets",
]


class Secret(str):
    """A string whose ``repr`` does not show its value; every API accepts it as a ``str``.

    Debug pages and error trackers print the *repr* of each frame's variables, so a plain ``str``
    leaks even from the frames of other packages. ``str()`` and f-strings give the value, since
    their caller asks for it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:
        # Some reports show the repr of the first characters.
        return Secret(super().__getitem__(key))


class SecretBytes(bytes):
    """Bytes, such as a request body, whose ``repr`` does not show them; see `Secret`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        return SecretBytes(part) if isinstance(part, bytes) else part


# A character, plain or escaped any number of times, as in a URL, a script or HTML.
_CHARACTER = re.compile(
    r"%(?:25)*(?P<url>[0-9a-f]{2})"
    r"|\\+(?:u\{?|x)(?P<script>[0-9a-f]{2,4})\}?"
    r"|&(?:amp;)*#(?:x(?P<hex>[0-9a-f]{1,4})|(?P<decimal>[0-9]{1,4}));"
    r"|.",
    re.IGNORECASE | re.DOTALL,
)
_PIECE = 8  # this many successive letters and digits reveal a secret
_REST = re.compile(r"\S*")


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with "<secret>" in place of each secret, or piece of one, that it repeats.

    Compares only letters and digits, since escaping, wrapping and decoding change the rest.
    """
    characters = list(_letters_and_digits(text))
    plain = "".join(character for character, _ in characters)
    is_secret = [False] * len(plain)
    for secret in secrets:
        letters = "".join(character for character, _ in _letters_and_digits(secret))
        length = min(_PIECE, len(letters))
        pieces = {letters[at : at + length] for at in range(len(letters) - length + 1)} - {""}
        for at in range(len(plain) - length + 1):
            if plain[at : at + length] in pieces:
                is_secret[at : at + length] = [True] * length
    shown = ""
    end = 0  # of the text that is copied or masked so far
    for at, (_, place) in enumerate(characters):
        if not is_secret[at] or place.start() < end:
            continue
        last = is_secret.index(False, at) if False in is_secret[at:] else len(is_secret)
        shown += f"{text[end : place.start()]}<secret>"
        end = _REST.match(text, characters[last - 1][1].end()).end()  # type: ignore[union-attr]
    return shown + text[end:]


def _letters_and_digits(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The ASCII letters and digits of a text, in lower case and unescaped, with their places."""
    for match in _CHARACTER.finditer(text):
        code = next(filter(None, match.group("url", "script", "hex")), None)
        number = int(code, 16) if code else int(match["decimal"] or ord(match[0][0]))
        if number < 128 and chr(number).isalnum():
            yield chr(number).lower(), match


# The authorization code and the state are the only secrets that TikTok puts into our URLs. There
# are two patterns so that each reads a character once. A single one would try every "?" up to the
# end of the line: minutes for a line of nothing else, which anybody can send.
_QUERY = re.compile(r"\?\S*")
# In a login page's `next`, the query is escaped inside another query.
SECRET_PARAMETER = re.compile(r"(?:\b|%3F|%26)(?:code|auth_code|state)(?:=|%3D)", re.IGNORECASE)


class RedactCallbackQuery(logging.Filter):
    """Redact the query string of callback requests in access-log records.

    ``runserver`` logs each request line, and the callback's holds the authorization code. Attach
    the filter to the logger or handler that writes these lines; it lets every record pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(self._redacted(value) for value in record.args)
        elif isinstance(record.args, dict):
            # A copy keeps the type: Gunicorn's dict has values for missing keys.
            record.args = copy.copy(record.args)
            record.args.update({name: self._redacted(value) for name, value in record.args.items()})
        record.msg = self._redacted(record.msg)
        return True

    @staticmethod
    def _redacted(value: Any) -> Any:
        return _QUERY.sub(_without_secrets, value) if isinstance(value, str) else value


def _without_secrets(query: re.Match[str]) -> str:
    return "?<redacted>" if SECRET_PARAMETER.search(query[0]) else query[0]
