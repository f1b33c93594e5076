"""TikTok's answers: the envelope, its error codes, and what is read out of ``data``. No HTTP.

The codes are those of TikTok's page "Appendix: return codes" (doc id 1737172488964097) and of its
official Python SDK, as read until 2026-11-22.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

from .exceptions import (
    AccessTokenRejectedError,
    APIError,
    AppConfigurationError,
    AppCredentialsRejectedError,
    AuthorizationCodeRejectedError,
    InvalidResponseError,
    PermissionDeniedError,
    RateLimitError,
    ReauthorizationRequired,
    ServerError,
)
from .masking import Secret, without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .masking import SecretBytes

__all__ = [
    "CODE_EXCHANGE_ERRORS",
    "REFRESH_ERRORS",
    "Answer",
    "Insights",
    "Profile",
    "TokenGrant",
    "TokenInfo",
    "is_token",
]

# Beyond these a lifetime is nonsense (milliseconds, an instant): a day and a year are usual.
MAX_ACCESS_TOKEN_LIFETIME_SECONDS = 366 * 86400
MAX_REFRESH_TOKEN_LIFETIME_SECONDS = 10 * 366 * 86400
MAX_GROUPS = 300  # of scopes, of which there are some thirty, or of countries
MAX_TEXT = 10_000  # characters; a biography has at most a few hundred


@dataclass(frozen=True)
class TokenGrant:
    """What a token or refresh call gave. None: TikTok did not say, so what is stored stays.

    The instants are counted from before the call was sent, so that they err on the early side.
    ``refresh_token_expires_at`` is fixed by the account holder's consent; a refresh does not move
    it (observed: it counts down).
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    access_token_expires_at: datetime | None
    refresh_token_expires_at: datetime | None
    open_id: str | None
    scopes: list[str] | None


@dataclass(frozen=True)
class TokenInfo:
    """What TikTok knows about an access token."""

    app_id: str
    open_id: str
    scopes: list[str]


@dataclass(frozen=True)
class Profile:
    """An account's profile. None: not asked for, not granted, or not told.

    All text is what the account holder typed: untrusted. ``profile_image_url`` is temporary.
    """

    display_name: str | None = None
    username: str | None = None
    profile_image_url: str | None = None
    profile_url: str | None = None
    bio: str | None = None
    is_verified: bool | None = None
    is_business_account: bool | None = None
    followers_count: int | None = None
    following_count: int | None = None
    likes_count: int | None = None
    videos_count: int | None = None


@dataclass(frozen=True)
class Insights:
    """Daily figures and audience of an account; what TikTok left out is not in it.

    ``days``: for each day in UTC the figures by TikTok's names, and ``audience_activity`` as 24
    counts. ``audience``: "ages", "genders" and "countries", each a list of ``[name, share]``, the
    largest share first: untrusted text, and a fraction from 0 to 1.
    """

    days: Mapping[date, Mapping[str, Any]]
    audience: Mapping[str, list[list[Any]]]


