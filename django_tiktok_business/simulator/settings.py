"""The simulator's settings and its clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any


class Clock:
    """A movable clock in Unix seconds: a time source plus an offset.

    To freeze time, pass your own `time_source`: ``Clock(lambda: 1_800_000_000.0)``.
    """

    def __init__(self, time_source: Callable[[], float] = time.time) -> None:
        self._time_source = time_source
        self.offset_seconds = 0.0

    def now(self) -> float:
        """Return the simulated time in Unix seconds."""
        return self._time_source() + self.offset_seconds

    def advance(self, seconds: float) -> None:
        """Move the clock by this many seconds; it keeps running."""
        self.offset_seconds += seconds

    def set(self, unix_seconds: float) -> None:
        """Set the clock to this time; it keeps running."""
        self.offset_seconds = unix_seconds - self._time_source()


@dataclass
class Settings:
    """Which of TikTok's possible behaviours the simulator shows; change it with `update` only.

    The defaults are what TikTok is observed or likely to do. There are alternatives where its
    documentation is silent or contradicts itself.
    """

    access_token_lifetime_seconds: int = 86_400
    refresh_token_lifetime_seconds: int = 31_536_000  # counted from the consent
    code_lifetime_seconds: int = 600
    rotate: str = "never"  # "never", "always": whether a refresh issues a new refresh token
    old_refresh_valid: str = "yes"  # "yes", "no", "until_successor_used"
    old_access_valid: str = "yes"  # "yes" (until its own expiry), "no"
    rate_limits: bool = False
    rate_penalty_seconds: int = 0  # TikTok blocks for 300 s; 0 = only until the window has room
    account_calls_per_minute: int = 40  # per account and endpoint
    app_calls_per_minute: int = 600
    wrong_secret_code: int = 40113
    bad_code_code: int = 40131
    wrong_redirect_uri_code: int = 40002
    bad_refresh_code: int = 40107
    expired_refresh_code: int = 40103
    expired_access_code: int = 40102
    missing_scope_code: int = 0  # 0 = omit the field from the response
    latency_seconds: float = 0.0  # added to each API response
    image_base_url: str | None = None  # None = link to TikTok's CDN

    def update(self, changes: Mapping[str, Any]) -> None:
        """Change all of these settings, or raise `ValueError` and change none."""
        for name, value in changes.items():
            _check(name, value)
        for name, value in changes.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


STRICT_PROFILE: Mapping[str, Any] = {
    "rotate": "always",
    "old_refresh_valid": "no",
    "old_access_valid": "no",
    "bad_code_code": 40110,
    "rate_penalty_seconds": 300,
}

_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "rotate": ("never", "always"),
    "old_refresh_valid": ("yes", "no", "until_successor_used"),
    "old_access_valid": ("yes", "no"),
    "rate_limits": (False, True),
    "wrong_secret_code": (40113, 40101),
    "bad_code_code": (40131, 40110),
    "wrong_redirect_uri_code": (40002, 40131),
    "bad_refresh_code": (40107, 40131),
    "expired_refresh_code": (40103, 40131),
    "expired_access_code": (40102, 40105),
    "missing_scope_code": (0, 40001, 40130),
}
_SMALLEST: Mapping[str, int] = {
    "access_token_lifetime_seconds": 1,
    "refresh_token_lifetime_seconds": 1,
    "code_lifetime_seconds": 1,
    "rate_penalty_seconds": 0,
    "account_calls_per_minute": 1,
    "app_calls_per_minute": 1,
    "latency_seconds": 0,
}


def _check(name: str, value: Any) -> None:
    if name in _CHOICES:
        # Compare types too: 1 == True, and a JSON 1 for a boolean is a mistake worth reporting.
        if not any(value == choice and type(value) is type(choice) for choice in _CHOICES[name]):
            allowed = ", ".join(repr(choice) for choice in _CHOICES[name])
            raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
    elif name in _SMALLEST:
        kinds = (int, float) if name == "latency_seconds" else (int,)
        if type(value) not in kinds or not _SMALLEST[name] <= value < math.inf:
            raise ValueError(
                f"{name} must be a number of at least {_SMALLEST[name]}, not {value!r}"
            )
    elif name == "image_base_url":
        if not (value is None or (isinstance(value, str) and value.startswith("http"))):
            raise ValueError(f"image_base_url must be a URL or None, not {value!r}")
    else:
        known = ", ".join(entry.name for entry in fields(Settings))
        raise ValueError(f"unknown setting {name!r}; known: {known}")
