"""System checks on the settings: keys, values, cache, session factory, time zone."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from django_tiktok_business.api.retry import shortest_claim_seconds
from django_tiktok_business.conf import conf
from django_tiktok_business.conf.settings import SETTINGS
from django_tiktok_business.conf.validators import REQUIRED
from django_tiktok_business.exceptions import ConfigurationError


def check_keys(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a missing dict, missing keys and unknown ones."""
    try:
        values = conf.configured()
    except ConfigurationError:
        return [
            checks.Error(
                "The setting TIKTOK_BUSINESS is missing or not a dict.",
                hint='Set TIKTOK_BUSINESS = {"APP_ID": "...", "APP_SECRET": "..."}.',
                id="tiktok_business.E001",
            )
        ]
    messages: list[CheckMessage] = [
        checks.Error(
            f"TIKTOK_BUSINESS[{name!r}] is missing.",
            hint=f'Add "{name}": {setting.example} with the value from TikTok\'s developer portal.',
            id="tiktok_business.E002",
        )
        for name, setting in SETTINGS.items()
        if setting.default is REQUIRED and name not in values
    ]
    for key in values:
        if key not in SETTINGS:
            near = get_close_matches(str(key).upper(), SETTINGS, n=1)
            messages.append(
                checks.Error(
                    f"TIKTOK_BUSINESS has the unknown key {key!r}.",
                    hint=f"Did you mean {near[0]!r}?" if near else "Remove it.",
                    id="tiktok_business.E003",
                )
            )
    return messages


def check_values(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report values of the wrong type or out of range."""
    try:
        values = conf.configured()
    except ConfigurationError:  # reported by `check_keys`
        return []
    return [
        checks.Error(
            f"TIKTOK_BUSINESS[{name!r}] {problem}.",
            hint=f'Set "{name}": {setting.example}.',
            id="tiktok_business.E004",
        )
        for name, setting in SETTINGS.items()
        if name in values and (problem := setting.problem(values[name]))
    ]


def check_cache_alias(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a CACHE_ALIAS that is not in CACHES."""
    alias = conf.usable("CACHE_ALIAS", fallback=None)
    if alias is None or alias in settings.CACHES:
        return []
    return [
        checks.Error(
            f"TIKTOK_BUSINESS['CACHE_ALIAS'] is {alias!r}, which is not in CACHES.",
            hint=f"Use one of: {', '.join(map(repr, settings.CACHES))}.",
            id="tiktok_business.E006",
        )
    ]


# Separate in each process, without any storage, or with an add() that is not atomic.
_UNSHARED_CACHES = ("locmem.LocMemCache", "dummy.DummyCache", "filebased.FileBasedCache")


def check_cache_is_shared(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn about a cache through which processes cannot share the rate limit."""
    backend = settings.CACHES.get(conf.usable("CACHE_ALIAS", fallback=None), {}).get("BACKEND", "")
    if not conf.usable("REQUESTS_PER_MINUTE", fallback=None) or not backend.endswith(
        _UNSHARED_CACHES
    ):
        return []
    return [
        checks.Warning(
            f"The cache of TIKTOK_BUSINESS['CACHE_ALIAS'] is a {backend.rpartition('.')[2]}, which "
            "cannot share a rate limit: each process makes up to REQUESTS_PER_MINUTE calls.",
            hint="Use Redis, Memcached or the database cache, or divide REQUESTS_PER_MINUTE by the "
            "number of processes.",
            id="tiktok_business.W013",
        )
    ]


def check_session_factory(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Report a SESSION_FACTORY_PATH that does not lead to a callable."""
    path = conf.usable("SESSION_FACTORY_PATH", fallback=None)
    if path is None:
        return []
    try:
        problem = None if callable(import_string(path)) else "is not callable"
    except ImportError as err:
        problem = f"cannot be imported ({err})"
    except Exception as err:  # noqa: BLE001 -- raised by the module; its text may contain a secret
        problem = f"cannot be imported ({type(err).__name__})"
    if problem is None:
        return []
    return [
        checks.Error(
            f"TIKTOK_BUSINESS['SESSION_FACTORY_PATH']: {path!r} {problem}.",
            hint="Set the dotted path of a function that returns a requests.Session.",
            id="tiktok_business.E007",
        )
    ]


def check_claim_outlasts_call(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Report a claim that can expire while its worker is still waiting for TikTok."""
    names = ("CLAIM_SECONDS", "MAX_ATTEMPTS", "REQUEST_TIMEOUT_SECONDS")
    claim_seconds, max_attempts, timeout_seconds = (
        conf.usable(name, fallback=None) for name in names
    )
    if None in (claim_seconds, max_attempts, timeout_seconds):
        return []
    shortest = shortest_claim_seconds(timeout=timeout_seconds, max_attempts=max_attempts)
    if claim_seconds >= shortest:
        return []
    return [
        checks.Error(
            f"TIKTOK_BUSINESS['CLAIM_SECONDS'] is {claim_seconds}, but with "
            f"REQUEST_TIMEOUT_SECONDS = {timeout_seconds} and MAX_ATTEMPTS = {max_attempts} one "
            f"refresh can take {shortest:.0f} seconds, including pauses. A second worker could "
            "refresh the same account in the meantime.",
            hint=f'Set "CLAIM_SECONDS": {shortest:.0f}, or a shorter timeout.',
            id="tiktok_business.E010",
        )
    ]


def check_time_zone_support(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Report USE_TZ = False, with which stored times are ambiguous."""
    if settings.USE_TZ:
        return []
    return [
        checks.Error(
            "USE_TZ is False. Local times repeat an hour when the clocks go back, so it would be "
            "ambiguous when a token expires.",
            hint="Set USE_TZ = True.",
            id="tiktok_business.E008",
        )
    ]
