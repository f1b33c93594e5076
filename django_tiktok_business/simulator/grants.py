"""Authorization codes, grants and tokens: issue, replace, expire and revoke them."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, get_origin, get_type_hints

from .settings import Settings
from .wire import RefusedError

Record = TypeVar("Record")


@dataclass
class Code:
    """An authorization code, bound to app, redirect URI and user. Times are Unix seconds."""

    app_id: str
    username: str
    redirect_uri: str
    scopes: list[str]
    expires_at: int
    used: bool = False


@dataclass
class AccessToken:
    open_id: str
    expires_at: int


@dataclass
class RefreshToken:
    """A refresh token. `expires_at` is a year after the consent; it replaced `parent`."""

    open_id: str
    expires_at: int
    parent: str | None = field(default=None, repr=False)


@dataclass
class Grant:
    """What one account allows one app, with all tokens that are still accepted."""

    app_id: str
    open_id: str
    username: str
    scopes: list[str]
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    access_tokens: list[str] = field(default_factory=list, repr=False)
    refresh_tokens: list[str] = field(default_factory=list, repr=False)


class GrantStore:
    """All codes, grants and tokens. Not thread-safe: call it inside `Store.changing`.

    A revoked token is deleted, and so refused like one that never existed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.revision = 0  # increases with each change
        self.clear()

    def clear(self) -> None:
        self.revision += 1
        self._serial = 4710
        self._codes: dict[str, Code] = {}
        self._access: dict[str, AccessToken] = {}
        self._refresh: dict[str, RefreshToken] = {}
        self._grants: dict[str, Grant] = {}

    def __iter__(self) -> Iterator[Grant]:
        return iter(self._grants.values())

    def get(self, open_id: str) -> Grant | None:
        return self._grants.get(open_id)

    @staticmethod
    def open_id(app_id: str, username: str) -> str:
        """Return the account's id for this app; every app gets a different one."""
        digest = hashlib.sha256(f"{app_id}\n{username}".encode()).digest()
        return "_000SIM" + base64.urlsafe_b64encode(digest).decode()[:29]

    def issue_code(
        self, app_id: str, username: str, redirect_uri: str, scopes: Sequence[str], now: float
    ) -> str:
        """Return a new code. Like TikTok's, it needs percent-encoding in a URL."""
        self._serial += 1
        text = f"SIMcode_{secrets.token_urlsafe(24)}*0!{self._serial}.e1"
        expires_at = int(now) + self._settings.code_lifetime_seconds
        self._codes[text] = Code(app_id, username, redirect_uri, list(scopes), expires_at)
        self.revision += 1
        return text

    def exchange(self, text: str, app_id: str, redirect_uri: str, now: float) -> Grant:
        """Exchange a code for a grant, once; a refused attempt does not consume the code."""
        code = self._codes.get(text)
        if code is None or code.used or code.app_id != app_id or now >= code.expires_at:
            raise RefusedError(self._settings.bad_code_code, "Authorization code is expired.")
        if code.redirect_uri != redirect_uri:
            raise RefusedError(
                self._settings.wrong_redirect_uri_code,
                "redirect_uri does not match the one of the authorization.",
            )
        code.used = True
        return self.open_grant(app_id, code.username, code.scopes, now)

    def open_grant(self, app_id: str, username: str, scopes: Sequence[str], now: float) -> Grant:
        """Open or renew a grant for a year; `Settings` decides if earlier tokens stay valid."""
        open_id = self.open_id(app_id, username)
        grant = self._grants.setdefault(open_id, Grant(app_id, open_id, username, []))
        grant.scopes = sorted(scopes)
        expires_at = int(now) + self._settings.refresh_token_lifetime_seconds
        self._replace_refresh_token(grant, expires_at, parent=grant.refresh_token or None)
        self._replace_access_token(grant, now)
        return grant

    def refresh(self, token: str, app_id: str, now: float) -> Grant:
        """Issue a new access token, and a new refresh token if the settings rotate it."""
        known = self._refresh.get(token)
        if known is None or self._grants[known.open_id].app_id != app_id:
            raise RefusedError(self._settings.bad_refresh_code, "The refresh token is invalid.")
        if now >= known.expires_at:
            raise RefusedError(
                self._settings.expired_refresh_code, "The refresh token has expired."
            )
        grant = self._grants[known.open_id]
        if known.parent and self._settings.old_refresh_valid == "until_successor_used":
            self._refresh.pop(known.parent, None)
        grant.refresh_token = token
        if self._settings.rotate == "always":
            self._replace_refresh_token(grant, known.expires_at, parent=token)
        self._replace_access_token(grant, now)
        return grant

    def grant_of_access_token(self, token: str, now: float) -> Grant:
        """Return the grant of a valid access token."""
        known = self._access.get(token)
        if known is None:
            raise RefusedError(40105, "Access token is incorrect or has been revoked.")
        if now >= known.expires_at:
            raise RefusedError(self._settings.expired_access_code, "Access token has expired.")
        return self._grants[known.open_id]

    def grant_of_refresh_token(self, token: str) -> Grant | None:
        known = self._refresh.get(token)
        return self._grants[known.open_id] if known else None

    def revoke(self, open_id: str) -> bool:
        """End the grant with all its tokens and codes; False if there is none."""
        grant = self._grants.pop(open_id, None)
        if grant is None:
            return False
        self._delete(grant.access_tokens, self._access)
        self._delete(grant.refresh_tokens, self._refresh)
        for text, code in list(self._codes.items()):
            if (code.app_id, code.username) == (grant.app_id, grant.username):
                del self._codes[text]
        self.revision += 1
        return True

    def access_expires_at(self, grant: Grant) -> int:
        return self._access[grant.access_token].expires_at

    def refresh_expires_at(self, grant: Grant) -> int:
        return self._refresh[grant.refresh_token].expires_at

    def token_response(self, grant: Grant, now: float) -> dict[str, Any]:
        """Return the `data` of a token or refresh response; lifetimes are in seconds."""
        return {
            "access_token": grant.access_token,
            "token_type": "Bearer",
            "scope": self.scope_text(grant),
            "expires_in": self.access_expires_at(grant) - int(now),
            "refresh_token": grant.refresh_token,
            "refresh_token_expires_in": self.refresh_expires_at(grant) - int(now),
            "open_id": grant.open_id,
        }

    def scope_text(self, grant: Grant) -> str:
        """Return the scopes in a different order each time, as TikTok does."""
        self._serial += 1
        turn = self._serial % len(grant.scopes)
        return ",".join(grant.scopes[turn:] + grant.scopes[:turn])

    def _replace_access_token(self, grant: Grant, now: float) -> None:
        if self._settings.old_access_valid == "no":
            self._delete(grant.access_tokens, self._access)
        grant.access_token = self._token("act")
        expires_at = int(now) + self._settings.access_token_lifetime_seconds
        self._access[grant.access_token] = AccessToken(grant.open_id, expires_at)
        grant.access_tokens.append(grant.access_token)
        self.revision += 1

    def _replace_refresh_token(self, grant: Grant, expires_at: int, parent: str | None) -> None:
        if self._settings.old_refresh_valid == "no":
            self._delete(grant.refresh_tokens, self._refresh)
        grant.refresh_token = self._token("rft")
        self._refresh[grant.refresh_token] = RefreshToken(grant.open_id, expires_at, parent)
        grant.refresh_tokens.append(grant.refresh_token)

    @staticmethod
    def _delete(tokens: list[str], known: dict[str, Any]) -> None:
        for token in tokens:
            known.pop(token, None)
        tokens.clear()

    def _token(self, prefix: str) -> str:
        self._serial += 1
        return f"{prefix}.SIM{secrets.token_urlsafe(36)}!{self._serial}.e1"

    def snapshot(self) -> dict[str, Any]:
        """Return everything as JSON values, including live tokens."""
        return {
            "serial": self._serial,
            "codes": {text: asdict(code) for text, code in self._codes.items()},
            "access_tokens": {text: asdict(token) for text, token in self._access.items()},
            "refresh_tokens": {text: asdict(token) for text, token in self._refresh.items()},
            "grants": {open_id: asdict(grant) for open_id, grant in self._grants.items()},
        }

    def restore(self, stored: Mapping[str, Any], usernames: Container[str]) -> None:
        """Load a snapshot; raise `ValueError`, `TypeError` or `KeyError` if it is invalid."""
        serial = stored["serial"]
        codes = _records(Code, stored["codes"])
        access = _records(AccessToken, stored["access_tokens"])
        refresh = _records(RefreshToken, stored["refresh_tokens"])
        grants = _records(Grant, stored["grants"])
        for grant in grants.values():
            if grant.access_token not in access or grant.refresh_token not in refresh:
                raise ValueError("a grant refers to a missing token")
            if grant.username not in usernames or not grant.scopes:
                raise ValueError("a grant refers to a missing account or has no scopes")
        holders = {token.open_id for token in access.values()}
        holders |= {token.open_id for token in refresh.values()}
        if not holders <= set(grants):
            raise ValueError("a token refers to a missing grant")
        self._serial = int(serial)
        self._codes, self._access, self._refresh, self._grants = codes, access, refresh, grants


def _records(kind: type[Record], stored: Mapping[str, Any]) -> dict[str, Record]:
    """Build records; raise `ValueError` if a field does not have the annotated type."""
    hints = get_type_hints(kind)
    records = {}
    for key, values in dict(stored).items():
        for name, value in dict(values).items():
            expected = list if get_origin(hints[name]) is list else hints[name]
            if not isinstance(value, expected):
                raise ValueError(f"{name} has type {type(value).__name__}")
        records[key] = kind(**values)
    return records
