"""The OAuth endpoints: exchange a code, renew, revoke and inspect tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django_tiktok_business.db import clock
from django_tiktok_business.masking import Secret

from .client import TikTokClient
from .envelope import Envelope
from .errors import CODE_EXCHANGE_ERRORS, REFRESH_ERRORS
from .retry import NEVER, ON_ANSWER_OR_NOT_REACHED, READ

# Longer ones are nonsense, such as milliseconds or an instant; a day and a year are usual.
MAX_ACCESS_TOKEN_LIFETIME_SECONDS = 366 * 86400
MAX_REFRESH_TOKEN_LIFETIME_SECONDS = 10 * 366 * 86400


@dataclass(frozen=True)
class TokenGrant:
    """The tokens that TikTok issued. None: left out by TikTok, so the stored value stays.

    Lifetimes count from before the call was sent, so that the instants err on the early side. The
    account holder's consent fixes ``refresh_token_expires_at``; a refresh does not move it
    (observed: it counts down).
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    access_token_expires_at: datetime | None
    refresh_token_expires_at: datetime | None
    open_id: str | None
    scopes: list[str] | None


@dataclass(frozen=True)
class TokenInfo:
    """The app, account and scopes of an access token."""

    app_id: str
    open_id: str
    scopes: list[str]


class OAuth:
    """The OAuth endpoints, for one developer app."""

    def __init__(self, client: TikTokClient) -> None:
        self._client = client

    def exchange_code(self, code: str, *, redirect_uri: str) -> TokenGrant:
        """Exchange an authorization code. Never tried twice: the first try uses the code up."""
        code = Secret(code)  # here and below: error reports show the reprs of variables
        sent_at = clock.instant()
        answer = self._client.call(
            "POST",
            "/tt_user/oauth2/token/",
            body={
                **self._client.credentials,
                "grant_type": "authorization_code",
                "auth_code": code,
                "redirect_uri": redirect_uri,
            },
            errors=CODE_EXCHANGE_ERRORS,
            retry_on=NEVER,
        )
        grant = read_grant(answer, sent_at)
        if grant.refresh_token is None or grant.open_id is None:
            missing = "refresh_token" if grant.refresh_token is None else "open_id"
            raise answer.invalid(f"the token answer has no {missing}")
        return grant

    def refresh(self, refresh_token: str, *, until: float = math.inf) -> TokenGrant:
        """Renew an access token.

        Tried again only after an answer, or when TikTok was not reached. After a time-out the
        first request may still be at work, and TikTok may rotate the refresh token with each.
        ``until``: an instant of the monotonic clock; after the first try, none begins that could
        last beyond it.
        """
        refresh_token = Secret(refresh_token)
        sent_at = clock.instant()
        answer = self._client.call(
            "POST",
            "/tt_user/oauth2/refresh_token/",
            body={
                **self._client.credentials,
                "grant_type": "refresh_token",
                "refresh_token": refresh_token,
            },
            errors=REFRESH_ERRORS,
            retry_on=ON_ANSWER_OR_NOT_REACHED,
            until=until,
        )
        return read_grant(answer, sent_at)

    def revoke(self, access_token: str) -> None:
        """End the grant that ``access_token`` belongs to, refresh token included."""
        access_token = Secret(access_token)
        self._client.call(
            "POST",
            "/tt_user/oauth2/revoke/",
            body={**self._client.credentials, "access_token": access_token},
            retry_on=READ,
            is_data_needed=False,
        )

    def token_info(self, access_token: str) -> TokenInfo:
        """Ask which app, account and scopes a token belongs to."""
        access_token = Secret(access_token)
        app_id = self._client.credentials["client_id"]
        answer = self._client.call(
            "POST",
            "/tt_user/token_info/get/",
            body={"app_id": app_id, "access_token": access_token},
            retry_on=READ,
        )
        open_id, scopes = answer.open_id(), answer.scopes()
        if open_id is None or scopes is None:
            raise answer.invalid("the token_info answer lacks creator_id or scope")
        return TokenInfo(app_id=answer.app_id(), open_id=open_id, scopes=scopes)


def read_grant(answer: Envelope, sent_at: datetime) -> TokenGrant:
    """Read the answer of a token endpoint, also with the names of API v1.2 (``expires``, ...)."""
    access_token = answer.token("access_token")
    if access_token is None:
        raise answer.invalid("it has no access_token")
    return TokenGrant(
        access_token=access_token,
        refresh_token=answer.token("refresh_token"),
        access_token_expires_at=_end_of(
            sent_at, MAX_ACCESS_TOKEN_LIFETIME_SECONDS, answer, "expires_in", "expires"
        ),
        refresh_token_expires_at=_end_of(
            sent_at,
            MAX_REFRESH_TOKEN_LIFETIME_SECONDS,
            answer,
            *("refresh_token_expires_in", "refresh_expires"),
        ),
        open_id=answer.open_id(),
        scopes=answer.scopes(),
    )


def _end_of(sent_at: datetime, longest: int, answer: Envelope, *names: str) -> datetime | None:
    """The end of the first sensible lifetime (seconds) under these names; None: unknown."""
    for name in names:
        seconds = answer.integer(name)
        if seconds is not None and 0 < seconds <= longest:
            return sent_at + timedelta(seconds=seconds)
    return None
