"""The errors of this package, by what the caller can do about them.

::

    ConfigurationError (ImproperlyConfigured)     so that no broad except hides it

    TikTokBusinessError
    ├── RetryableError                            nothing is lost: try again later
    │   ├── AccountBusyError                      another worker or transaction holds the account
    │   ├── ConnectionFailedError                 no answer; TikTok may have acted on the request
    │   │   └── ConnectionNotMadeError            the request never reached TikTok
    │   ├── RateLimitError          (APIError)    wait: `retry_after` seconds, when known
    │   ├── ServerError             (APIError)    TikTok's servers failed
    │   └── InvalidResponseError    (APIError)    the answer does not have the documented shape
    ├── APIError                                  TikTok refused; see its attributes
    │   ├── AccessTokenRejectedError              refresh, then try once more
    │   ├── ReauthorizationRequired               the account holder has to connect again
    │   ├── PermissionDeniedError                 a scope (or the object) is not granted
    │   ├── AuthorizationCodeRejectedError        start the browser flow again
    │   └── AppConfigurationError                 fix the configuration
    │       └── AppCredentialsRejectedError       ... of the app's credentials: no call can succeed
    ├── DecryptionError                           no configured key decrypts the stored token
    ├── AccountOwnedByAnotherUserError            another user has connected the account
    └── AccountGoneError                          the account's row is deleted, or not visible yet

No message, argument or attribute ever holds a token, an authorization code or a secret. API errors
have no cause, since the exceptions of `requests` carry the whole request.
"""

from __future__ import annotations

from typing import ClassVar

from django.core.exceptions import ImproperlyConfigured

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
    "RetryableError",
    "ServerError",
    "TikTokBusinessError",
]


class ConfigurationError(ImproperlyConfigured):
    """A setting is missing or wrong."""


class TikTokBusinessError(Exception):
    """Base of all run-time errors; ``remedy`` says what the caller can do."""

    remedy: ClassVar[str] = "Report this to whoever runs the site."


class RetryableError(TikTokBusinessError):
    """A temporary failure: the stored tokens are unchanged and probably valid."""

    remedy = "Try again later."


class AccountBusyError(RetryableError):
    """Another worker, or an open transaction, holds the account."""


class ConnectionFailedError(RetryableError):
    """No complete answer arrived; TikTok may have acted on the request."""


class ConnectionNotMadeError(ConnectionFailedError):
    """The request never reached TikTok: DNS, TLS, a refused connection, a connect time-out."""


class APIError(TikTokBusinessError):
    """TikTok answered with an error that repeating the call will not change.

    ``code`` and ``message`` are TikTok's; ``code`` is None when the answer has none. TikTok's
    support asks for ``request_id`` ("" when unknown). ``http_status`` is an int or None.
    """

    remedy = "Do not repeat the call; see the message."

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
    """TikTok asks for fewer calls, or the shared rate limit allows none at present.

    ``retry_after``: the seconds until calls are allowed again, None when unknown.
    """

    retry_after: float | None = None


class ServerError(RetryableError, APIError):
    """TikTok's servers failed or are under maintenance."""


class InvalidResponseError(RetryableError, APIError):
    """The answer does not have the documented shape (HTML, cut off, a missing field)."""


class AccessTokenRejectedError(APIError):
    """The access token has expired, or TikTok does not accept it."""

    remedy = "Refresh the access token, then try once more."


class ReauthorizationRequired(APIError):  # noqa: N818 -- the name is part of the public contract
    """Only the account holder can renew the connection."""

    remedy = "Ask the account holder to connect the account again."


class PermissionDeniedError(APIError):
    """A scope is not granted, or the object belongs to another account."""

    remedy = "Reconnect the account and grant the missing scope."


class AuthorizationCodeRejectedError(APIError):
    """The authorization code has expired, was used before, or belongs to another app."""

    remedy = "Start connecting again from the beginning."


class AppConfigurationError(APIError):
    """TikTok refuses the configuration: endpoint, API version or app permissions."""

    remedy = "Fix the configuration of the app."


class AppCredentialsRejectedError(AppConfigurationError):
    """TikTok refuses APP_ID and APP_SECRET, or has blocked the app."""

    remedy = "Fix APP_ID and APP_SECRET, or have TikTok unblock the app."


class DecryptionError(TikTokBusinessError):
    """No configured key decrypts a stored token; the message names the account and the key."""

    remedy = "Restore the missing encryption key, or reconnect the account."


class AccountOwnedByAnotherUserError(TikTokBusinessError):
    """Another user has already connected this TikTok account."""

    remedy = "Ask its owner or an administrator."


class AccountGoneError(TikTokBusinessError):
    """The account's row does not exist, or another transaction has not committed it yet."""

    remedy = "Connect the account again, or commit its row first."
