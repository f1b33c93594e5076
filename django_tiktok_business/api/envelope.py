"""Read an HTTP answer as TikTok's envelope: ``code``, ``message``, ``request_id`` and ``data``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from django_tiktok_business.exceptions import (
    APIError,
    AppConfigurationError,
    InvalidResponseError,
    RateLimitError,
    ServerError,
)
from django_tiktok_business.masking import Secret, SecretBytes, without_secrets
from django_tiktok_business.untrusted import single_line, storable_text

from .errors import ERRORS, PARTIAL_SUCCESS, error_of_range

MAX_GROUPS = 300  # entries of a list: countries, or scopes, of which there are some thirty
MAX_TEXT = 10_000  # characters; a biography has at most a few hundred


class Envelope:
    """An HTTP answer, read as TikTok's envelope: ``code``, ``message``, ``request_id``, ``data``.

    Nearly all failures arrive as HTTP 200 with a ``code`` other than 0, and the code wins over the
    HTTP status. ``retry_after`` is in seconds. ``secrets`` are those of the request: no error
    repeats them, even where TikTok does.
    """

    def __init__(
        self,
        http_status: int,
        content: SecretBytes,
        retry_after: float | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.http_status = http_status
        self.retry_after = retry_after
        self._secrets = secrets
        self._envelope = _json_object(content)
        data = self._envelope.get("data") if self._envelope is not None else None
        self.data: dict[str, Any] = data if isinstance(data, dict) else {}
        # Some servers write an empty object as an empty list.
        self.has_malformed_data = data not in (None, []) and not isinstance(data, dict)

    def _line(self, name: str, max_length: int) -> str:
        """A text of the envelope as one line without secrets, fit for logs."""
        value = (self._envelope or {}).get(name)
        # Reads more than it returns, since masking a secret makes the text shorter. Not all of it:
        # an answer can hold megabytes, which would take long to search.
        text = single_line(value[: 4 * max_length] if isinstance(value, str) else "")
        text = without_secrets(text, self._secrets)
        return _TOKEN_LIKE.sub("<secret>", text)[:max_length]

    @property
    def _request_id(self) -> str:
        return self._line("request_id", 100)

    def invalid(self, reason: str) -> InvalidResponseError:
        return InvalidResponseError(
            f"TikTok's answer cannot be used: {reason}.",
            request_id=self._request_id,
            http_status=self.http_status,
        )

    def error(
        self, errors: Mapping[int, type[APIError]], *, is_data_needed: bool = False
    ) -> APIError | None:
        """The typed error this answer stands for, or None for success.

        ``errors`` says what codes mean at this endpoint, where that differs from everywhere else.
        """
        code = to_integer((self._envelope or {}).get("code"))
        if code is None:
            return self._error_without_code()
        if code in (0, PARTIAL_SUCCESS):
            return self.invalid("it has no data") if is_data_needed and not self.data else None
        kind = errors.get(code) or ERRORS.get(code) or error_of_range(code)
        error = kind(
            self._line("message", 500) or "TikTok gave no reason.",
            code=code,
            request_id=self._request_id,
            http_status=self.http_status,
        )
        if isinstance(error, RateLimitError):
            error.retry_after = self.retry_after
        return error

    def _error_without_code(self) -> APIError:
        """An answer that is not from the API itself: from a gateway, a proxy, a wrong path."""
        status = self.http_status
        if status == 429:
            limited = RateLimitError("TikTok asks for fewer calls.", http_status=status)
            limited.retry_after = self.retry_after
            return limited
        if status >= 500:
            return ServerError("TikTok's server failed.", http_status=status)
        if status in (404, 405):
            return AppConfigurationError(
                "There is no such endpoint; check API_BASE_URL.", http_status=status
            )
        if self._envelope is None:
            return self.invalid("it is not a JSON object")
        return self.invalid("it has no code")

    # Typed access to ``data``

    def token(self, name: str) -> Secret | None:
        """The token of this name, None when missing or empty; raises when it cannot be one."""
        value = self.data.get(name)
        if value is None or value == "":
            return None
        if not is_token(value):
            del value  # error reports show the variables of this frame
            raise self.invalid(f"{name} is not a token")
        return Secret(value)

    def integer(self, name: str) -> int | None:
        return to_integer(self.data.get(name))

    def open_id(self) -> str | None:
        """The account's id, None when missing; token_info and API v1.2 name it ``creator_id``."""
        for name in ("open_id", "creator_id"):
            value = self.data.get(name)
            if isinstance(value, str) and value:
                if not is_word(value) or len(value) > 255:
                    raise self.invalid(f"{name} is not an id")
                return value
        return None

    def app_id(self) -> str:
        value = self.data.get("app_id")
        return str(value) if isinstance(value, str | int) else ""

    def scopes(self) -> list[str] | None:
        """The scopes, sorted since TikTok's order is not stable; None when missing or empty."""
        value = self.data.get("scope")
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list):
            return None
        names = {storable_text(part).strip()[:100] for part in parts[:MAX_GROUPS]} - {""}
        return sorted(names) or None

    def text(self, name: str) -> str | None:
        value = self.data.get(name)
        return storable_text(value)[:MAX_TEXT] if isinstance(value, str) else None

    def boolean(self, name: str) -> bool | None:
        value = self.data.get(name)
        return value if isinstance(value, bool) else None

    def count(self, name: str) -> int | None:
        return to_count(self.data.get(name))


def objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def to_count(value: Any) -> int | None:
    number = to_integer(value)
    return number if number is not None and number >= 0 else None


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_token(value: Any) -> TypeGuard[str]:
    """Whether ``value`` can be a token: printable ASCII, so that it fits in an HTTP header."""
    return isinstance(value, str) and is_word(value)


def is_word(value: str) -> bool:
    return value != "" and value.isascii() and value.isprintable() and " " not in value


def to_integer(value: Any) -> int | None:
    """An integer that fits a database column, given as a number or as a numeral; else None."""
    is_numeral = isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value)
    if is_numeral or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    return None


# A second net: in all of TikTok's samples, tokens begin like this.
_TOKEN_LIKE = re.compile(r"\b(?:act|rft)\.\S{8,}")
