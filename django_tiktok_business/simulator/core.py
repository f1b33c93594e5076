"""The simulator itself: who lives in it, what happens to a request, and what tests may do."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import requests

from .accounts import READY_MADE, SCOPES, Account, avatar_svg, new_account
from .api import API_PREFIX, AccountsApi, Trace
from .consent import AUTHORIZE_PATHS, DECISION_PATH, Consent, ConsentPageError, signed_in_cookie
from .control import CONTROL_PREFIX, Control
from .faults import Fault, Faults
from .grants import Book
from .limits import RateLimits
from .pages import STYLE_SHEET, STYLE_SHEET_PATH
from .settings import STRICT_PROFILE, App, Clock, Settings, check_redirect_uri
from .state import StateFileError, load_state, save_state
from .transport import Server, in_process_session, serving
from .wire import Call, Request, Response, plain_text, single_values

__all__ = ["Simulator"]

_AVATAR_PREFIX = "/_simulator/avatar/"
_CALLS_KEPT = 100_000
_LATEST_TIME = 32_503_680_000  # the year 3000: times a few years later still have a date
_REDIRECT_URIS_PER_APP = 10


class Simulator:
    """A stateful stand-in for TikTok; see the package's docstring. Safe to use from many threads.

    `strict` switches everything that TikTok might do to the hardest: all tokens rotate and the old
    ones die at once, the appendix's code for a bad authorization code, five minutes of pause after
    too many calls. `settings` are the fields of `Settings`, and win over `strict`.
    `strict_redirects` takes the exception for http on this machine away from the redirect URL
    rules. With `saves_state` off a state file is only read: writing it anew at each change takes
    its time when there are many accounts. `on_call` gets each `Call` as it is logged. Raises
    `ValueError` on a wrong argument and `StateFileError` on an unusable state file.
    """

    def __init__(
        self,
        *,
        app_id: str = "7000000000000000001",
        app_secret: str = "simulator-app-secret-not-real",  # noqa: S107 -- opens nothing
        redirect_uris: Iterable[str] = ("https://testserver.example/tiktok/callback/",),
        scopes: Iterable[str] = tuple(SCOPES),
        strict: bool = False,
        clock: Clock | None = None,
        strict_redirects: bool = False,
        state_path: Path | str | None = None,
        saves_state: bool = True,
        on_call: Callable[[Call], None] | None = None,
        **settings: Any,
    ) -> None:
        self._settings = Settings()
        self._settings.update({**(STRICT_PROFILE if strict else {}), **settings})
        self._settings_at_start = self._settings.as_dict()
        self.clock = clock or Clock()
        self.app_id = app_id
        self._strict_redirects = strict_redirects
        self._on_call = on_call
        self._lock = threading.RLock()
        self._apps: dict[str, App] = {}
        self._accounts: dict[str, Account] = dict(READY_MADE)
        self._book = Book(self._settings)
        self._api = AccountsApi(self._apps, self._accounts, self._book, self._settings)
        self._consent = Consent(self._apps, self._accounts, self._book)
        self._control = Control(self)
        self._faults = Faults()
        self._calls: deque[Call] = deque(maxlen=_CALLS_KEPT)
        self._state_path = Path(state_path) if state_path is not None and saves_state else None
        self.add_app(app_id, app_secret, redirect_uris=redirect_uris, scopes=scopes)
        if state_path is not None:
            self._load(Path(state_path))

    def add_app(
        self,
        app_id: str,
        app_secret: str,
        *,
        redirect_uris: Iterable[str],
        scopes: Iterable[str] = tuple(SCOPES),
    ) -> None:
        """Register another developer app; raises `ValueError` on what TikTok's portal refuses."""
        app = App(app_id, app_secret, tuple(redirect_uris), tuple(scopes))
        if not 1 <= len(app.redirect_uris) <= _REDIRECT_URIS_PER_APP:
            raise ValueError(f"an app has 1 to {_REDIRECT_URIS_PER_APP} redirect URIs")
        for redirect_uri in app.redirect_uris:
            check_redirect_uri(redirect_uri, strict=self._strict_redirects)
        with self._lock:
            self._apps[app_id] = app

    # What happens to a request

    def handle(self, request: Request) -> Response:
        """Answer one request; both transports end here."""
        if request.path in (*AUTHORIZE_PATHS, DECISION_PATH):
            return self._logged(request, self._consent.answer)
        if request.path == STYLE_SHEET_PATH:
            headers = {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "no-cache"}
            return Response(200, headers, STYLE_SHEET.encode())
        if request.path.startswith(_AVATAR_PREFIX):
            return self._avatar(request)
        if request.path.startswith(CONTROL_PREFIX):
            return self._control.answer(request)
        response = self._logged(request, self._api.answer)
        if self._settings.latency_seconds:
            time.sleep(self._settings.latency_seconds)
        return response

    def _logged(
        self, request: Request, answer: Callable[[Request, float, Trace], Response]
    ) -> Response:
        trace = Trace()
        with self._changing():
            now = self.clock.now()
            fault = self._faults.take(request.path, request.path.startswith(API_PREFIX))
            if fault is None:
                response = answer(request, now, trace)
            else:
                response = fault.answer(lambda: answer(request, now, trace), now)
            call = Call(
                method=request.method,
                path=request.path,
                code=response.code,
                open_id=trace.open_id,
                at=now,
                status=response.status,
                fault=fault.name if fault else None,
            )
            self._calls.append(call)
        if self._on_call is not None:
            self._on_call(call)
        return response

    def _avatar(self, request: Request) -> Response:
        name = unquote(request.path.removeprefix(_AVATAR_PREFIX).removesuffix(".svg"))
        account = self._accounts.get(name)
        if account is None:
            return plain_text(404, "404 page not found")
        expires_at = dict(request.pairs).get("x-expires")
        # The consent page asks without an expiry; links handed to clients always have one.
        if expires_at is not None and not (
            expires_at.isdecimal() and self.clock.now() < int(expires_at)
        ):
            return plain_text(403, "The link has expired.")
        headers = {
            "Content-Type": "image/svg+xml",
            "Content-Security-Policy": "default-src 'none'",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(200, headers, avatar_svg(account).encode())

    # What tests and the remote control may do

    def session(self) -> requests.Session:
        """Return a session that reaches this simulator in process, whatever the host."""
        return in_process_session(self.handle)

    def serve(self, port: int = 0) -> AbstractContextManager[str]:
        """Serve on 127.0.0.1 in the background; the context gives the base URL (port 0: any)."""
        return serving(Server(port, self.handle))

    def authorize(
        self,
        url: str,
        *,
        account: str = "harbour_bakery",
        approve: bool = True,
        scopes: Sequence[str] | None = None,
    ) -> str:
        """Play the account holder on the consent page; returns where the browser is sent.

        `scopes` None approves everything that was asked for. As in a browser in which the account
        is signed in, an earlier grant that covers the scopes skips the page, whatever `approve`
        and `scopes` say, unless the URL has `disable_auto_auth=1`. Raises `ConsentPageError` when
        TikTok would show an error page.
        """
        self._ensure_account(account)
        parts = urlsplit(url)
        cookie = {"cookie": signed_in_cookie(account)}
        response = self.handle(Request("GET", parts.path, parts.query, cookie))
        if response.status == 200:
            asked = single_values(Request("GET", parts.path, parts.query).pairs)
            granted = asked["scope"].split(",") if scopes is None else scopes
            form = [
                *asked.items(),
                ("account", account),
                *(("granted", scope) for scope in granted),
                ("decision", "approve" if approve else "deny"),
            ]
            body = urlencode(form).encode()
            response = self.handle(Request("POST", DECISION_PATH, body=body))
        if response.status != 302:
            text = response.body.decode()
            notice = re.search('<p class="notice">(.*?)</p>', text)
            raise ConsentPageError(unescape(notice[1]) if notice else text)
        return response.headers["Location"]

    def issue_grant(
        self,
        account: str = "harbour_bakery",
        scopes: Sequence[str] | None = None,
        *,
        app_id: str | None = None,
    ) -> dict[str, Any]:
        """Connect an account as if by consent and token call; returns that call's `data`.

        A username that is not known becomes an account. `scopes` None grants all of the app's.
        """
        self._ensure_account(account)
        with self._changing():
            app = self._apps[app_id or self.app_id]
            granted = app.scopes if scopes is None else scopes
            if not granted or not set(granted) <= set(app.scopes):
                raise ValueError(f"scopes must be some of the app's, not {granted}")
            now = self.clock.now()
            grant = self._book.open_grant(app.app_id, account, granted, now)
            return self._book.token_answer(grant, now)

    def open_id(self, account: str, *, app_id: str | None = None) -> str:
        """Return the id under which an app knows this account; works before any consent."""
        return self._book.open_id(app_id or self.app_id, account)

    def live_tokens(self, open_id: str) -> tuple[str, str] | None:
        """Return the newest access and refresh token, None without a grant (or a revoked one)."""
        with self._lock:
            grant = self._book.grants.get(open_id)
            return None if grant is None else (grant.access_token, grant.refresh_token)

    def revoke_grant(self, open_id: str) -> bool:
        """End a grant as the account holder does in TikTok's app; False when there is none."""
        with self._changing():
            return self._book.revoke(open_id)

    def set_profile(self, account: str, **changes: Any) -> None:
        """Change what TikTok reports about an account; makes the account if it is not known."""
        self._ensure_account(account)
        with self._changing():
            self._accounts[account] = self._accounts[account].changed(changes)
            self._book.revision += 1

    def configure(self, **settings: Any) -> None:
        """Change settings while running; the fields of `Settings` are the names."""
        with self._lock:
            self._settings.update(settings)

    def move_clock(self, *, advance_seconds: float = 0.0, set_to: float | None = None) -> None:
        """Move `clock` and remember it in the state file, which `clock.advance` alone does not."""
        with self._changing():
            moved = (self.clock.now() if set_to is None else set_to) + advance_seconds
            if not 0 <= moved < _LATEST_TIME:
                raise ValueError(f"{moved} is no time in Unix seconds before {_LATEST_TIME}")
            self.clock.set(moved)
            self._book.revision += 1

    def fail_next(
        self,
        fault: str | None = None,
        *,
        path: str | None = None,
        times: int | None = 1,
        **details: Any,
    ) -> None:
        """Let the next matching requests fail; `FAULTS` holds the names.

        `path` is matched as the end of the path; None means any API call. `times` None means until
        `clear_faults`. ``fail_next(code=50000)`` and ``fail_next(http_status=502)`` may leave the
        name out.
        """
        if fault is None:
            bare_status = "http_status" in details and "code" not in details
            fault = "http_status" if bare_status or "body" in details else "code"
        with self._lock:
            self._faults.add(Fault(fault, path, times, details))

    def fail_randomly(
        self,
        rate: float,
        faults: Iterable[str | tuple[str, Mapping[str, Any]]],
        seed: int | None = None,
        *,
        path: str | None = None,
    ) -> None:
        """Let requests fail with this probability, by names or (name, details)."""
        with self._lock:
            self._faults.add_random(rate, faults, seed, path)

    def clear_faults(self) -> None:
        """Forget all faults, waiting and random."""
        with self._lock:
            self._faults.clear()

    def reset(self) -> None:
        """Return to how the simulator started; the clock shows real time again."""
        with self._changing():
            self._book.forget_all()
            self._faults.clear()
            self._calls.clear()
            self._api.limits = RateLimits()
            self._accounts.clear()
            self._accounts.update(READY_MADE)
            self._settings.update(self._settings_at_start)
            self.clock.offset_seconds = 0.0

    @property
    def calls(self) -> list[Call]:
        """The log, oldest first: API calls and consent pages (the newest 100,000)."""
        with self._lock:
            return list(self._calls)

    def count(self, path_suffix: str) -> int:
        """Return how many calls in the log went to a path that ends like this."""
        return sum(call.path.endswith(path_suffix) for call in self.calls)

    def summary(self) -> dict[str, Any]:
        """Return the state without any secret."""
        with self._lock:
            now = self.clock.now()
            return {
                "now": now,
                "clock_offset_seconds": self.clock.offset_seconds,
                "settings": self._settings.as_dict(),
                "apps": [
                    {"app_id": app.app_id, "redirect_uris": app.redirect_uris, "scopes": app.scopes}
                    for app in self._apps.values()
                ],
                "accounts": sorted(self._accounts),
                "grants": [
                    {
                        "app_id": grant.app_id,
                        "open_id": grant.open_id,
                        "account": grant.username,
                        "scopes": grant.scopes,
                        "access_token_expires_in": self._book.access_expires_at(grant) - int(now),
                        "refresh_token_expires_in": self._book.refresh_expires_at(grant) - int(now),
                    }
                    for grant in self._book.grants.values()
                ],
                "pending_faults": self._faults.pending(),
                "calls": len(self._calls),
            }

    # Locking and the state file

    def _ensure_account(self, key: str) -> None:
        with self._changing():
            if key not in self._accounts:
                self._accounts[key] = new_account(key)
                self._book.revision += 1

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, and save the state file if anything changed, before the lock is free."""
        with self._lock:
            before = self._book.revision
            yield
            if self._state_path is not None and self._book.revision != before:
                self.save(self._state_path)

    def save(self, path: Path) -> None:
        """Write accounts and tokens into a file that `state_path` reads."""
        state = {
            "clock_offset_seconds": self.clock.offset_seconds,
            "accounts": {key: account.as_dict() for key, account in self._accounts.items()},
            **self._book.snapshot(),
        }
        save_state(path, state)

    def _load(self, path: Path) -> None:
        state = load_state(path)
        if state is None:
            self.save(path)
            return
        try:
            accounts = {key: Account(**stored) for key, stored in state["accounts"].items()}
            self._book.restore(state, accounts)
            self.clock.offset_seconds = float(state["clock_offset_seconds"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StateFileError(f"{path} is damaged: {error!r}") from error
        self._accounts.update(accounts)
