"""How a check is written, and registered with Django."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage, Tags

TAG = "tiktok_business"

Check = Callable[..., list[CheckMessage]]


def check(*tags: str, **options: Any) -> Callable[[Callable[[], Iterator[CheckMessage]]], Check]:
    """Make a generator of messages a check under these tags and ``tiktok_business``.

    ``options`` are those of Django's ``register()``, such as ``deploy=True``.
    """

    def decorate(function: Callable[[], Iterator[CheckMessage]]) -> Check:
        @wraps(function)
        def run(app_configs: object = None, **kwargs: object) -> list[CheckMessage]:
            return list(function())

        del run.__wrapped__  # or Django would see the signature of `function`, without **kwargs
        _registrations.append((run, (*tags, TAG), options))
        return run

    return decorate


def database_check(function: Check) -> Check:
    """Mark a check that queries databases; `check --tag tiktok_business` must not run it."""
    _registrations.append((function, (Tags.database,), {}))
    return function


_registrations: list[tuple[Check, tuple[str, ...], dict[str, Any]]] = []


def register() -> None:
    """Register all checks with Django."""
    for function, tags, options in _registrations:
        checks.register(function, *tags, **options)


def error(number: str, text: str, hint: str) -> CheckMessage:
    return checks.Error(text, hint=hint, id=f"{TAG}.{number}")


def warning(number: str, text: str, hint: str) -> CheckMessage:
    return checks.Warning(text, hint=hint, id=f"{TAG}.{number}")
