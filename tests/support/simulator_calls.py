"""Calls to the simulator: a clock that stands still, addresses, and each call of a client."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests

from django_tiktok_business.simulator import Clock, Simulator

NOW = 1_795_341_600  # 2026-11-22 10:00:00 UTC
APP_ID = "7000000000000000001"
APP_SECRET = "simulator-app-secret-not-real"
REDIRECT_URI = "https://testserver.example/tiktok/callback/"
AUTHORIZE = "https://www.tiktok.com/v2/auth/authorize"
API = "https://business-api.tiktok.com/open_api/v1.3"
TOKEN = "/tt_user/oauth2/token/"
REFRESH = "/tt_user/oauth2/refresh_token/"
REVOKE = "/tt_user/oauth2/revoke/"
TOKEN_INFO = "/tt_user/token_info/get/"
PROFILE = "/business/get/"
SCOPES = "user.info.basic,user.info.username,user.info.stats"
BAKERY = "harbour_bakery"  # the account that is used unless a test names another
DAY = 86_400  # seconds; how long an access token lives
YEAR = 31_536_000  # seconds; how long a refresh token lives
# The profile fields that the package asks for.
SYNC_FIELDS = [
    "is_business_account",
    "username",
    "display_name",
    "profile_image",
    "profile_deep_link",
    "bio_description",
    "is_verified",
    "followers_count",
    "following_count",
    "total_likes",
    "videos_count",
]


def frozen(**arguments: Any) -> Simulator:
    """Return a simulator whose clock stands still until it is moved."""
    return Simulator(clock=Clock(lambda: float(NOW)), **arguments)


def authorize_url(**changes: str | None) -> str:
    """Return a valid authorization URL with some parameters changed, None = left out."""
    parameters: dict[str, str | None] = {
        "client_key": APP_ID,
        "scope": SCOPES,
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "state": "x y&z",
        **changes,
    }
    present = {name: value for name, value in parameters.items() if value is not None}
    return f"{AUTHORIZE}?{urlencode(present)}"


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


class Caller:
    """Makes the calls as a client does, through a session; returns the JSON answers."""

    def __init__(self, session: requests.Session, base_url: str = API) -> None:
        self.session = session
        self.base_url = base_url

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.session.post(self.base_url + path, json=body).json()
        return answer

    def exchange(self, code: str, **changes: Any) -> dict[str, Any]:
        body = {
            "client_id": APP_ID,
            "client_secret": APP_SECRET,
            "grant_type": "authorization_code",
            "auth_code": code,
            "redirect_uri": REDIRECT_URI,
        }
        return self.post(TOKEN, **{**body, **changes})

    def refresh(self, refresh_token: str, **changes: Any) -> dict[str, Any]:
        body = {
            "client_id": APP_ID,
            "client_secret": APP_SECRET,
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
        }
        return self.post(REFRESH, **{**body, **changes})

    def revoke(self, access_token: str, **changes: Any) -> dict[str, Any]:
        body = {"client_id": APP_ID, "client_secret": APP_SECRET, "access_token": access_token}
        return self.post(REVOKE, **{**body, **changes})

    def token_info(self, access_token: str, **changes: Any) -> dict[str, Any]:
        return self.post(TOKEN_INFO, **{"app_id": APP_ID, "access_token": access_token, **changes})

    def profile(self, access_token: str | None, **query: str) -> dict[str, Any]:
        headers = {} if access_token is None else {"Access-Token": access_token}
        response = self.session.get(self.base_url + PROFILE, params=query, headers=headers)
        answer: dict[str, Any] = response.json()
        return answer


def caller(simulator: Simulator) -> Caller:
    return Caller(simulator.session())


def code_from(simulator: Simulator, **changes: Any) -> str:
    """Give consent; return the authorization code."""
    return query_of(simulator.authorize(authorize_url(), **changes))["code"]


def ask_profile(
    simulator: Simulator,
    *fields: str,
    account: str = BAKERY,
    scopes: list[str] | None = None,
    **query: str,
) -> dict[str, Any]:
    """Connect the account and ask for its profile."""
    grant = simulator.issue_grant(account, scopes)
    if fields:
        query["fields"] = json.dumps(fields)
    return caller(simulator).profile(
        grant["access_token"], **{"business_id": grant["open_id"], **query}
    )
