"""What a test may do: register apps, connect accounts, inject faults, move the clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .accounts import SCOPES
from .apps import App, check_redirect_uris
from .faults import Fault, Faults
from .store import Store
from .wire import Call

_CALLS_KEPT = 100_000


class Controls:
    """The methods that read and change the simulator from outside TikTok's API.

    Tests call them on `Simulator`, and `RemoteControl` offers most of them over HTTP.
    """

    def __init__(self, store: Store, *, app_id: str, strict_redirects: bool) -> None:
        self.app_id = app_id
        self.clock = store.clock
        self._store = store
        self._strict_redirects = strict_redirects
        self._faults = Faults()
        self._calls: deque[Call] = deque(maxlen=_CALLS_KEPT)

    # Apps, accounts and grants

    def add_app(
        self,
        app_id: str,
        app_secret: str,
        *,
        redirect_uris: Iterable[str],
        scopes: Iterable[str] = tuple(SCOPES),
    ) -> None:
        """Register another developer app; raise `ValueError` if TikTok's portal would refuse it."""
        app = App(app_id, app_secret, tuple(redirect_uris), tuple(scopes))
        check_redirect_uris(app.redirect_uris, strict=self._strict_redirects)
        with self._store.lock:
            self._store.apps[app_id] = app

    def issue_grant(
        self,
        account: str = "harbour_bakery",
        scopes: Sequence[str] | None = None,
        *,
        app_id: str | None = None,
    ) -> dict[str, Any]:
        """Connect an account without the consent page; return the `data` of its token response.

        An unknown username becomes a new account. With `scopes` None, all scopes of the app are
        granted.
        """
        store = self._store
        store.ensure_account(account)
        with store.changing():
            app = store.apps[app_id or self.app_id]
            granted = app.scopes if scopes is None else scopes
            if not granted or not set(granted) <= set(app.scopes):
                raise ValueError(f"scopes must be some of the app's, not {granted}")
            now = self.clock.now()
            grant = store.grants.open_grant(app.app_id, account, granted, now)
            return store.grants.token_response(grant, now)

    def open_id(self, account: str, *, app_id: str | None = None) -> str:
        """Return the id under which an app knows this account; works before any consent."""
        return self._store.grants.open_id(app_id or self.app_id, account)

    def live_tokens(self, open_id: str) -> tuple[str, str] | None:
        """Return the newest access and refresh token, or None if there is no grant."""
        with self._store.lock:
            grant = self._store.grants.get(open_id)
            return None if grant is None else (grant.access_token, grant.refresh_token)

    def revoke_grant(self, open_id: str) -> bool:
        """End a grant, as the account holder can in TikTok's app; False if there is none."""
        with self._store.changing():
            return self._store.grants.revoke(open_id)

    def set_profile(self, account: str, **changes: Any) -> None:
        """Change the profile that TikTok returns; an unknown username becomes a new account."""
        self._store.ensure_account(account)
        self._store.change_account(account, changes)

    # Settings, time and faults

    def configure(self, **settings: Any) -> None:
        """Change fields of `Settings` while the simulator runs."""
        with self._store.lock:
            self._store.settings.update(settings)

    def move_clock(self, *, advance_seconds: float = 0.0, set_to: float | None = None) -> None:
        """Move `clock` and save the new time; `clock.advance` alone does not save it."""
        self._store.move_clock(advance_seconds=advance_seconds, set_to=set_to)

    def fail_next(
        self,
        fault: str | None = None,
        *,
        path: str | None = None,
        times: int | None = 1,
        **details: Any,
    ) -> None:
        """Make the next matching requests fail; `FAULTS` lists the names.

        `path` matches the end of a request's path; None matches every API call. With `times` None
        the fault lasts until `clear_faults`. The name can be omitted in ``fail_next(code=50000)``
        and ``fail_next(http_status=502)``.
        """
        if fault is None:
            bare_status = "http_status" in details and "code" not in details
            fault = "http_status" if bare_status or "body" in details else "code"
        with self._store.lock:
            self._faults.add(Fault(fault, path, times, details))

    def fail_randomly(
        self,
        rate: float,
        faults: Iterable[str | tuple[str, Mapping[str, Any]]],
        seed: int | None = None,
        *,
        path: str | None = None,
    ) -> None:
        """Make requests fail with this probability; `faults` holds names or (name, details)."""
        with self._store.lock:
            self._faults.add_random(rate, faults, seed, path)

    def clear_faults(self) -> None:
        """Remove all faults, pending and random."""
        with self._store.lock:
            self._faults.clear()

    def reset(self) -> None:
        """Return to the state at the start, with the clock at real time; apps stay registered."""
        with self._store.changing():
            self._store.reset()
            self._faults.clear()
            self._calls.clear()

    # The log and the state

    @property
    def calls(self) -> list[Call]:
        """The log of API calls and consent pages, oldest first (the latest 100,000)."""
        with self._store.lock:
            return list(self._calls)

    def count(self, path_suffix: str) -> int:
        """Return the number of logged calls whose path ends with `path_suffix`."""
        return sum(call.path.endswith(path_suffix) for call in self.calls)

    def summary(self) -> dict[str, Any]:
        """Return the state, without any secret."""
        with self._store.lock:
            return {
                **self._store.summary(),
                "pending_faults": self._faults.pending(),
                "calls": len(self._calls),
            }

    def save(self, path: Path) -> None:
        """Write accounts and tokens to a file that `state_path` can read."""
        self._store.save(path)
