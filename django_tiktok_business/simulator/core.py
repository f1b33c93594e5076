"""The simulator itself: routes each request, applies faults and keeps the log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests

from .accounts import SCOPES
from .consent import AUTHORIZE_PATHS, DECISION_PATH, Consent, ConsentPageError, signed_in_cookie
from .controls import Controls
from .endpoints.base import API_PREFIX
from .endpoints.routes import Api
from .pages import STYLE_SHEET_PATH, style_sheet
from .pictures import PICTURE_PREFIX, picture
from .remote_control import CONTROL_PREFIX, RemoteControl
from .settings import STRICT_PROFILE, Clock, Settings
from .store import Store
from .transport import Server, in_process_session, serving
from .wire import Call, Request, Response, Trace, single_values


class Simulator(Controls):
    """A stateful stand-in for TikTok; see the package's docstring. Thread-safe.

    `strict` selects the hardest of TikTok's possible behaviours: all tokens rotate and old ones die
    at once, a bad authorization code gets the appendix's error code, and too many calls are
    blocked for five minutes. `settings` are the fields of `Settings` and override `strict`.
    `strict_redirects` removes the exception to the redirect URL rules for http on this machine.
    With `saves_state` off, the state file is only read: with many accounts, rewriting it at each
    change takes long. `on_call` receives each `Call` as it is logged. Raises `ValueError` on a
    wrong argument and `StateFileError` on an unusable state file.
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
        initial_settings = Settings()
        initial_settings.update({**(STRICT_PROFILE if strict else {}), **settings})
        store = Store(initial_settings, clock or Clock())
        super().__init__(store, app_id=app_id, strict_redirects=strict_redirects)
        self._on_call = on_call
        self._api = Api(store)
        self._consent = Consent(store)
        self._remote_control = RemoteControl(self)
        self.add_app(app_id, app_secret, redirect_uris=redirect_uris, scopes=scopes)
        if state_path is not None:
            store.load(Path(state_path), saves=saves_state)

    def handle(self, request: Request) -> Response:
        """Answer one request; both transports call this."""
        if request.path in (*AUTHORIZE_PATHS, DECISION_PATH):
            return self._logged(request, self._consent.answer)
        if request.path == STYLE_SHEET_PATH:
            return style_sheet()
        if request.path.startswith(PICTURE_PREFIX):
            return picture(request, self._store.accounts, self.clock.now())
        if request.path.startswith(CONTROL_PREFIX):
            return self._remote_control.answer(request)
        response = self._logged(request, self._api.answer)
        if self._store.settings.latency_seconds:
            time.sleep(self._store.settings.latency_seconds)
        return response

    def _logged(
        self, request: Request, answer: Callable[[Request, float, Trace], Response]
    ) -> Response:
        trace = Trace()
        with self._store.changing():
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

    def session(self) -> requests.Session:
        """Return a session that reaches this simulator in process, whatever the host."""
        return in_process_session(self.handle)

    def serve(self, port: int = 0) -> AbstractContextManager[str]:
        """Serve on 127.0.0.1 in the background; the context manager returns the base URL.

        Port 0 picks a free one.
        """
        return serving(Server(port, self.handle))

    def authorize(
        self,
        url: str,
        *,
        account: str = "harbour_bakery",
        approve: bool = True,
        scopes: Sequence[str] | None = None,
    ) -> str:
        """Act as the account holder on the consent page; return the URL of the redirect.

        With `scopes` None, all requested scopes are approved. The account counts as signed in to
        the browser: if an earlier grant covers the scopes, there is no page and `approve` and
        `scopes` are ignored, unless the URL has `disable_auto_auth=1`. Raises `ConsentPageError`
        if TikTok would show an error page.
        """
        self._store.ensure_account(account)
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
