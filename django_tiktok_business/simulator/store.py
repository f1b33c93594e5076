"""Everything the simulator keeps: apps, accounts, grants, settings, the clock and their lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .accounts import READY_MADE, Account, new_account
from .apps import App
from .grants import GrantStore
from .rate_limits import RateLimits
from .settings import Clock, Settings
from .state_file import StateFileError, load_state, save_state

_LATEST_TIME = 32_503_680_000  # the year 3000: expiry times a few years later are still valid dates


class Store:
    """What requests read and change. Guarded by `lock`, and optionally kept in a state file.

    Endpoints and the consent page run inside `changing` and need no lock of their own.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.lock = threading.RLock()
        self.apps: dict[str, App] = {}
        self.accounts: dict[str, Account] = dict(READY_MADE)
        self.grants = GrantStore(settings)
        self.rate_limits = RateLimits()
        self._settings_at_start = settings.as_dict()
        self._changes = 0  # those to accounts and clock; the grants count their own
        self._path: Path | None = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock; if anything changes, save the state file before releasing it."""
        with self.lock:
            before = self._revision
            yield
            if self._path is not None and self._revision != before:
                self.save(self._path)

    @property
    def _revision(self) -> int:
        return self._changes + self.grants.revision

    def ensure_account(self, key: str) -> None:
        """Create the account unless it exists."""
        with self.changing():
            if key not in self.accounts:
                self.accounts[key] = new_account(key)
                self._changes += 1

    def change_account(self, key: str, changes: Mapping[str, Any]) -> None:
        with self.changing():
            self.accounts[key] = self.accounts[key].changed(changes)
            self._changes += 1

    def move_clock(self, *, advance_seconds: float = 0.0, set_to: float | None = None) -> None:
        """Move the clock and save the new time; raise `ValueError` if it is out of range."""
        with self.changing():
            moved = (self.clock.now() if set_to is None else set_to) + advance_seconds
            if not 0 <= moved < _LATEST_TIME:
                raise ValueError(f"the time must be Unix seconds below {_LATEST_TIME}, not {moved}")
            self.clock.set(moved)
            self._changes += 1

    def reset(self) -> None:
        """Forget everything but the apps; restore the settings and real time.

        Call it inside `changing`, together with whatever else is reset.
        """
        self.grants.clear()
        self.rate_limits = RateLimits()
        self.accounts.clear()
        self.accounts.update(READY_MADE)
        self.settings.update(self._settings_at_start)
        self.clock.offset_seconds = 0.0

    def summary(self) -> dict[str, Any]:
        """Return the state as JSON values, without secrets, tokens or codes."""
        now = self.clock.now()
        return {
            "now": now,
            "clock_offset_seconds": self.clock.offset_seconds,
            "settings": self.settings.as_dict(),
            "apps": [
                {"app_id": app.app_id, "redirect_uris": app.redirect_uris, "scopes": app.scopes}
                for app in self.apps.values()
            ],
            "accounts": sorted(self.accounts),
            "grants": [
                {
                    "app_id": grant.app_id,
                    "open_id": grant.open_id,
                    "account": grant.username,
                    "scopes": grant.scopes,
                    "access_token_expires_in": self.grants.access_expires_at(grant) - int(now),
                    "refresh_token_expires_in": self.grants.refresh_expires_at(grant) - int(now),
                }
                for grant in self.grants
            ],
        }

    # The state file

    def save(self, path: Path) -> None:
        """Write accounts, grants, tokens and the clock to `path`."""
        state = {
            "clock_offset_seconds": self.clock.offset_seconds,
            "accounts": {key: account.as_dict() for key, account in self.accounts.items()},
            **self.grants.snapshot(),
        }
        save_state(path, state)

    def load(self, path: Path, *, saves: bool) -> None:
        """Read `path`, or write it if it does not exist; with `saves`, save later changes there."""
        stored = load_state(path)
        if stored is None:
            self.save(path)
        else:
            self._restore(stored, path)
        if saves:
            self._path = path

    def _restore(self, stored: Mapping[str, Any], path: Path) -> None:
        try:
            accounts = {key: Account(**fields) for key, fields in stored["accounts"].items()}
            self.grants.restore(stored, accounts)
            self.clock.offset_seconds = float(stored["clock_offset_seconds"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StateFileError(f"{path} is damaged: {error!r}") from error
        self.accounts.update(accounts)
