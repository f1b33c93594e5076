"""System checks on the settings: no database, no network, and no secret in any text.

Ids are never reused. Errors: E001 no dict, E002 missing key, E003 unknown key, E004 wrong value,
E005 redirect URI, E006 cache, E007 session factory, E008 time zones, E009 authorization URL of
another app, E010 short claim. Warnings: W001 redirect URI (the text of E005 while DEBUG is on),
W002 API base URL, W003 authorization URL, W004 no encryption key, W005 short, W006 guessable, W007
shared with SECRET_KEY, W008 repeated, W009 two redirect URIs, W010 (E010 now), W011 redirect URI
from the request, W012 session cookie that does not come back from TikTok, W013 cache that processes
cannot share. W011 and W013 come only with ``check --deploy``. `token_checks` has W014 to
W016.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from math import log2
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import conf
from .deadlines import shortest_claim_seconds
from .exceptions import ConfigurationError

__all__ = [
    "check_authorization_url",
    "check_cache_alias",
    "check_cache_is_shared",
    "check_claim_outlasts_call",
    "check_encryption_keys",
    "check_keys",
    "check_redirect_uri",
    "check_redirect_uri_is_fixed",
    "check_session_cookie",
    "check_session_factory",
    "check_time_zone_support",
    "check_urls_are_tiktoks",
    "check_values",
]

# Any URL splits in this way (RFC 3986, appendix B); urlsplit() raises on some that need a report.
_URL: Final = re.compile(
    r"(?P<scheme>[^:/?#]+)://(?P<host>[^/?#]+)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?"
)
_PORT: Final = re.compile(r":[^\]]*$")  # a colon inside the brackets of an IPv6 address is no port

_SHORTEST_KEY: Final = 32  # characters: 128 bits even if they are random hexadecimal digits
# Bits by `_estimated_bits`. Random text of the shortest length hardly ever lies below 78, be it of
# digits only; a word of up to 18 letters stays below, however often it is repeated.
_GUESSABLE_BITS: Final = 72
_NEW_KEY_HINT: Final = (
    'Print a new key with: python -c "import secrets; print(secrets.token_urlsafe(48))". '
    "Put it first in TIKTOK_BUSINESS['ENCRYPTION_KEYS'], and keep {old} after it for as long as "
    "stored tokens are encrypted with it."
)


def _value(name: str) -> Any:
    """Return a setting, None when it is missing or wrong: `check_keys` and `check_values` tell."""
    try:
        return getattr(conf, name)
    except ConfigurationError:
        return None


def check_keys(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a missing dict, missing keys and unknown ones."""
    try:
        values = conf.configured()
    except ConfigurationError:
        return [
            checks.Error(
                "The setting TIKTOK_BUSINESS is missing or not a dict.",
                hint='Write TIKTOK_BUSINESS = {"APP_ID": "...", "APP_SECRET": "..."}.',
                id="tiktok_business.E001",
            )
        ]
    messages: list[CheckMessage] = [
        checks.Error(
            f"TIKTOK_BUSINESS[{name!r}] is missing.",
            hint=f'Add "{name}": {setting.example} with the value from TikTok\'s developer portal.',
            id="tiktok_business.E002",
        )
        for name, setting in conf.SETTINGS.items()
        if setting.default is conf.REQUIRED and name not in values
    ]
    for key in values:
        if key not in conf.SETTINGS:
            near = get_close_matches(str(key).upper(), conf.SETTINGS, n=1)
            messages.append(
                checks.Error(
                    f"TIKTOK_BUSINESS has the unknown key {key!r}.",
                    hint=f"Write {near[0]!r}." if near else "Remove it.",
                    id="tiktok_business.E003",
                )
            )
    return messages


