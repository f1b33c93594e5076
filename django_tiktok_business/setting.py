"""What a setting may hold, how it is read, and what is said about a wrong value. No settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

from .masking import Secret

__all__ = [
    "REQUIRED",
    "Setting",
    "is_base_url",
    "is_dotted",
    "is_path",
    "is_plain",
    "is_recipient",
    "is_scopes",
    "is_text",
    "is_texts",
    "is_url",
    "number",
    "optional",
    "parse_flag",
    "parse_list",
    "parse_secrets",
    "read_base_url",
    "read_secrets",
]

REQUIRED: Final = object()  # the default of a setting that has none


@dataclass(frozen=True, slots=True)
class Setting:
    """What one key may hold, and how it is read from the dict and from the environment."""

    default: Any
    accepts: Callable[[Any], bool]
    expected: str  # completes the sentence "TIKTOK_BUSINESS[...] must be"
    example: str  # Python source of a good value, for hints
    parse: Callable[[str], Any]  # the text of an environment variable; raises ValueError
    read: Callable[[Any], Any] | None = None  # what an accepted value is handed out as
    empty: Any = REQUIRED  # what an empty environment variable stands for; REQUIRED: not set
    masked: bool = False  # the value may hold a secret, so no message shows it

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with ``value``, None when nothing is."""
        if self.accepts(value):
            return None
        if self.masked:
            # The type alone helps (bytes, a bare string for a list) and gives nothing away.
            return f"must be {self.expected} (its type is {type(value).__name__})"
        return f"must be {self.expected}, not {_shown(value)}"


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # noqa: BLE001 -- thousands of digits, or a repr that is not ours
        return f"of type {type(value).__name__}"


def is_plain(value: object) -> TypeGuard[str]:
    """Whether it is text that can be encoded, for keys, URLs and databases.

    Bytes of the environment that are no UTF-8 become lone surrogates, which nothing takes.
    """
    return isinstance(value, str) and _SURROGATE.search(value) is None


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def is_text(value: object) -> bool:
    # Spaces at the ends come from copying out of a browser and never belong to the value.
    return is_plain(value) and value != "" and value == value.strip()


def is_url(value: object) -> bool:
    if not is_plain(value) or any(char.isspace() for char in value) or "#" in value:
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, a broken IPv6 address
        return False


def is_base_url(value: object) -> bool:
    return is_url(value) and "?" not in str(value)


def is_dotted(value: object) -> bool:
    return is_plain(value) and len(parts := value.split(".")) > 1 and all(parts)


def is_path(value: object) -> bool:
    return is_dotted(value) and all(part.isidentifier() for part in str(value).split("."))


def is_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_text, value))


def is_recipient(item: str) -> bool:
    return item == "owner" or ("@" in item[1:-1] and "," not in item)


def is_scopes(value: object) -> bool:
    # "a,b" as one item is the usual mistake; TikTok would take it for two scopes and we for one.
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(is_text(scope) and "," not in scope and " " not in scope for scope in value)
    )


def parse_flag(text: str) -> bool:
    # Env.bool() takes any word that it does not know for False; a typo has to be an error.
    word = text.lower()
    if word in ("1", "true", "on", "y", "yes", "ok"):
        return True
    if word in ("0", "false", "off", "n", "no"):
        return False
    raise ValueError


def parse_list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def parse_secrets(text: str) -> list[str]:
    return [Secret(item) for item in parse_list(text)]


def read_secrets(value: list[str] | tuple[str, ...]) -> list[str]:
    return [Secret(item) for item in value]


def read_base_url(value: str) -> str:
    return value.rstrip("/")


def optional(
    accepts: Callable[[Any], bool],
    expected: str,
    example: str,
    *,
    default: str | None = None,
    empty: Any = REQUIRED,
) -> Setting:
    return Setting(
        default,
        lambda value: value is None or accepts(value),
        f"{expected}, or None",
        example,
        str,
        empty=empty,
    )


def number(default: int, minimum: int, maximum: int | None = None) -> Setting:
    # type() and not isinstance(): True is an int as well.
    if maximum is None:
        return Setting(
            default,
            lambda value: type(value) is int and value >= minimum,
            f"a whole number of at least {minimum}",
            str(default),
            int,
        )
    return Setting(
        default,
        lambda value: type(value) is int and minimum <= value <= maximum,
        f"a whole number from {minimum} to {maximum}",
        str(default),
        int,
    )
