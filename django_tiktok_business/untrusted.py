"""Make text and addresses that strangers wrote safe to store, log and show."""

from __future__ import annotations

import unicodedata
from typing import Any
from urllib.parse import urlsplit

__all__ = ["https_host", "is_visible", "single_line", "storable_text", "visible_line"]


def storable_text(value: Any) -> str:
    """Text that every database can hold: no NUL, no lone surrogates."""
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def single_line(value: Any) -> str:
    """Text in one line: a line break in a message would forge a record of a log file."""
    text = storable_text(value)
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


# Letters and symbols by their category, and blank: the Hangul fillers and the empty Braille cell.
_JOINERS = "\u200c\u200d"
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"


def is_visible(character: str) -> bool:
    """Whether it leaves ink: no space, no control or format character, no filler or bare mark."""
    return unicodedata.category(character)[0] in "LNPS" and character not in _BLANK_LETTERS


def visible_line(text: str) -> str:
    """Text in one line that cannot turn its neighbours round (bidi controls) or hide in itself.

    Of the invisible characters the two joiners stay, which scripts and emoji need.
    """
    return "".join(
        sign
        for sign in " ".join(text.split())
        if sign in _JOINERS or unicodedata.category(sign) not in ("Cc", "Cf")
    )


def https_host(url: str) -> str:
    """The host of an https address, lower-case; "" for every other scheme or text.

    Browsers take a backslash for a slash and skip control characters, so where they would go with
    such an address is not the host that Python reads from it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    is_plain = url.isprintable() and not {"\\", " "} & set(url) and "@" not in parts.netloc
    return (parts.hostname or "") if parts.scheme == "https" and is_plain else ""
