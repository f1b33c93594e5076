"""System checks on the settings: keys, values, cache, session factory, time zone."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from django.conf import settings
from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from django_tiktok_business.api.retry import shortest_claim_seconds
from django_tiktok_business.conf import conf
from django_tiktok_business.conf.settings import SETTINGS
from django_tiktok_business.conf.validators import REQUIRED
from django_tiktok_business.exceptions import ConfigurationError

from .registry import check, error, warning


@check()
def check_keys() -> Iterator[CheckMessage]:
    """Report a missing dict, missing keys and unknown ones."""
    try:
        values = conf.configured()
    except ConfigurationError:
        yield error(
            "E001",
            "The setting TIKTOK_BUSINESS is missing or not a dict.",
            'Set TIKTOK_BUSINESS = {"APP_ID": "...", "APP_SECRET": "..."}.',
        )
        return
    for name, setting in SETTINGS.items():
        if setting.default is REQUIRED and name not in values:
            yield error(
                "E002",
                f"TIKTOK_BUSINESS[{name!r}] is missing.",
                f'Add "{name}": {setting.example} with the value from TikTok\'s developer portal.',
            )
    for key in values:
        if key not in SETTINGS:
            near = get_close_matches(str(key).upper(), SETTINGS, n=1)
            yield error(
                "E003",
                f"TIKTOK_BUSINESS has the unknown key {key!r}.",
                f"Did you mean {near[0]!r}?" if near else "Remove it.",
            )


@check()
def check_values() -> Iterator[CheckMessage]:
    """Report values of the wrong type or out of range."""
    try:
        values = conf.configured()
    except ConfigurationError:  # reported by `check_keys`
        return
    for name, setting in SETTINGS.items():
        if name in values and (problem := setting.problem(values[name])):
            yield error(
                "E004",
                f"TIKTOK_BUSINESS[{name!r}] {problem}.",
                f'Set "{name}": {setting.example}.',
            )


@check()
def check_cache_alias() -> Iterator[CheckMessage]:
    """Report a CACHE_ALIAS that is not in CACHES."""
    alias = conf.usable("CACHE_ALIAS", fallback=None)
    if alias is not None and alias not in settings.CACHES:
        yield error(
            "E006",
            f"TIKTOK_BUSINESS['CACHE_ALIAS'] is {alias!r}, which is not in CACHES.",
            f"Use one of: {', '.join(map(repr, settings.CACHES))}.",
        )


# Separate in each process, without any storage, or with an add() that is not atomic.
_UNSHARED_CACHES = ("locmem.LocMemCache", "dummy.DummyCache", "filebased.FileBasedCache")


@check(deploy=True)
def check_cache_is_shared() -> Iterator[CheckMessage]:
    """Warn about a cache through which processes cannot share the rate limit."""
    backend = settings.CACHES.get(conf.usable("CACHE_ALIAS", fallback=None), {}).get("BACKEND", "")
    is_limited = conf.usable("REQUESTS_PER_MINUTE", fallback=None)
    if is_limited and backend.endswith(_UNSHARED_CACHES):
        yield warning(
            "W013",
            f"The cache of TIKTOK_BUSINESS['CACHE_ALIAS'] is a {backend.rpartition('.')[2]}, which "
            "cannot share a rate limit: each process makes up to REQUESTS_PER_MINUTE calls.",
            "Use Redis, Memcached or the database cache, or divide REQUESTS_PER_MINUTE by the "
            "number of processes.",
        )


@check()
def check_session_factory() -> Iterator[CheckMessage]:
    """Report a SESSION_FACTORY_PATH that does not lead to a callable."""
    path = conf.usable("SESSION_FACTORY_PATH", fallback=None)
    if path is None:
        return
    try:
        problem = None if callable(import_string(path)) else "is not callable"
    except ImportError as err:
        problem = f"cannot be imported ({err})"
    except Exception as err:  # noqa: BLE001 -- raised by the module; its text may contain a secret
        problem = f"cannot be imported ({type(err).__name__})"
    if problem is not None:
        yield error(
            "E007",
            f"TIKTOK_BUSINESS['SESSION_FACTORY_PATH']: {path!r} {problem}.",
            "Set the dotted path of a function that returns a requests.Session.",
        )


@check()
def check_claim_outlasts_call() -> Iterator[CheckMessage]:
    """Report a claim that can expire while its worker is still waiting for TikTok."""
    names = ("CLAIM_SECONDS", "MAX_ATTEMPTS", "REQUEST_TIMEOUT_SECONDS")
    claim_seconds, max_attempts, timeout_seconds = (
        conf.usable(name, fallback=None) for name in names
    )
    if None in (claim_seconds, max_attempts, timeout_seconds):
        return
    shortest = shortest_claim_seconds(timeout=timeout_seconds, max_attempts=max_attempts)
    if claim_seconds < shortest:
        yield error(
            "E010",
            f"TIKTOK_BUSINESS['CLAIM_SECONDS'] is {claim_seconds}, but with "
            f"REQUEST_TIMEOUT_SECONDS = {timeout_seconds} and MAX_ATTEMPTS = {max_attempts} one "
            f"refresh can take {shortest:.0f} seconds, including pauses. A second worker could "
            "refresh the same account in the meantime.",
            f'Set "CLAIM_SECONDS": {shortest:.0f}, or a shorter timeout.',
        )


@check()
def check_time_zone_support() -> Iterator[CheckMessage]:
    """Report USE_TZ = False, with which stored times are ambiguous."""
    if not settings.USE_TZ:
        yield error(
            "E008",
            "USE_TZ is False. Local times repeat an hour when the clocks go back, so it would be "
            "ambiguous when a token expires.",
            "Set USE_TZ = True.",
        )
