"""TikTok's Accounts API (API for Business v1.3) over `requests`. No ORM, no settings.

Facts about the service come from TikTok's page "Accounts API - Authorization" (doc id
1738083939371009) and its neighbours, as read until 2026-11-22; what they leave open is decided so
that no token is lost.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.views.decorators.debug import sensitive_variables

from . import __version__, clock
from .answers import (
    CODE_EXCHANGE_ERRORS,
    REFRESH_ERRORS,
    Answer,
    Insights,
    Profile,
    TokenGrant,
    TokenInfo,
    is_token,
)
from .ceiling import ON_DEMAND
from .deadlines import LONGEST_PAUSE_SECONDS, longest_try_seconds
from .exceptions import (
    AccessTokenRejectedError,
    APIError,
    ConnectionNotMadeError,
    RateLimitError,
    RetryableError,
    ServerError,
    TikTokBusinessError,
)
from .masking import Secret, SecretBytes
from .transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date

    import requests

    from .ceiling import Ceiling

__all__ = ["INSIGHT_FIELDS", "PROFILE_FIELDS", "TikTokClient"]

BACKOFF_SECONDS = 0.25  # least pause before the second try; doubles with each, plus jitter

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

# Of the same endpoint: figures by day, who watches, and the scope that each takes. Scopes as
# TikTok's descriptions of them read (inferred), figures as its page names them.
DAILY_FIGURES = (
    "followers_count",
    "video_views",
    "unique_video_views",
    "profile_views",
    "likes",
    "comments",
    "shares",
    "engaged_audience",
    "daily_new_followers",
    "daily_lost_followers",
    "bio_link_clicks",
    "email_clicks",
    "phone_number_clicks",
    "address_clicks",
    "app_download_clicks",
    "lead_submissions",
)
INSIGHT_FIELDS = {
    **dict.fromkeys(DAILY_FIGURES, "user.insights"),
    "followers_count": "user.info.stats",
    "audience_activity": "user.insights",
    "audience_ages": "user.insights",
    "audience_genders": "user.insights",
    "audience_countries": "user.insights",
}

_READ = (RetryableError,)  # what a call that changes nothing is repeated on
# TikTok's paths are plain words: nothing that could lead, with the token, to another place.
_PATH = re.compile(r"/?[\w-]+(?:/[\w-]+)*/?", re.ASCII)


class TikTokClient:
    """Calls on behalf of one developer app. Not thread-safe: a session belongs to one thread.

    ``timeout`` is in seconds, for one HTTP request (see `Transport` for what it bounds).
    ``session_factory`` returns a `requests.Session` of the client's own, and is called when the
    first call is made; what it raises is raised. ``max_attempts`` bounds the tries of a call that
    is safe to repeat. Each try waits for its turn under ``ceiling``, at most LONGEST_PAUSE_SECONDS.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        base_url: str,
        ceiling: Ceiling,
        timeout: float = 20,
        max_attempts: int = 3,
        session_factory: Callable[[], requests.Session] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client_id = client_id
        self._client_secret = Secret(client_secret)
        self._base_url = base_url.rstrip("/")
        self._max_attempts = max_attempts
        self._ceiling = ceiling
        self._longest_try_seconds = longest_try_seconds(timeout)
        self._transport = Transport(timeout=timeout, session_factory=session_factory)
        self._sleep = sleep

    def close(self) -> None:
        """Give the connections back; the client can be used again afterwards."""
        self._transport.close()

    def reach(self, url: str) -> datetime | None:
        """Reach a host; the time by its ``Date`` header, None when it tells none.

        Any HTTP status will do. Raises `ConnectionFailedError` and `AppConfigurationError`.
        """
        told_at = self._transport.reach(url)
        if isinstance(told_at, TikTokBusinessError):
            raise told_at
        return told_at

    # OAuth 2.0

    def exchange_code(self, code: str, *, redirect_uri: str) -> TokenGrant:
        """Exchange an authorization code. Never tried twice: the code is used up by the first."""
        code = Secret(code)  # here and below: a report on an error shows the variables' reprs
        sent_at = clock.instant()
        answer = self._request(
            "POST",
            "/tt_user/oauth2/token/",
            body={
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "grant_type": "authorization_code",
                "auth_code": code,
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

    def refresh(
        self, refresh_token: str, *, has_turn: bool = False, until: float = math.inf
    ) -> TokenGrant:
        """Renew an access token.

        Tried again where TikTok answered or was not reached. After a time-out it is not: the first
        request may still be at work, and TikTok may rotate the refresh token with each.
        ``has_turn``: the caller has taken a turn under the ceiling, for the first try. No try
        after the first is begun that could last beyond ``until``, on the monotonic clock.
        """
        refresh_token = Secret(refresh_token)
        sent_at = clock.instant()
        answer = self._request(
            "POST",
            "/tt_user/oauth2/refresh_token/",
            body={
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "grant_type": "refresh_token",
                "refresh_token": refresh_token,
            },
            errors=REFRESH_ERRORS,
            retry_on=(ConnectionNotMadeError, RateLimitError, ServerError),
            has_turn=has_turn,
            until=until,
        )
        return answer.grant(sent_at)

    def revoke(self, access_token: str) -> None:
        """End the grant that ``access_token`` belongs to, refresh token included."""
        access_token = Secret(access_token)
        self._request(
            "POST",
            "/tt_user/oauth2/revoke/",
            body={
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "access_token": access_token,
            },
            retry_on=_READ,
            is_data_needed=False,
        )

    def token_info(self, access_token: str) -> TokenInfo:
        """Ask which app, account and scopes a token belongs to."""
        access_token = Secret(access_token)
        answer = self._request(
            "POST",
            "/tt_user/token_info/get/",
            body={"app_id": self._client_id, "access_token": access_token},
            retry_on=_READ,
        )
        open_id, scopes = answer.open_id(), answer.scopes()
        if open_id is None or scopes is None:
            raise answer.invalid("the token_info answer lacks creator_id or scope")
        return TokenInfo(app_id=answer.app_id(), open_id=open_id, scopes=scopes)

    # The Accounts API

    def profile(
        self, access_token: str, *, open_id: str, fields: Iterable[str], has_turn: bool = False
    ) -> Profile:
        """Ask for ``fields`` (keys of `PROFILE_FIELDS`) of the account's profile.

        ``has_turn``: see `refresh`.
        """
        access_token = Secret(access_token)
        answer = self._request(
            "GET",
            "/business/get/",
            query={"business_id": open_id, "fields": json.dumps(list(fields))},
            access_token=access_token,
            retry_on=_READ,
            has_turn=has_turn,
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

    def insights(
        self,
        access_token: str,
        *,
        open_id: str,
        fields: Iterable[str],
        first_day: date,
        last_day: date,
        has_turn: bool = False,
    ) -> Insights:
        """Ask for ``fields`` (keys of `INSIGHT_FIELDS`) of these days, in UTC, both included.

        TikTok looks back at most 60 days. ``has_turn``: see `refresh`.
        """
        access_token = Secret(access_token)
        answer = self._request(
            "GET",
            "/business/get/",
            query={
                "business_id": open_id,
                "fields": json.dumps(list(fields)),
                "start_date": first_day.isoformat(),
                "end_date": last_day.isoformat(),
            },
            access_token=access_token,
            retry_on=_READ,
            is_data_needed=False,  # a new account has nothing to tell
            has_turn=has_turn,
        )
        return answer.insights(DAILY_FIGURES, first_day, last_day)

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
        repeated like any read; anything else only when TikTok cannot have acted on it. Raises
        ValueError on a path that is none of the Accounts API's.
        """
        access_token = Secret(access_token)
        answer = self._request(
            method.upper(),
            path,
            query={
                name: json.dumps(value) if isinstance(value, list | tuple | dict | bool) else value
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
        has_turn: bool = False,
        until: float = math.inf,
    ) -> Answer:
        """Make a call, repeat it on the errors in ``retry_on``, and raise what it ends in."""
        if not _PATH.fullmatch(path):
            raise ValueError(f"Not a path of the Accounts API: {path!r}")
        url = f"{self._base_url}/{path.strip('/')}/"  # without the last slash TikTok answers 404
        headers = {
            "User-Agent": f"django_tiktok_business/{__version__}",
            # Unpacked, an answer could be a thousand times as long as what was sent.
            "Accept-Encoding": "identity",
        }
        if access_token is not None:
            if not is_token(access_token):
                raise AccessTokenRejectedError("What is stored cannot be an access token.")
            headers["Access-Token"] = access_token  # its own header; no "Bearer"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = SecretBytes(json.dumps(body).encode())
        values = (*(body or {}).values(), *headers.values())
        secrets = [value for value in values if isinstance(value, Secret)]

        attempt = 1
        error: TikTokBusinessError | None = None
        while True:
            if (attempt > 1 or not has_turn) and not self._has_got_turn():
                raise error or self._no_turn()
            sent_at = clock.now()
            answer = self._transport.send(
                method, url, query=query, content=content, headers=headers, secrets=secrets
            )
            if isinstance(answer, Answer):
                error = answer.error(errors or {})
                if error is None and (answer.data or not is_data_needed):
                    return answer
                error = error or answer.invalid("it has no data")
                pause = _backoff(attempt, answer.retry_after)
            else:
                error = answer
                pause = _backoff(attempt)
            if isinstance(error, RateLimitError):
                pause = self._ceiling.refused(error, sent_at=sent_at)
                error.retry_after = pause = max(pause, error.retry_after or 0.0)
            is_final = attempt >= self._max_attempts or pause > LONGEST_PAUSE_SECONDS
            if not isinstance(error, retry_on) or is_final or self._may_outlast(until, pause):
                raise error from None
            if not isinstance(error, RateLimitError):  # its pause is the ceiling's, for everybody
                self._sleep(pause)
            attempt += 1

    def _has_got_turn(self) -> bool:
        """Wait for a turn under the ceiling; False when there is none soon enough."""
        wait_seconds = self._ceiling.reserve(ON_DEMAND)
        if wait_seconds:
            self._sleep(wait_seconds)
        return wait_seconds is not None

    def _no_turn(self) -> RateLimitError:
        error = RateLimitError(
            f"No call to TikTok is free within {ON_DEMAND:g} seconds: TikTok has asked for a "
            "pause, or REQUESTS_PER_MINUTE is used up."
        )
        error.retry_after = self._ceiling.wait_seconds(ON_DEMAND)
        return error

    def _may_outlast(self, until: float, pause: float) -> bool:
        longest = pause + LONGEST_PAUSE_SECONDS + self._longest_try_seconds
        return time.monotonic() + longest > until


def _backoff(attempt: int, retry_after: float | None = None) -> float:
    """Seconds to wait before the next try; ``retry_after`` is what TikTok asks for."""
    # Jitter, so that workers that failed together do not come back together.
    backoff: float = BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(1, 2)  # noqa: S311 -- no secret
    return max(min(backoff, LONGEST_PAUSE_SECONDS), retry_after or 0.0)
