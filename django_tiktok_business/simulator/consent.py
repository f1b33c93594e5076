"""The authorization page: validates the request, asks for consent and redirects with a code.

"Accounts API - Authorization" (doc id 1738083939371009), 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, unquote, urlencode

from .accounts import Account
from .apps import App
from .pages import consent_page, error_page
from .store import Store
from .wire import Request, Response, Trace, page, plain_text, single_values

# The portal shows the URL without the slash; clients in production use both.
AUTHORIZE_PATHS = ("/v2/auth/authorize", "/v2/auth/authorize/")
DECISION_PATH = "/_simulator/consent"
_COOKIE = "simulator_account"
_NEEDED = ("client_key", "scope", "response_type", "redirect_uri")
_KNOWN = {*_NEEDED, "state", "disable_auto_auth"}


class ConsentPageError(Exception):
    """TikTok shows an error page, with `page_text`, instead of the consent page."""

    def __init__(self, page_text: str) -> None:
        super().__init__(page_text)
        self.page_text = page_text


@dataclass(frozen=True)
class AuthorizationRequest:
    """A valid authorization request (RFC 6749, section 4.1.1), with the app that makes it."""

    app: App
    redirect_uri: str
    scopes: tuple[str, ...]
    parameters: Mapping[str, str]

    @property
    def may_skip_page(self) -> bool:
        return self.parameters.get("disable_auto_auth", "0") == "0"

    def redirect(self, answer: Mapping[str, str]) -> Response:
        if "state" in self.parameters:
            answer = {**answer, "state": self.parameters["state"]}
        location = f"{self.redirect_uri}?{urlencode(answer)}"
        return Response(302, {"Location": location, "Cache-Control": "no-store"})


class Consent:
    """Shows the page and issues the code. Call it inside `Store.changing`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def answer(self, request: Request, now: float, trace: Trace) -> Response:
        """Answer the authorize page (GET) or the decision (POST)."""
        if request.method != ("POST" if request.path == DECISION_PATH else "GET"):
            return plain_text(405, "405 method not allowed")
        try:
            if request.path == DECISION_PATH:
                return self._decide(request, now, trace)
            return self._show(request, now, trace)
        except ConsentPageError as error:
            return page(error_page(error.page_text), status=400)

    def _show(self, request: Request, now: float, trace: Trace) -> Response:
        asked = self._read(_single(request.pairs))
        signed_in = self._store.accounts.get(_signed_in(request))
        if signed_in is not None and asked.may_skip_page:
            grant = self._store.grants.get(
                self._store.grants.open_id(asked.app.app_id, signed_in.key)
            )
            if (
                grant is not None
                and set(asked.scopes) <= set(grant.scopes)
                and now < self._store.grants.refresh_expires_at(grant)
            ):
                return self._approve(asked, signed_in, asked.scopes, now, trace)
        return page(self._page(asked, signed_in))

    def _page(self, asked: AuthorizationRequest, chosen: Account | None, notice: str = "") -> str:
        return consent_page(
            app_id=asked.app.app_id,
            scopes=asked.scopes,
            accounts=list(self._store.accounts.values()),
            chosen=chosen,
            hidden=asked.parameters,
            action=DECISION_PATH,
            notice=notice,
        )

    def _decide(self, request: Request, now: float, trace: Trace) -> Response:
        try:
            pairs = parse_qsl(request.body.decode(), keep_blank_values=True)
        except UnicodeDecodeError:
            raise ConsentPageError("The form is not readable.") from None
        granted = [value for name, value in pairs if name == "granted"]
        form = _single(pair for pair in pairs if pair[0] != "granted")
        decision = form.pop("decision", "")
        account = self._store.accounts.get(form.pop("account", ""))
        asked = self._read(form)
        if decision == "deny":
            # The value of error_code is not documented; -2 is made up.
            return asked.redirect(
                {
                    "error": "access_denied",
                    "error_code": "-2",
                    "error_description": "User cancelled",
                }
            )
        if decision != "approve" or account is None or not set(granted) <= set(asked.scopes):
            raise ConsentPageError("The form does not fit the request.")
        if not granted:
            notice = "Tick at least one permission, or press Deny."
            return page(self._page(asked, account, notice), status=400)
        scopes = tuple(scope for scope in asked.scopes if scope in granted)
        response = self._approve(asked, account, scopes, now, trace)
        cookie = f"{_COOKIE}={quote(account.key, safe='')}; Path=/v2/auth; HttpOnly; SameSite=Lax"
        response.headers["Set-Cookie"] = cookie
        return response

    def _approve(
        self,
        asked: AuthorizationRequest,
        account: Account,
        scopes: tuple[str, ...],
        now: float,
        trace: Trace,
    ) -> Response:
        app_id = asked.app.app_id
        trace.open_id = self._store.grants.open_id(app_id, account.key)
        code = self._store.grants.issue_code(app_id, account.key, asked.redirect_uri, scopes, now)
        return asked.redirect({"code": code, "scopes": ",".join(scopes)})

    def _read(self, parameters: Mapping[str, str]) -> AuthorizationRequest:
        """Validate the parameters; an error raises `ConsentPageError` and never redirects."""
        missing = [name for name in _NEEDED if not parameters.get(name)]
        if missing:
            raise ConsentPageError(f"Missing parameter: {', '.join(missing)}.")
        unknown = sorted(set(parameters) - _KNOWN)
        if unknown:
            raise ConsentPageError(f"Unknown parameter: {', '.join(unknown)}.")
        app = self._store.apps.get(parameters["client_key"])
        if app is None:
            raise ConsentPageError("client_key: there is no such app.")
        if parameters["redirect_uri"] not in app.redirect_uris:
            raise ConsentPageError("redirect_uri: not registered for this app.")
        if parameters["response_type"] != "code":
            raise ConsentPageError("response_type: must be code.")
        if parameters.get("disable_auto_auth", "1") not in ("0", "1"):
            raise ConsentPageError("disable_auto_auth: must be 1 or be left out.")
        scopes = tuple(dict.fromkeys(parameters["scope"].split(",")))
        refused = [scope for scope in scopes if scope not in app.scopes]
        if refused:
            raise ConsentPageError(f"scope: the app is not approved for {', '.join(refused)}.")
        return AuthorizationRequest(app, parameters["redirect_uri"], scopes, parameters)


def _single(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    try:
        return single_values(pairs)
    except ValueError as error:
        raise ConsentPageError(f"The parameter {error} is there twice.") from None


def signed_in_cookie(account_key: str) -> str:
    """Return the Cookie header of a browser in which this account is signed in."""
    return f"{_COOKIE}={quote(account_key, safe='')}"


def _signed_in(request: Request) -> str:
    try:
        cookie = SimpleCookie(request.headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return unquote(cookie.value) if cookie else ""
