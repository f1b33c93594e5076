"""System checks on what the OAuth flow needs: redirect URI, TikTok's URLs, session cookie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from django_tiktok_business.conf import conf
from django_tiktok_business.conf.settings import SETTINGS
from django_tiktok_business.exceptions import ConfigurationError

# Splits any URL (RFC 3986, appendix B); urlsplit() raises on some that have to be reported.
_URL: Final = re.compile(
    r"(?P<scheme>[^:/?#]+)://(?P<host>[^/?#]+)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?"
)
_PORT: Final = re.compile(r":[^\]]*$")  # not a colon inside the brackets of an IPv6 address


def check_redirect_uri(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Report each of TikTok's rules that REDIRECT_URI breaks.

    The rules are on TikTok's page "Accounts API - Authorization" (doc id 1738083939371009, as of
    2026-11-22). A site on localhost breaks several, so these are only warnings while DEBUG is on.
    """
    uri = conf.usable("REDIRECT_URI", fallback=None)
    if uri is None:
        return []
    severity, message_id = (
        (checks.Warning, "tiktok_business.W001")
        if settings.DEBUG
        else (checks.Error, "tiktok_business.E005")
    )
    return [
        severity(
            f"TikTok does not accept TIKTOK_BUSINESS['REDIRECT_URI']: it {problem}.",
            hint="Use a URL like https://YOUR-HOST/tiktok/callback/, here and at TikTok.",
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
            problems.append("contains a port")
        if not parts["path"].endswith("/"):
            problems.append("does not end with /")
        if parts["query"]:
            problems.append("has a query string")
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
    """Warn if the redirect URI depends on the request, whose host and scheme a proxy may change."""
    try:
        uri = conf.REDIRECT_URI
    except ConfigurationError:  # reported by `check_keys` and `check_values`
        return []
    if uri is not None:
        return []
    return [
        checks.Warning(
            "TIKTOK_BUSINESS['REDIRECT_URI'] is not set, so the redirect URI is built from the "
            "request. Behind a proxy, its scheme or host may differ from the registered one.",
            hint='Set "REDIRECT_URI": "https://YOUR-HOST/tiktok/callback/", exactly as '
            "registered with TikTok.",
            id="tiktok_business.W011",
        )
    ]


def check_urls_are_tiktoks(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn if a production site calls something other than TikTok, such as a simulator."""
    if settings.DEBUG:
        return []
    messages: list[CheckMessage] = []
    for name, message_id, consequence in (
        ("API_BASE_URL", "tiktok_business.W002", "the app's secret and all tokens are sent there"),
        ("AUTHORIZATION_URL", "tiktok_business.W003", "users are sent there to give consent"),
    ):
        url = conf.usable(name, fallback=None)
        if url is not None and not _is_tiktoks(url):
            messages.append(
                checks.Warning(
                    f"TIKTOK_BUSINESS[{name!r}] is not an https URL of TikTok, although DEBUG is "
                    f"off: {consequence}.",
                    hint=f"Remove the key to use the default, {SETTINGS[name].default}.",
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
    """Report an AUTHORIZATION_URL whose parameters contradict other settings."""
    parameters = parse_qs(urlsplit(conf.usable("AUTHORIZATION_URL", fallback=None) or "").query)
    messages: list[CheckMessage] = []
    app_id = conf.usable("APP_ID", fallback=None)
    if app_id is not None and parameters.get("client_key", [app_id]) != [app_id]:
        messages.append(
            checks.Error(
                "TIKTOK_BUSINESS['AUTHORIZATION_URL'] was issued for another app: its client_key "
                "is not TIKTOK_BUSINESS['APP_ID'].",
                hint="Copy both from the same app in TikTok's developer portal.",
                id="tiktok_business.E009",
            )
        )
    uri = conf.usable("REDIRECT_URI", fallback=None)
    if uri is not None and parameters.get("redirect_uri", [uri]) != [uri]:
        messages.append(
            checks.Warning(
                "The redirect_uri in TIKTOK_BUSINESS['AUTHORIZATION_URL'] differs from "
                "TIKTOK_BUSINESS['REDIRECT_URI'].",
                hint="Make them identical, character for character.",
                id="tiktok_business.W009",
            )
        )
    return messages


def check_session_cookie(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn about a session cookie that browsers do not send when TikTok redirects back."""
    if str(settings.SESSION_COOKIE_SAMESITE).lower() != "strict":
        return []
    return [
        checks.Warning(
            "SESSION_COOKIE_SAMESITE is 'Strict', so browsers do not send the session cookie when "
            "TikTok redirects a visitor back: nobody can connect an account.",
            hint='Set SESSION_COOKIE_SAMESITE = "Lax", which is Django\'s default.',
            id="tiktok_business.W012",
        )
    ]
