"""Configurations with one fault each, and what the system checks report about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.core.checks import CheckMessage, run_checks
from django.test import override_settings

TAG = "tiktok_business"
APP_SECRET = "app-secret-of-the-checks-tests"
KEY = "checks-tests-Kd8sVq3ZtLw6XhBn1RyMgPc9FjUe4Ta2"
OTHER_KEY = "checks-tests-Wb2vRz7NkTx5QcHf8JyLpGs1DmEu6Ya4"
DJANGO_KEY = "checks-tests-Mt4xYp9LgSb7VwJd2KzNrHc6QfAe3Ub8"
OLD_DJANGO_KEY = "checks-tests-Zn5wKm8QhPv3RtCy6XsBdLj9GfUa2Te7"
GOOD: dict[str, Any] = {
    "APP_ID": "7000000000000000001",
    "APP_SECRET": APP_SECRET,
    "ENCRYPTION_KEYS": [KEY],
    "REDIRECT_URI": "https://example.com/tiktok/callback/",
}


@dataclass
class Case:
    """A configuration with one fault, and everything that is reported about it."""

    name: str
    expected: list[CheckMessage]
    keys: dict[str, Any] = field(default_factory=dict)  # on top of GOOD
    without: str = ""  # the key of GOOD to leave out
    django: dict[str, Any] = field(default_factory=dict)
    deploy: bool = False

    @contextmanager
    def configured(self, **django: Any) -> Iterator[None]:
        values = {name: value for name, value in GOOD.items() if name != self.without}
        tiktok = {"TIKTOK_BUSINESS": values | self.keys}
        keys = {
            "SECRET_KEY": DJANGO_KEY,
            "SECRET_KEY_FALLBACKS": [OLD_DJANGO_KEY],
            "CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache"}},
        }
        with ExitStack() as stack:
            for layer in (tiktok, keys, self.django, django):
                stack.enter_context(override_settings(**layer))
            yield


def reported(*, deploy: bool = False) -> list[CheckMessage]:
    return run_checks(tags=[TAG], include_deployment_checks=deploy)


GOOD_CASE = Case("good", [])