def check_values(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report values of the wrong type or out of range."""
    try:
        values = conf.configured()
    except ConfigurationError:  # which `check_keys` reports
        return []
    return [
        checks.Error(
            f"TIKTOK_BUSINESS[{name!r}] {problem}.",
            hint=f'Write "{name}": {setting.example}.',
            id="tiktok_business.E004",
        )
        for name, setting in conf.SETTINGS.items()
        if name in values and (problem := setting.problem(values[name]))
    ]


def check_redirect_uri(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Report each rule of TikTok's that REDIRECT_URI breaks.

    The rules stand on TikTok's page "Accounts API - Authorization" (doc id 1738083939371009, as of
    2026-11-22). A simulator on localhost breaks several, hence warnings only while DEBUG is on.
    """
    uri = _value("REDIRECT_URI")
    if uri is None:
        return []
    severity, message_id = (
        (checks.Warning, "tiktok_business.W001")
        if settings.DEBUG
        else (checks.Error, "tiktok_business.E005")
    )
    return [
        severity(
            f"TikTok does not take TIKTOK_BUSINESS['REDIRECT_URI']: it {problem}.",
            hint="Register and write a URL like https://YOUR-HOST/tiktok/callback/.",
            id=message_id,
        )
        for problem in _redirect_uri_problems(uri)
    ]


def _redirect_uri_problems(uri: str) -> list[str]:
    problems = []
    if parts := _URL.fullmatch(uri):
        if parts["scheme"] != "https":
            problems.append("does not begin with https://")
        if _PORT.search(parts["host"]):
            problems.append("names a port")
        if not parts["path"].endswith("/"):
            problems.append("does not end in /")
        if parts["query"]:
            problems.append("has a query")
        if parts["fragment"]:
            problems.append("has a fragment")
    else:
        problems.append("is not an absolute URL")
    if not 10 <= len(uri) <= 512:
        problems.append(f"is {len(uri)} characters long, not 10 to 512")
    return problems


def check_redirect_uri_is_fixed(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn when the redirect URI follows the request, whose host and scheme a proxy may change."""
    try:
        uri = conf.REDIRECT_URI
    except ConfigurationError:  # which `check_keys` and `check_values` report
        return []
    if uri is not None:
        return []
    return [
        checks.Warning(
            "TIKTOK_BUSINESS['REDIRECT_URI'] is not set, so the redirect URI is built from the "
            "request: behind a proxy its scheme or host may not be the registered one.",
            hint='Write "REDIRECT_URI": "https://YOUR-HOST/tiktok/callback/", exactly as '
            "registered with TikTok.",
            id="tiktok_business.W011",
        )
    ]


def check_urls_are_tiktoks(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn when a production site talks to something else than TikTok, such as a simulator."""
    if settings.DEBUG:
        return []
    messages: list[CheckMessage] = []
    for name, message_id, consequence in (
        ("API_BASE_URL", "tiktok_business.W002", "the app's secret and all tokens are sent there"),
        ("AUTHORIZATION_URL", "tiktok_business.W003", "users are sent there to give consent"),
    ):
        url = _value(name)
        if url is not None and not _is_tiktoks(url):
            messages.append(
                checks.Warning(
                    f"TIKTOK_BUSINESS[{name!r}] is not an https URL of TikTok although DEBUG is "
                    f"off: {consequence}.",
                    hint=f"Remove the key for the default: {conf.SETTINGS[name].default}.",
                    id=message_id,
                )
            )
    return messages


def _is_tiktoks(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and f".{parts.hostname}".endswith(".tiktok.com")


def check_authorization_url(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Report an AUTHORIZATION_URL whose own parameters contradict the other settings."""
    parameters = parse_qs(urlsplit(_value("AUTHORIZATION_URL") or "").query)
    messages: list[CheckMessage] = []
    app_id = _value("APP_ID")
    if app_id is not None and parameters.get("client_key", [app_id]) != [app_id]:
        messages.append(
            checks.Error(
                "TIKTOK_BUSINESS['AUTHORIZATION_URL'] was issued for another app: its client_key "
                "is not TIKTOK_BUSINESS['APP_ID'].",
                hint="Copy both from the same app in TikTok's developer portal.",
                id="tiktok_business.E009",
            )
        )
    uri = _value("REDIRECT_URI")
    if uri is not None and parameters.get("redirect_uri", [uri]) != [uri]:
        messages.append(
            checks.Warning(
                "The redirect_uri inside TIKTOK_BUSINESS['AUTHORIZATION_URL'] is not "
                "TIKTOK_BUSINESS['REDIRECT_URI'].",
                hint="Make the two equal, character by character.",
                id="tiktok_business.W009",
            )
        )
    return messages


def check_encryption_keys(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn about encryption keys that are absent, weak, repeated or shared with Django."""
    keys = _value("ENCRYPTION_KEYS")
    if keys is None:
        return []
    if not keys:
        return [
            checks.Warning(
                "TIKTOK_BUSINESS['ENCRYPTION_KEYS'] is empty, so tokens are encrypted with "
                "SECRET_KEY: once SECRET_KEY is replaced and its old value has left "
                "SECRET_KEY_FALLBACKS, no stored token can be read and every account has to be "
                "connected again.",
                hint=_NEW_KEY_HINT.format(old="the present SECRET_KEY (and SECRET_KEY_FALLBACKS)"),
                id="tiktok_business.W004",
            )
        ]
    return [
        checks.Warning(
            f"TIKTOK_BUSINESS['ENCRYPTION_KEYS'][{index}] {problem}.",
            hint="Remove it." if key in keys[:index] else _NEW_KEY_HINT.format(old="this one"),
            id=message_id,
        )
        for index, key in enumerate(keys)
        for problem, message_id in _key_problems(key, earlier=keys[:index])
    ]


def _key_problems(key: str, *, earlier: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a key and the id of the warning about it."""
    if key in earlier:
        yield "repeats an earlier key", "tiktok_business.W008"
        return
    if key in _django_secrets():
        yield (
            "is also Django's (SECRET_KEY, SECRET_KEY_FALLBACKS): neither can be replaced alone",
            "tiktok_business.W007",
        )
    if len(key) < _SHORTEST_KEY:
        yield f"is shorter than {_SHORTEST_KEY} characters", "tiktok_business.W005"
    elif _estimated_bits(key) < _GUESSABLE_BITS:
        yield (
            "is easy to guess: it repeats itself or uses few different characters",
            "tiktok_business.W006",
        )


def _django_secrets() -> list[object]:
    try:
        return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    except ImproperlyConfigured:  # an empty SECRET_KEY, which Django itself reports
        return []


def _estimated_bits(key: str) -> float:
    """Estimate the entropy in bits from how often each character occurs.

    Text that only repeats its beginning counts as that beginning. An upper bound: an order such as
    that of the alphabet is not recognised.
    """
    period = next(length for length in range(1, len(key) + 1) if key.startswith(key[length:]))
    counts = Counter(key[:period]).values()
    return -sum(count * log2(count / period) for count in counts)


def check_cache_alias(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a CACHE_ALIAS that is not in CACHES."""
    alias = _value("CACHE_ALIAS")
    if alias is None or alias in settings.CACHES:
        return []
    return [
        checks.Error(
            f"TIKTOK_BUSINESS['CACHE_ALIAS'] is {alias!r}, which is not in CACHES.",
            hint=f"Write one of: {', '.join(map(repr, settings.CACHES))}.",
            id="tiktok_business.E006",
        )
    ]


# Each of its own process, without memory at all, or with an add() that two can win.
_UNSHARED_CACHES = ("locmem.LocMemCache", "dummy.DummyCache", "filebased.FileBasedCache")


def check_cache_is_shared(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn about a cache through which processes cannot keep to one REQUESTS_PER_MINUTE."""
    backend = settings.CACHES.get(_value("CACHE_ALIAS"), {}).get("BACKEND", "")
    if not _value("REQUESTS_PER_MINUTE") or not backend.endswith(_UNSHARED_CACHES):
        return []
    return [
        checks.Warning(
            f"The cache of TIKTOK_BUSINESS['CACHE_ALIAS'] is a {backend.rpartition('.')[2]}, so "
            "each process makes REQUESTS_PER_MINUTE calls by itself.",
            hint="Use Redis, Memcached or the database cache, or divide REQUESTS_PER_MINUTE by the "
            "number of processes.",
            id="tiktok_business.W013",
        )
    ]


def check_session_cookie(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn about session cookies that browsers leave out when TikTok sends the visitor back."""
    if str(settings.SESSION_COOKIE_SAMESITE).lower() != "strict":
        return []
    return [
        checks.Warning(
            "SESSION_COOKIE_SAMESITE is 'Strict', so browsers do not send the session cookie when "
            "TikTok sends a visitor back: nobody can connect an account in the browser.",
            hint='Write SESSION_COOKIE_SAMESITE = "Lax", which is Django\'s default.',
            id="tiktok_business.W012",
        )
    ]


def check_session_factory(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Report a SESSION_FACTORY_PATH that does not lead to a callable."""
    path = _value("SESSION_FACTORY_PATH")
    if path is None:
        return []
    try:
        problem = None if callable(import_string(path)) else "is not callable"
    except ImportError as err:
        problem = f"cannot be imported ({err})"
    except Exception as err:  # noqa: BLE001 -- of the module; its text may hold a secret
        problem = f"cannot be imported ({type(err).__name__})"
    if problem is None:
        return []
    return [
        checks.Error(
            f"TIKTOK_BUSINESS['SESSION_FACTORY_PATH']: {path!r} {problem}.",
            hint="Write the dotted path of a function that returns a requests.Session.",
            id="tiktok_business.E007",
        )
    ]


def check_claim_outlasts_call(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Refuse a claim that may run out under a worker that is still waiting for TikTok."""
    names = ("CLAIM_SECONDS", "MAX_ATTEMPTS", "REQUEST_TIMEOUT_SECONDS")
    claim_seconds, max_attempts, timeout_seconds = map(_value, names)
    if None in (claim_seconds, max_attempts, timeout_seconds):
        return []
    shortest = shortest_claim_seconds(timeout=timeout_seconds, max_attempts=max_attempts)
    if claim_seconds >= shortest:
        return []
    return [
        checks.Error(
            f"TIKTOK_BUSINESS['CLAIM_SECONDS'] is {claim_seconds}, but with "
            f"REQUEST_TIMEOUT_SECONDS = {timeout_seconds} and MAX_ATTEMPTS = {max_attempts} one "
            f"refresh may take {shortest:.0f} seconds, pauses included: a second worker could "
            "refresh the same account meanwhile.",
            hint=f'Write "CLAIM_SECONDS": {shortest:.0f}, or shorten the time-out.',
            id="tiktok_business.E010",
        )
    ]


def check_time_zone_support(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Report USE_TZ = False, under which a time does not name an instant."""
    if settings.USE_TZ:
        return []
    return [
        checks.Error(
            "USE_TZ is False: local times without a zone repeat an hour when the clocks go back, "
            "so it would be unknown when a token expires.",
            hint="Write USE_TZ = True.",
            id="tiktok_business.E008",
        )
    ]