class Answer:
    """An HTTP answer, read as TikTok's envelope: ``code``, ``message``, ``request_id``, ``data``.

    Nearly all failures arrive as HTTP 200 with a ``code`` other than 0, and the code wins over the
    HTTP status. ``retry_after`` is in seconds; ``secrets`` are those of the request, which no error
    repeats even where TikTok does.
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
        # An empty list is what some servers make of an empty object.
        self.has_foreign_data = data not in (None, []) and not isinstance(data, dict)

    def _told(self, name: str, longest: int) -> str:
        """A line of text of the envelope, fit for logs, without secrets."""
        value = (self._envelope or {}).get(name)
        # More is read than shown, because a secret that is taken out makes it shorter; no more
        # than that, because an answer can be megabytes of what takes long to search.
        text = _line(value[: 4 * longest] if isinstance(value, str) else "")
        text = without_secrets(text, self._secrets)
        return _TOKEN_LIKE.sub("<secret>", text)[:longest]

    @property
    def _request_id(self) -> str:
        return self._told("request_id", 100)

    def invalid(self, reason: str) -> InvalidResponseError:
        return InvalidResponseError(
            f"TikTok's answer cannot be used: {reason}.",
            request_id=self._request_id,
            http_status=self.http_status,
        )

    def error(self, errors: Mapping[int, type[APIError]]) -> APIError | None:
        """The typed error this answer stands for, or None for success.

        ``errors`` says what codes mean at this endpoint, where that differs.
        """
        code = _integer((self._envelope or {}).get("code"))
        if code is None:
            return self._error_without_code()
        if code in (0, _PARTIAL_SUCCESS):
            return None
        kind = errors.get(code) or _ERRORS.get(code) or _error_of_range(code)
        error = kind(
            self._told("message", 500) or "TikTok gave no reason.",
            code=code,
            request_id=self._request_id,
            http_status=self.http_status,
        )
        if isinstance(error, RateLimitError):
            error.retry_after = self.retry_after
        return error

    def _error_without_code(self) -> APIError:
        """HTTP errors that never reached the API's logic: gateways, wrong paths, proxies."""
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

    def grant(self, sent_at: datetime) -> TokenGrant:
        """Read a token answer; the names of API v1.2 (``expires``, ...) are understood."""
        access_token = self._token("access_token")
        if access_token is None:
            raise self.invalid("it has no access_token")
        return TokenGrant(
            access_token=access_token,
            refresh_token=self._token("refresh_token"),
            access_token_expires_at=self._instant(
                sent_at, MAX_ACCESS_TOKEN_LIFETIME_SECONDS, "expires_in", "expires"
            ),
            refresh_token_expires_at=self._instant(
                sent_at,
                MAX_REFRESH_TOKEN_LIFETIME_SECONDS,
                "refresh_token_expires_in",
                "refresh_expires",
            ),
            open_id=self.open_id(),
            scopes=self.scopes(),
        )

    def _token(self, name: str) -> Secret | None:
        """None when missing or empty; a token with odd characters is no token."""
        value = self.data.get(name)
        if value is None or value == "":
            return None
        if not is_token(value):
            del value  # an error report shows the variables of this frame
            raise self.invalid(f"{name} is not a token")
        return Secret(value)

    def _instant(self, sent_at: datetime, longest: int, *names: str) -> datetime | None:
        """The end of a lifetime in seconds; None (unknown) when it makes no sense."""
        for name in names:
            seconds = _integer(self.data.get(name))
            if seconds is not None and 0 < seconds <= longest:
                return sent_at + timedelta(seconds=seconds)
        return None

    def open_id(self) -> str | None:
        """None when missing or empty; ``creator_id`` is its name in token_info and API v1.2."""
        for name in ("open_id", "creator_id"):
            value = self.data.get(name)
            if isinstance(value, str) and value:
                if not _is_word(value) or len(value) > 255:
                    raise self.invalid(f"{name} is not an id")
                return value
        return None

    def app_id(self) -> str:
        value = self.data.get("app_id")
        return str(value) if isinstance(value, str | int) else ""

    def scopes(self) -> list[str] | None:
        """Sorted: the order of TikTok's list is not stable. None when missing or empty."""
        value = self.data.get("scope")
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list):
            return None
        names = {_clean_text(part).strip()[:100] for part in parts[:MAX_GROUPS]} - {""}
        return sorted(names) or None

    def text(self, name: str) -> str | None:
        value = self.data.get(name)
        return _clean_text(value)[:MAX_TEXT] if isinstance(value, str) else None

    def boolean(self, name: str) -> bool | None:
        value = self.data.get(name)
        return value if isinstance(value, bool) else None

    def count(self, name: str) -> int | None:
        return _count(self.data.get(name))

    def insights(self, figures: Sequence[str], first_day: date, last_day: date) -> Insights:
        """The daily ``figures`` from ``first_day`` to ``last_day``, and who the audience is."""
        days: dict[date, dict[str, Any]] = {}
        for entry in _objects(self.data.get("metrics")):
            day = _date(entry.get("date"))
            if day is None or not first_day <= day <= last_day:
                continue
            told: dict[str, Any] = {name: _count(entry.get(name)) for name in figures}
            told["audience_activity"] = _hours(entry.get("audience_activity"))
            days[day] = {name: value for name, value in told.items() if value is not None}
        audience = {
            name: _shares(self.data.get(f"audience_{name}"), key)
            for name, key in (("ages", "age"), ("genders", "gender"), ("countries", "country"))
        }
        return Insights(
            days={day: told for day, told in days.items() if told},
            audience={name: shares for name, shares in audience.items() if shares},
        )


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _date(value: Any) -> date | None:
    try:
        # fromisoformat() alone takes other spellings too.
        return date.fromisoformat(value if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else "")
    except (TypeError, ValueError):
        return None


def _count(value: Any) -> int | None:
    number = _integer(value)
    return number if number is not None and number >= 0 else None


def _hours(value: Any) -> list[int] | None:
    """Counts for the hours 0 to 23; None unless each hour has one."""
    counts = {_integer(item.get("hour")): _count(item.get("count")) for item in _objects(value)}
    hours = [counts.get(hour) for hour in range(24)]
    return None if None in hours else hours  # type: ignore[return-value]


def _shares(value: Any, key: str) -> list[list[Any]]:
    """Names and shares, the largest first."""
    shares: dict[str, Any] = {
        _line(item.get(key))[:100]: item.get("percentage") for item in _objects(value)[:MAX_GROUPS]
    }
    return sorted(
        (
            [name, float(share)]
            for name, share in shares.items()
            if name and type(share) in (int, float) and 0 <= share <= 1
        ),
        key=lambda pair: -pair[1],
    )


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_token(value: Any) -> TypeGuard[str]:
    """Whether ``value`` can be a token: what is not printable ASCII fits in no HTTP header."""
    return isinstance(value, str) and _is_word(value)


