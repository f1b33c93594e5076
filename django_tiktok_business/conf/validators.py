"""What values settings accept, and how their text is parsed from the environment."""

from __future__ import annotations

import re
from typing import Final, TypeGuard
from urllib.parse import urlsplit

from django_tiktok_business.masking import Secret

REQUIRED: Final = object()  # the default of a setting that has none


def is_plain(value: object) -> TypeGuard[str]:
    """Whether it is text that can be encoded: for keys, URLs and databases.

    Bytes in the environment that are not UTF-8 become lone surrogates, which cannot.
    """
    return isinstance(value, str) and _SURROGATE.search(value) is None


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def is_text(value: object) -> bool:
    # Spaces at the ends come from copying out of a browser and are never part of the value.
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
    # "a,b" as one item is the usual mistake: TikTok would read two scopes, and we one.
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(is_text(scope) and "," not in scope and " " not in scope for scope in value)
    )


def parse_flag(text: str) -> bool:
    # Env.bool() reads any unknown word as False; a typo has to be an error.
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
