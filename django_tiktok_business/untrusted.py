"""Make text and URLs from strangers safe to store, log and show."""

from __future__ import annotations

import unicodedata
from typing import Any
from urllib.parse import urlsplit

__all__ = ["https_host", "is_visible", "single_line", "storable_text", "visible_line"]


def storable_text(value: Any) -> str:
    """Return text that every database can store, without NULs and lone surrogates."""
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def single_line(value: Any) -> str:
    """Return text as one line, since a line break would forge a record in a log file."""
    text = storable_text(value)
    printable = (character if character.isprintable() else " " for character in text)
    return " ".join("".join(printable).split())


_JOINERS = "\u200c\u200d"
# Unicode counts the Hangul fillers as letters and the empty Braille cell as a symbol.
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"


def is_visible(character: str) -> bool:
    """Whether a reader sees it: it is no space, control, format or filler character, nor a mark."""
    return unicodedata.category(character)[0] in "LNPS" and character not in _BLANK_LETTERS


def visible_line(text: str) -> str:
    """Return text as one line without invisible characters, such as those that reverse text.

    The two joiners stay: some scripts and emoji need them.
    """
    return "".join(
        character
        for character in " ".join(text.split())
        if character in _JOINERS or unicodedata.category(character) not in ("Cc", "Cf")
    )


def https_host(url: str) -> str:
    """Return the host of an https URL in lower case; "" for any other text.

    "" also for odd URLs: browsers read a backslash as a slash and skip control characters, so they
    would go to another host than the one that Python reads.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    is_plain = url.isprintable() and not {"\\", " "} & set(url) and "@" not in parts.netloc
    return (parts.hostname or "") if parts.scheme == "https" and is_plain else ""
