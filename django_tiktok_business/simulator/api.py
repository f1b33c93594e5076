"""The endpoints under `/open_api/v1.3`: what each demands and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .accounts import Account, picture_url
from .grants import Book, Grant
from .limits import RateLimits
from .profile import ProfileQuery, profile_answer
from .settings import App, Settings
from .wire import RefusedError, Request, Response, envelope, json_object, plain_text, single_values

__all__ = ["API_PREFIX", "AccountsApi", "Trace"]

API_PREFIX = "/open_api/v1.3"


@dataclass
class Trace:
    """What the log may say about a call: the account, as soon as it is known."""

    open_id: str | None = None


class AccountsApi:
    """Answers API requests from the book of grants. Not locked: the core serialises all calls."""

    def __init__(
        self, apps: Mapping[str, App], accounts: Mapping[str, Account], book: Book, rules: Settings
    ) -> None:
        self._apps = apps
        self._accounts = accounts
        self._book = book
        self._rules = rules
        self.limits = RateLimits()
        self._routes: Mapping[
            str, tuple[str, Callable[[Request, float, Trace], Mapping[str, Any]]]
        ] = {
            "/tt_user/oauth2/token/": ("POST", self._token),
            "/tt_user/oauth2/refresh_token/": ("POST", self._refresh_token),
            "/tt_user/oauth2/revoke/": ("POST", self._revoke),
            "/tt_user/token_info/get/": ("POST", self._token_info),
            "/business/get/": ("GET", self._business_get),
        }

    def answer(self, request: Request, now: float, trace: Trace) -> Response:
        """Answer one request; errors come with HTTP status 200, as TikTok sends them.

        Official appendix, doc id 1749734684478466, 2026-11-22. A wrong path, a missing trailing
        slash or a wrong method never reaches the API and is not answered in JSON.
        """
        route = self._routes.get(request.path.removeprefix(API_PREFIX))
        if route is None:
            return plain_text(404, "404 page not found")
        method, endpoint = route
        if request.method != method:
            return plain_text(405, "405 method not allowed")
        try:
            return envelope(0, "OK", endpoint(request, now, trace), now=now)
        except RefusedError as refusal:
            return envelope(refusal.code, refusal.message, {}, now=now)

    def _token(self, request: Request, now: float, trace: Trace) -> Mapping[str, Any]:
        names = ("client_id", "client_secret", "grant_type", "auth_code", "redirect_uri")
        fields = _fields(request, names)
        _check_grant_type(fields, "authorization_code")
        app = self._app(fields["client_id"], now, secret=fields["client_secret"])
        grant = self._book.exchange(fields["auth_code"], app.app_id, fields["redirect_uri"], now)
        trace.open_id = grant.open_id
        return self._book.token_answer(grant, now)

    def _refresh_token(self, request: Request, now: float, trace: Trace) -> Mapping[str, Any]:
        names = ("client_id", "client_secret", "grant_type", "refresh_token")
        # One summary of the documentation wants redirect_uri here, nine clients leave it out.
        fields = _fields(request, names, ignored=("redirect_uri",))
        _check_grant_type(fields, "refresh_token")
        app = self._app(fields["client_id"], now, secret=fields["client_secret"])
        token = fields["refresh_token"]
        known = self._book.grant_of_refresh_token(token)
        if known is not None:
            self._count(known, request.path, now, trace)
        return self._book.token_answer(self._book.refresh(token, app.app_id, now), now)

    def _revoke(self, request: Request, now: float, trace: Trace) -> Mapping[str, Any]:
        fields = _fields(request, ("client_id", "client_secret", "access_token"))
        app = self._app(fields["client_id"], now, secret=fields["client_secret"])
        grant = self._grant_of(fields["access_token"], app, now)
        self._count(grant, request.path, now, trace)
        self._book.revoke(grant.open_id)
        return {}

    def _token_info(self, request: Request, now: float, trace: Trace) -> Mapping[str, Any]:
        fields = _fields(request, ("app_id", "access_token"))
        app = self._app(fields["app_id"], now, secret=None)
        grant = self._grant_of(fields["access_token"], app, now)
        self._count(grant, request.path, now, trace)
        return {
            "app_id": grant.app_id,
            "creator_id": grant.open_id,
            "scope": self._book.scope_text(grant),
        }

    def _business_get(self, request: Request, now: float, trace: Trace) -> Mapping[str, Any]:
        token = request.headers.get("access-token", "")
        if not token:
            raise RefusedError(
                40104,
                "Access token is null, you should set it in http header with key Access-Token.",
            )
        grant = self._book.grant_of_access_token(token, now)
        self._app(grant.app_id, now, secret=None)
        self._count(grant, request.path, now, trace)
        try:
            query = ProfileQuery(single_values(request.pairs), now)
        except ValueError as error:
            raise RefusedError(40002, f"Parameter given twice: {error}.") from None
        if query.business_id != grant.open_id:
            message = f"No permission to operate tiktok creator id: {query.business_id}"
            raise RefusedError(40001, message)
        account = self._accounts[grant.username]
        return profile_answer(
            query,
            account,
            grant.scopes,
            picture=picture_url(account, now, self._rules.image_base_url),
            missing_scope_code=self._rules.missing_scope_code,
        )

    def _app(self, app_id: str, now: float, *, secret: str | None) -> App:
        """Return the app that calls and count the call; `secret` None where none is asked for.

        The appendix gives 40101 and 40113 for credentials that do not fit; which one TikTok sends
        is not known, so it can be switched.
        """
        app = self._apps.get(app_id)
        if app is None or secret not in (None, app.secret):
            raise RefusedError(self._rules.wrong_secret_code, "App id and app secret do not match.")
        self._limit(("app", app_id), self._rules.app_calls_per_minute, now)
        return app

    def _grant_of(self, token: str, app: App, now: float) -> Grant:
        grant = self._book.grant_of_access_token(token, now)
        if grant.app_id != app.app_id:
            raise RefusedError(40105, "Access token is incorrect or has been revoked.")
        return grant

    def _count(self, grant: Grant, path: str, now: float, trace: Trace) -> None:
        trace.open_id = grant.open_id
        self._limit((grant.open_id, path), self._rules.account_calls_per_minute, now)

    def _limit(self, key: tuple[str, str], limit: int, now: float) -> None:
        if self._rules.rate_limits and not self.limits.allows(
            key, limit, now, self._rules.rate_penalty_seconds
        ):
            raise RefusedError(
                40100,
                "Due to too many requests, requests from App are temporarily restricted.",
            )


def _fields(
    request: Request, names: tuple[str, ...], ignored: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return the body's fields; 40002 names what is missing, unknown or not a string."""
    document = json_object(request)
    missing = [name for name in names if document.get(name) in (None, "")]
    if missing:
        raise RefusedError(40002, f"Missing required field(s): {', '.join(missing)}.")
    unknown = sorted(set(document) - set(names) - set(ignored))
    if unknown:
        raise RefusedError(40002, f"Unknown field(s): {', '.join(unknown)}.")
    wrong = [name for name in names if not isinstance(document[name], str)]
    if wrong:
        raise RefusedError(40002, f"Must be a string: {', '.join(wrong)}.")
    return {name: document[name] for name in names}


def _check_grant_type(fields: Mapping[str, str], expected: str) -> None:
    if fields["grant_type"] != expected:
        raise RefusedError(40108, "grant_type is not supported.")
