"""The package's settings: ``conf.NAME`` reads one, `from_env` builds them from the environment."""

from __future__ import annotations

from typing import Any

from .env import from_env
from .settings import conf

__all__ = ["conf", "from_env"]


def __getattr__(name: str) -> Any:
    """Answer ``django_tiktok_business.conf.NAME`` as the object does."""
    if name.isupper():
        return getattr(conf, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