def _is_word(value: str) -> bool:
    return value != "" and value.isascii() and value.isprintable() and " " not in value


def _integer(value: Any) -> int | None:
    """An integer that fits a database column, given as a number or as a numeral; else None."""
    is_numeral = isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value)
    if is_numeral or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    return None


def _clean_text(value: Any) -> str:
    """Text that every database can hold: no NUL, no lone surrogates."""
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def _line(value: Any) -> str:
    """Text in one line: a line break in a message would forge a record of a log file."""
    text = _clean_text(value)
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


# The second net: TikTok's tokens begin like this in all its samples.
_TOKEN_LIKE = re.compile(r"\b(?:act|rft)\.\S{8,}")

_PARTIAL_SUCCESS = 20001

# One line per code: TikTok's own name, from its SDK's constants, is in the comment. What is not
# here (and in no range below) is an APIError: not to be repeated, and no verdict on the account.
_ERRORS: dict[int, type[APIError]] = {
    40001: PermissionDeniedError,  # PERMISSION_ERROR
    40006: AppConfigurationError,  # VERSION_ERROR
    40008: AppConfigurationError,  # NOT_IMPL
    40010: AppConfigurationError,  # UNSUPPORTED_DOMAIN
    40016: RateLimitError,  # BIZ_FC_ERROR
    40051: AppConfigurationError,  # INVALID_API_VERSION
    40100: RateLimitError,  # REQUEST_TOO_FREQUENT
    40101: AppCredentialsRejectedError,  # INVALID_PARTNER
    40102: AccessTokenRejectedError,  # ACCESS_TOKEN_EXPIRE
    40104: AppConfigurationError,  # EMPTY_ACCESS_TOKEN
    40105: AccessTokenRejectedError,  # INVALID_ACCESS_TOKEN
    40108: AppConfigurationError,  # INVALID_GRANT_TYPE
    40113: AppCredentialsRejectedError,  # APP_FORBIDDEN
    40116: AppConfigurationError,  # AUTH_SIG_ERROR
    40117: AppConfigurationError,  # APP_METHOD_FORBIDDEN
    40118: AppConfigurationError,  # NOT_IN_WHITELIST
    40124: AppCredentialsRejectedError,  # DEVELOPER_REJECTED
    40125: AppCredentialsRejectedError,  # DEVELOPER_NO_PERMISSION
    40130: PermissionDeniedError,  # SCOPE_NOT_AUTHORIZED
    40131: AccessTokenRejectedError,  # SCOPE_TT_USER_OAUTH_FAILED, on a data call
    40132: RateLimitError,  # REQUEST_FREQUENCY_LIMITED
    40133: RateLimitError,  # too frequent (appendix only)
    40202: ServerError,  # WRITE_CONFLICT
    40902: ServerError,  # a file could not be fetched; so are the next two (appendix only)
    40903: ServerError,
    40913: ServerError,
    40400: AppConfigurationError,  # ROUTE_NOT_FOUND
    41000: AppConfigurationError,  # BLOCKED: the caller's address
    41001: AppConfigurationError,  # INTERFACE_OFFLINE
    41002: AppConfigurationError,  # FIELDS_OFFLINE
    60001: ServerError,  # MAINTENANCE
    61000: RateLimitError,  # TOO_MANY_REQUESTS_BL
}

# The same code can mean something else at the token endpoints.
CODE_EXCHANGE_ERRORS: dict[int, type[APIError]] = {
    40110: AuthorizationCodeRejectedError,  # AUTH_CODE_ERROR
    40115: AuthorizationCodeRejectedError,  # AUTH_TIMESTAMP_EXPIRE
    40120: AuthorizationCodeRejectedError,  # TIKTOK_USER_NOT_LOGGED_IN
    40131: AuthorizationCodeRejectedError,  # SCOPE_TT_USER_OAUTH_FAILED
}
REFRESH_ERRORS: dict[int, type[APIError]] = {
    40103: ReauthorizationRequired,  # REFRESH_TOKEN_EXPIRE
    40107: ReauthorizationRequired,  # INVALID_REFRESH_TOKEN
    40131: ReauthorizationRequired,  # SCOPE_TT_USER_OAUTH_FAILED
    # Verdicts on an access token say nothing about the refresh token that was sent.
    40102: APIError,
    40105: APIError,
}


def _error_of_range(code: int) -> type[APIError]:
    """50000-53999: TikTok's own faults, storage and serialization included."""
    return ServerError if 50000 <= code < 54000 else APIError
