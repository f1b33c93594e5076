"""The errors that this package raises, grouped by what the caller can do about them.

::

    ConfigurationError (ImproperlyConfigured)     not caught with the errors below

    TikTokBusinessError
    ├── RetryableError                            nothing is lost: try again later
    │   ├── AccountBusyError                      another worker or transaction holds the account
    │   ├── ConnectionFailedError                 no response; TikTok may have acted on the request
    │   │   └── ConnectionNotMadeError            the request never reached TikTok
    │   ├── RateLimitError          (APIError)    wait for `retry_after` seconds, if known
    │   ├── RejectionUnconfirmedError (APIError)  TikTok rejected the tokens once: not final yet
    │   ├── ServerError             (APIError)    TikTok failed
    │   └── InvalidResponseError    (APIError)    the response is not of the documented shape
    ├── APIError                                  TikTok refused; see its attributes
    │   ├── AccessTokenRejectedError              refresh, then try once more
    │   ├── ReauthorizationRequired               the account holder has to connect again
    │   ├── PermissionDeniedError                 a scope (or the object) is not granted
    │   ├── AuthorizationCodeRejectedError        start the browser flow again
    │   └── AppConfigurationError                 fix the app's configuration
    │       └── AppCredentialsRejectedError       fix APP_ID and APP_SECRET; no call can succeed
    ├── DecryptionError                           no configured key decrypts the stored token
    ├── AccountOwnedByAnotherUserError            another user has connected the account
    └── AccountGoneError                          the account's row is deleted, or not committed yet

No message, argument or attribute holds a token, an authorization code or a secret. API errors are
raised without a cause, because the exceptions of `requests` carry the whole request.

Each class has a ``remedy``: what to do about the error. A remedy for the people who use the site is
translated, and the site's pages show it. The others are in English, for the developer who catches
the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

__all__ = [
    "APIError",
    "AccessTokenRejectedError",
    "AccountBusyError",
    "AccountGoneError",
    "AccountOwnedByAnotherUserError",
    "AppConfigurationError",
    "AppCredentialsRejectedError",
    "AuthorizationCodeRejectedError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConnectionNotMadeError",
    "DecryptionError",
    "InvalidResponseError",
    "PermissionDeniedError",
    "RateLimitError",
    "ReauthorizationRequired",
    "RejectionUnconfirmedError",
    "RetryableError",
    "ServerError",
    "TikTokBusinessError",
]


class ConfigurationError(ImproperlyConfigured):
    """A setting is missing or wrong."""

    remedy: ClassVar[StrOrPromise] = _("The configuration of the app has to be corrected.")


class TikTokBusinessError(Exception):
    """Base of all errors at run time."""

    remedy: ClassVar[StrOrPromise] = "Report this to the people who run the site."


class RetryableError(TikTokBusinessError):
    """The stored tokens are unchanged and probably still valid: try again later."""

    remedy: ClassVar[StrOrPromise] = _("Nothing is lost: try again later.")


class AccountBusyError(RetryableError):
    """Another worker, or an open transaction, holds the account."""


class ConnectionFailedError(RetryableError):
    """No complete response arrived; TikTok may or may not have acted on the request."""


class ConnectionNotMadeError(ConnectionFailedError):
    """The request never reached TikTok: DNS, refused connection, TLS, connect timeout."""


class APIError(TikTokBusinessError):
    """TikTok returned an error that repeating the call does not change.

    ``code`` is TikTok's error code, or None. ``message`` is TikTok's text. ``request_id`` is what
    TikTok's support asks for, or "". ``http_status`` is an int, or None.
    """

    remedy: ClassVar[StrOrPromise] = "Do not repeat the call; see the message."

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        request_id: str = "",
        http_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id
        self.http_status = http_status

    def __str__(self) -> str:
        facts = [
            f"code {self.code}" if self.code is not None else "",
            f"HTTP {self.http_status}" if self.http_status not in (None, 200) else "",
            f"request id {self.request_id}" if self.request_id else "",
        ]
        details = ", ".join(fact for fact in facts if fact)
        return f"{self.message} ({details})" if details else self.message


class RateLimitError(RetryableError, APIError):
    """TikTok asks for fewer calls, or the shared rate limit allows none at the moment.

    ``retry_after`` is the number of seconds until calls are made again, or None if unknown.
    """

    retry_after: float | None = None


class RejectionUnconfirmedError(RetryableError, APIError):
    """TikTok rejected the refresh token once; it is tried again before the connection is lost."""


class ServerError(RetryableError, APIError):
    """TikTok failed on its side, or is under maintenance."""


class InvalidResponseError(RetryableError, APIError):
    """The response is not of the documented shape (HTML, truncated, a field missing)."""


class AccessTokenRejectedError(APIError):
    """The access token has expired, or TikTok does not accept it."""

    remedy = "Refresh the access token, then try once more."


class ReauthorizationRequired(APIError):  # noqa: N818 -- the name is part of the public contract
    """Only the account holder can renew the connection."""

    remedy = _("The account has to be connected again.")


class PermissionDeniedError(APIError):
    """A scope is not granted, or the object belongs to another account."""

    remedy = _("Connect the account again and grant the missing permission.")


class AuthorizationCodeRejectedError(APIError):
    """The authorization code has expired, is already used, or belongs to another app."""

    remedy = "Start connecting again from the beginning."


class AppConfigurationError(APIError):
    """TikTok refuses the configured endpoint, API version or app permissions."""

    remedy = _("The configuration of the app has to be corrected.")


class AppCredentialsRejectedError(AppConfigurationError):
    """TikTok refuses APP_ID and APP_SECRET, or has blocked the app."""


class DecryptionError(TikTokBusinessError):
    """A stored token cannot be decrypted; the message names the account and the key."""

    remedy = _("Restore the missing encryption key, or connect the account again.")


class AccountOwnedByAnotherUserError(TikTokBusinessError):
    """Another user has already connected this TikTok account."""

    remedy = "Ask its owner or an administrator."


class AccountGoneError(TikTokBusinessError):
    """The account's row does not exist, or another transaction has not committed it yet."""

    remedy = "Connect the account again, or commit its row first."
