"""Call TikTok's Accounts API (API for Business v1.3). Knows no endpoint and no setting.

The facts come from TikTok's page "Accounts API - Authorization" (doc id 1738083939371009) and its
neighbours, read until 2026-11-22. Where these are silent, the client does what loses no token.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from django.views.decorators.debug import sensitive_variables

from django_tiktok_business import __version__
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    APIError,
    RateLimitError,
    RetryableError,
    TikTokBusinessError,
)
from django_tiktok_business.masking import Secret, SecretBytes

from .envelope import Envelope, is_token
from .rate_limit import ON_DEMAND, RateLimiter
from .retry import LONGEST_PAUSE_SECONDS, READ, WRITE, backoff_seconds, longest_try_seconds
from .transport import Request, Transport

if TYPE_CHECKING:
    import requests


# TikTok's paths are plain words. Anything else could send the token to another host.
_PATH = re.compile(r"/?[\w-]+(?:/[\w-]+)*/?", re.ASCII)


class Caller(Protocol):
    """Sends an account's access token with each call. The groups of endpoints build on this.

    An answer without ``data`` raises `InvalidResponseError`, unless ``is_data_needed`` is false.
    """

    def get(self, path: str, query: Mapping[str, Any], *, is_data_needed: bool = True) -> Envelope:
        """Read; repeated after temporary errors.

        Lists, objects and booleans in ``query`` are sent as JSON, as TikTok wants them.
        """
        ...

    def post(self, path: str, body: Mapping[str, Any], *, is_data_needed: bool = True) -> Envelope:
        """Write; repeated only when TikTok cannot have acted on it."""
        ...


class TikTokClient:
    """Makes calls on behalf of one developer app. Not thread-safe: a session belongs to one thread.

    ``timeout`` is in seconds, for one HTTP request (see `Transport` for what it bounds). The first
    call asks ``session_factory`` for a `requests.Session` of the client's own; what the factory
    raises is raised. ``max_attempts`` bounds the tries of a call that is safe to repeat. Each try
    waits at most LONGEST_PAUSE_SECONDS for a slot of ``limiter``.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        base_url: str,
        limiter: RateLimiter,
        timeout: float = 20,
        max_attempts: int = 3,
        session_factory: Callable[[], requests.Session] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.credentials = {"client_id": client_id, "client_secret": Secret(client_secret)}
        self._base_url = base_url.rstrip("/")
        self._max_attempts = max_attempts
        self._limiter = limiter
        self._longest_try_seconds = longest_try_seconds(timeout)
        self._transport = Transport(timeout=timeout, session_factory=session_factory)
        self._sleep = sleep
        self._access_token: str | None = None
        self._reserved_slots: Iterator[bool] = iter(())

    def authorized(self, access_token: str) -> TikTokClient:
        """Return a client that sends ``access_token`` with each call, over the same connections."""
        client = copy(self)
        client._access_token = Secret(access_token)
        return client

    def with_slot(self) -> TikTokClient:
        """Return a client whose first try takes no slot: the caller has reserved one for it.

        A slot serves one try, however many clients `authorized` makes of the returned one.
        """
        client = copy(self)
        client._reserved_slots = iter([True])
        return client

    def close(self) -> None:
        """Close the connections; the client can be used again afterwards."""
        self._transport.close()

    def reach(self, url: str) -> datetime | None:
        """Check that a host answers; return the time in its ``Date`` header, None without one.

        Any HTTP status will do. Raises `ConnectionFailedError` and `AppConfigurationError`.
        """
        host_time = self._transport.reach(url)
        if isinstance(host_time, TikTokBusinessError):
            raise host_time
        return host_time

    def get(self, path: str, query: Mapping[str, Any], *, is_data_needed: bool = True) -> Envelope:
        """See `Caller.get`."""
        return self.call("GET", path, query=query, retry_on=READ, is_data_needed=is_data_needed)

    def post(self, path: str, body: Mapping[str, Any], *, is_data_needed: bool = True) -> Envelope:
        """See `Caller.post`."""
        return self.call("POST", path, body=body, retry_on=WRITE, is_data_needed=is_data_needed)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call any endpoint below the base URL and return the answer's ``data``.

        A GET is repeated like `Caller.get`, anything else like `Caller.post`. Raises ValueError
        on a path that cannot be one of the Accounts API.
        """
        method = method.upper()
        retry_on = READ if method == "GET" else WRITE
        answer = self.call(
            method, path, query=query, body=body, retry_on=retry_on, is_data_needed=False
        )
        if answer.has_malformed_data:
            raise answer.invalid("its data is not an object")
        return answer.data

    @sensitive_variables()
    def call(
        self,
        method: str,
        path: str,
        *,
        retry_on: tuple[type[RetryableError], ...],
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        errors: Mapping[int, type[APIError]] | None = None,
        is_data_needed: bool = True,
        until: float = math.inf,
    ) -> Envelope:
        """Make a call, repeat it on the errors in ``retry_on``, and raise the last error.

        ``errors``: what codes mean at this endpoint, where that differs from everywhere else.
        ``until``: an instant of the monotonic clock; after the first try, none begins that could
        last beyond it.
        """
        request = self._prepare(method, path, query, body)
        attempt = 1
        error: TikTokBusinessError | None = None
        while self._take_slot():
            sent_at = clock.now()
            answer = self._transport.send(request)
            retry_after = None
            if isinstance(answer, Envelope):
                error = answer.error(errors or {}, is_data_needed=is_data_needed)
                if error is None:
                    return answer
                retry_after = answer.retry_after
            else:
                error = answer
            pause = backoff_seconds(attempt, retry_after)
            if isinstance(error, RateLimitError):
                pause = self._limiter.refused(error, sent_at=sent_at)
                error.retry_after = pause = max(pause, error.retry_after or 0.0)
            is_final = attempt >= self._max_attempts or pause > LONGEST_PAUSE_SECONDS
            if not isinstance(error, retry_on) or is_final or self._may_outlast(until, pause):
                raise error from None
            if not isinstance(error, RateLimitError):  # the limiter makes everybody pause for those
                self._sleep(pause)
            attempt += 1
        raise error or self._no_slot()

    @sensitive_variables()
    def _prepare(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
    ) -> Request:
        if not _PATH.fullmatch(path):
            raise ValueError(f"Not a path of the Accounts API: {path!r}")
        headers = {
            "User-Agent": f"django_tiktok_business/{__version__}",
            # A compressed answer could unpack to a thousand times its size.
            "Accept-Encoding": "identity",
        }
        if self._access_token is not None:
            if not is_token(self._access_token):
                raise AccessTokenRejectedError("What is stored cannot be an access token.")
            headers["Access-Token"] = self._access_token  # its own header; no "Bearer"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = SecretBytes(json.dumps(body).encode())
        values = (*(body or {}).values(), *headers.values())
        return Request(
            method,
            f"{self._base_url}/{path.strip('/')}/",  # without the last slash TikTok answers 404
            query={name: _query_value(value) for name, value in (query or {}).items()},
            content=content,
            headers=headers,
            secrets=[value for value in values if isinstance(value, Secret)],
        )

    def _take_slot(self) -> bool:
        """Wait for a slot of the rate limit; False when none is free soon enough."""
        if next(self._reserved_slots, False):
            return True
        wait_seconds = self._limiter.reserve(ON_DEMAND)
        if wait_seconds:
            self._sleep(wait_seconds)
        return wait_seconds is not None

    def _no_slot(self) -> RateLimitError:
        error = RateLimitError(
            f"No call to TikTok is free within {ON_DEMAND:g} seconds: TikTok has asked for a "
            "pause, or REQUESTS_PER_MINUTE is used up."
        )
        error.retry_after = self._limiter.wait_seconds(ON_DEMAND)
        return error

    def _may_outlast(self, until: float, pause: float) -> bool:
        longest = pause + LONGEST_PAUSE_SECONDS + self._longest_try_seconds
        return time.monotonic() + longest > until


def _query_value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | dict | bool) else value
