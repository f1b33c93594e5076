"""TikTok's Accounts API (API for Business v1.3) over `requests`. No ORM, no settings.

Facts about the service come from TikTok's page "Accounts API - Authorization" (doc id
1738083939371009) and its neighbours, as read until 2026-11-22; what they leave open is decided so
that no token is lost.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from django.views.decorators.debug import sensitive_variables

from . import __version__
from .answers import (
    CODE_EXCHANGE_ERRORS,
    REFRESH_ERRORS,
    Answer,
    Profile,
    TokenGrant,
    TokenInfo,
)
from .exceptions import (
    APIError,
    ConnectionFailedError,
    ConnectionNotMadeError,
    InvalidResponseError,
    RateLimitError,
    RetryableError,
    ServerError,
    TikTokBusinessError,
)
from .masking import Secret, SecretBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import requests

__all__ = ["PROFILE_FIELDS", "TikTokClient"]

MAX_BODY_BYTES = 2 * 1024 * 1024  # the largest answer is a page of comments, far below this
BACKOFF_SECONDS = 0.25  # least pause before the second try; doubles with each, plus jitter
RATE_LIMIT_PAUSE_SECONDS = 1.0  # TikTok counts queries per second: free again in the next one
MAX_PAUSE_SECONDS = 10.0  # a call that would have to wait longer is given back to the caller

# Which scope lets which field of /business/get/ be asked for. The page shows a scope for each
# field; fields without their scope may fail the whole call, so only allowed ones are asked for.
PROFILE_FIELDS = {
    "display_name": "user.info.basic",
    "profile_image": "user.info.basic",
    "username": "user.info.username",
    "profile_deep_link": "user.info.profile",
    "bio_description": "user.info.profile",
    "is_verified": "user.info.profile",
    "followers_count": "user.info.stats",
    "following_count": "user.info.stats",
    "total_likes": "user.info.stats",
    "videos_count": "user.info.stats",
    "is_business_account": "user.account.type",
}


_READ = (RetryableError,)  # what a call that changes nothing is repeated on


class TikTokClient:
    """Calls on behalf of one developer app. Not thread-safe: a session belongs to one thread.

    ``timeout`` is in seconds, for connecting and for each wait on the answer. ``session_factory``
    returns a `requests.Session`; it is called when the first call is made. ``max_attempts`` bounds
    the tries of a call that is safe to repeat.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        base_url: str,
        timeout: float = 20,
        max_attempts: int = 3,
        session_factory: Callable[[], requests.Session] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client_id = client_id
        self._client_secret = Secret(client_secret)
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._max_attempts = max_attempts
        self._session_factory = session_factory
        self._session: requests.Session | None = None
        self._sleep = sleep

    def close(self) -> None:
        """Give the connections back; the client can be used again afterwards."""
        if self._session is not None:
            self._session.close()
            self._session = None

    # OAuth 2.0

    def exchange_code(self, code: str, *, redirect_uri: str) -> TokenGrant:
        """Exchange an authorization code. Never tried twice: the code is used up by the first."""
        sent_at = datetime.now(UTC)
        answer = self._request(
            "POST",
            "/tt_user/oauth2/token/",
            body={
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "grant_type": "authorization_code",
                "auth_code": Secret(code),
                "redirect_uri": redirect_uri,
            },
            errors=CODE_EXCHANGE_ERRORS,
            retry_on=(),
        )
        grant = answer.grant(sent_at)
        if grant.refresh_token is None or grant.open_id is None:
            missing = "refresh_token" if grant.refresh_token is None else "open_id"
            raise answer.invalid(f"the token answer has no {missing}")
        return grant

    def refresh(self, refresh_token: str) -> TokenGrant:
        """Renew an access token.

        Tried again where TikTok answered or was not reached. After a time-out it is not: the first
        request may still be at work, and TikTok may rotate the refresh token with each.
        """
        sent_at = datetime.now(UTC)
        answer = self._request(
            "POST",
            "/tt_user/oauth2/refresh_token/",
            body={
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "grant_type": "refresh_token",
                "refresh_token": Secret(refresh_token),
            },
            errors=REFRESH_ERRORS,
            retry_on=(ConnectionNotMadeError, RateLimitError, ServerError),
        )
        return answer.grant(sent_at)

    def revoke(self, access_token: str) -> None:
        """End the grant that ``access_token`` belongs to, refresh token included."""
        self._request(
            "POST",
            "/tt_user/oauth2/revoke/",
            body={
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "access_token": Secret(access_token),
            },
            retry_on=_READ,
            is_data_needed=False,
        )

    def token_info(self, access_token: str) -> TokenInfo:
        """Ask which app, account and scopes a token belongs to."""
        answer = self._request(
            "POST",
            "/tt_user/token_info/get/",
            body={"app_id": self._client_id, "access_token": Secret(access_token)},
            retry_on=_READ,
        )
        open_id, scopes = answer.open_id(), answer.scopes()
        if open_id is None or scopes is None:
            raise answer.invalid("the token_info answer lacks creator_id or scope")
        return TokenInfo(app_id=str(answer.data.get("app_id", "")), open_id=open_id, scopes=scopes)

    # The Accounts API

    def profile(self, access_token: str, *, open_id: str, fields: Iterable[str]) -> Profile:
        """Ask for ``fields`` (keys of `PROFILE_FIELDS`) of the account's profile."""
        answer = self._request(
            "GET",
            "/business/get/",
            query={"business_id": open_id, "fields": json.dumps(list(fields))},
            access_token=access_token,
            retry_on=_READ,
        )
        return Profile(
            display_name=answer.text("display_name"),
            username=answer.text("username"),
            profile_image_url=answer.text("profile_image"),
            profile_url=answer.text("profile_deep_link"),
            bio=answer.text("bio_description"),
            is_verified=answer.boolean("is_verified"),
            is_business_account=answer.boolean("is_business_account"),
            followers_count=answer.count("followers_count"),
            following_count=answer.count("following_count"),
            likes_count=answer.count("total_likes"),
            videos_count=answer.count("videos_count"),
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        access_token: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call any endpoint below the base URL and return the answer's ``data``.

        Lists, objects and booleans in ``query`` are sent as JSON, as TikTok wants them. A GET is
        repeated like any read; anything else only when TikTok cannot have acted on it.
        """
        answer = self._request(
            method.upper(),
            path,
            query={
                name: json.dumps(value) if isinstance(value, list | dict | bool) else value
                for name, value in (query or {}).items()
            },
            body=body,
            access_token=access_token,
            retry_on=_READ if method.upper() == "GET" else (ConnectionNotMadeError, RateLimitError),
            is_data_needed=False,
        )
        if answer.has_foreign_data:
            raise answer.invalid("its data is not an object")
        return answer.data

    # One call

    @sensitive_variables()
    def _request(
        self,
        method: str,
        path: str,
        *,
        retry_on: tuple[type[RetryableError], ...],
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        access_token: str | None = None,
        errors: Mapping[int, type[APIError]] | None = None,
        is_data_needed: bool = True,
    ) -> Answer:
        """Make a call, repeat it on the errors in ``retry_on``, and raise what it ends in."""
        if "//" in path or "?" in path or "#" in path or ".." in path:
            raise ValueError(f"Not a path of the Accounts API: {path!r}")
        url = f"{self._base_url}/{path.strip('/')}/"  # without the last slash TikTok answers 404
        headers = {"User-Agent": f"django_tiktok_business/{__version__}"}
        if access_token is not None:
            headers["Access-Token"] = Secret(access_token)  # its own header; no "Bearer"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = SecretBytes(json.dumps(body).encode())
        secrets = [value for value in (body or {}).values() if isinstance(value, Secret)]
        secrets += [value for value in headers.values() if isinstance(value, Secret)]

        attempt = 1
        while True:
            error: TikTokBusinessError | None
            answer = self._send(method, url, query, content, headers)
            if isinstance(answer, Answer):
                error = answer.error(errors or {}, secrets)
                if error is None and (answer.data or not is_data_needed):
                    return answer
                error = error or answer.invalid("it has no data")
            else:
                error = answer
            pause = self._pause(error, attempt)
            if not isinstance(error, retry_on) or attempt >= self._max_attempts or pause is None:
                raise error from None
            self._sleep(pause)
            attempt += 1

    @sensitive_variables()
    def _send(
        self,
        method: str,
        url: str,
        query: Mapping[str, Any] | None,
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> Answer | RetryableError:
        """Send one HTTP request; an error is returned, not raised.

        The exceptions of `requests` carry the request with its tokens, and their tracebacks run
        through frames that hold it as bytes: none of them may become a cause or a context.
        """
        import requests  # costly to import, and most processes never call TikTok

        if self._session is None:
            self._session = (self._session_factory or requests.Session)()
        try:
            with self._session.request(
                method,
                url,
                params=query,
                data=content,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,  # a redirect would take the token header along
                stream=True,
            ) as response:
                text = b""
                for chunk in response.iter_content(64 * 1024):
                    text += chunk
                    if len(text) > MAX_BODY_BYTES:
                        return InvalidResponseError(
                            "TikTok's answer is too large", http_status=response.status_code
                        )
                return Answer(
                    response.status_code, text, _seconds(response.headers.get("Retry-After"))
                )
        except requests.ConnectTimeout:
            return ConnectionNotMadeError("TikTok did not accept a connection in time.")
        except requests.Timeout:
            return ConnectionFailedError(
                f"TikTok did not answer within {self._timeout:g} seconds; "
                "it may have acted on the request."
            )
        except requests.ConnectionError as error:  # TLS and proxy errors are such errors too
            if _never_connected(error):
                return ConnectionNotMadeError(f"TikTok cannot be reached: {_kind(error)}.")
            return ConnectionFailedError(
                f"The connection to TikTok broke: {_kind(error)}; it may have acted on the request."
            )
        except Exception as error:  # noqa: BLE001 -- see above: it could carry a token
            return ConnectionFailedError(f"The call to TikTok failed: {_kind(error)}.")

    def _pause(self, error: Exception, attempt: int) -> float | None:
        """Seconds to wait before the next try; None when that would be too long to wait here."""
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            return error.retry_after if error.retry_after <= MAX_PAUSE_SECONDS else None
        # Jitter, so that workers that failed together do not come back together.
        pause = BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(1, 2)  # noqa: S311
        if isinstance(error, RateLimitError):
            pause = max(pause, RATE_LIMIT_PAUSE_SECONDS)
        return min(pause, MAX_PAUSE_SECONDS)


def _kind(error: BaseException) -> str:
    """What went wrong, by the names of the exceptions alone: their texts may hold the request."""
    return " / ".join(type(link).__name__ for link in _chain(error))


def _never_connected(error: BaseException) -> bool:
    """Whether urllib3 gave up before the request could be sent. In doubt it was sent."""
    return bool({type(link).__name__ for link in _chain(error)} & _BEFORE_SENDING)


_BEFORE_SENDING = {
    "NewConnectionError",  # refused, no route
    "NameResolutionError",
    "ConnectTimeoutError",
    "ProxyError",
    "SSLCertVerificationError",
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it wraps: `requests` and urllib3 pass it as argument or reason."""
    link: object = error
    for _ in range(5):
        if not isinstance(link, BaseException):
            return
        yield link
        link = getattr(link, "reason", None) or (link.args[0] if link.args else None)


def _seconds(header: str | None) -> float | None:
    """Retry-After, as seconds or as an HTTP date; None when missing or nonsense."""
    if header is None:
        return None
    if header.strip().isdecimal() and len(header) < 10:
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    remaining: timedelta = at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)
    return max(0.0, remaining.total_seconds())
