"""System checks on what the OAuth flow needs: redirect URI, TikTok's URLs, session cookie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Tags

from django_tiktok_business.conf import conf
from django_tiktok_business.conf.settings import SETTINGS
from django_tiktok_business.exceptions import ConfigurationError

from .registry import check, error, warning

# Splits any URL (RFC 3986, appendix B); urlsplit() raises on some that have to be reported.
_URL: Final = re.compile(
    r"(?P<scheme>[^:/?#]+)://(?P<host>[^/?#]+)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?"
)
_PORT: Final = re.compile(r":[^\]]*$")  # not a colon inside the brackets of an IPv6 address


@check(Tags.security)
def check_redirect_uri() -> Iterator[CheckMessage]:
    """Report each of TikTok's rules that REDIRECT_URI breaks.

    The rules are on TikTok's page "Accounts API - Authorization" (doc id 1738083939371009, as of
    2026-11-22). A site on localhost breaks several, so these are only warnings while DEBUG is on.
    """
    uri = conf.usable("REDIRECT_URI", fallback=None)
    for problem in () if uri is None else _redirect_uri_problems(uri):
        text = f"TikTok does not accept TIKTOK_BUSINESS['REDIRECT_URI']: it {problem}."
        hint = "Use a URL like https://YOUR-HOST/tiktok/callback/, here and at TikTok."
        yield warning("W001", text, hint) if settings.DEBUG else error("E005", text, hint)


def _redirect_uri_problems(uri: str) -> Iterator[str]:
    if parts := _URL.fullmatch(uri):
        if parts["scheme"] != "https":
            yield "does not begin with https://"
        if _PORT.search(parts["host"]):
            yield "contains a port"
        if not parts["path"].endswith("/"):
            yield "does not end with /"
        if parts["query"]:
            yield "has a query string"
        if parts["fragment"]:
            yield "has a fragment"
    else:
        yield "is not an absolute URL"
    if not 10 <= len(uri) <= 512:
        yield f"is {len(uri)} characters long, not 10 to 512"


@check(Tags.security, deploy=True)
def check_redirect_uri_is_fixed() -> Iterator[CheckMessage]:
    """Warn if the redirect URI depends on the request, whose host and scheme a proxy may change."""
    try:
        uri = conf.REDIRECT_URI
    except ConfigurationError:  # reported by `check_keys` and `check_values`
        return
    if uri is None:
        yield warning(
            "W011",
            "TIKTOK_BUSINESS['REDIRECT_URI'] is not set, so the redirect URI is built from the "
            "request. Behind a proxy, its scheme or host may differ from the registered one.",
            'Set "REDIRECT_URI": "https://YOUR-HOST/tiktok/callback/", exactly as registered with '
            "TikTok.",
        )


@check(Tags.security)
def check_urls_are_tiktoks() -> Iterator[CheckMessage]:
    """Warn if a production site calls something other than TikTok, such as a simulator."""
    for name, number, consequence in (
        ("API_BASE_URL", "W002", "the app's secret and all tokens are sent there"),
        ("AUTHORIZATION_URL", "W003", "users are sent there to give consent"),
    ):
        url = conf.usable(name, fallback=None)
        if not settings.DEBUG and url is not None and not _is_tiktoks(url):
            yield warning(
                number,
                f"TIKTOK_BUSINESS[{name!r}] is not an https URL of TikTok, although DEBUG is off: "
                f"{consequence}.",
                f"Remove the key to use the default, {SETTINGS[name].default}.",
            )


def _is_tiktoks(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and f".{parts.hostname}".endswith(".tiktok.com")


@check()
def check_authorization_url() -> Iterator[CheckMessage]:
    """Report an AUTHORIZATION_URL whose parameters contradict other settings."""
    parameters = parse_qs(urlsplit(conf.usable("AUTHORIZATION_URL", fallback=None) or "").query)
    app_id = conf.usable("APP_ID", fallback=None)
    if app_id is not None and parameters.get("client_key", [app_id]) != [app_id]:
        yield error(
            "E009",
            "TIKTOK_BUSINESS['AUTHORIZATION_URL'] was issued for another app: its client_key is "
            "not TIKTOK_BUSINESS['APP_ID'].",
            "Copy both from the same app in TikTok's developer portal.",
        )
    uri = conf.usable("REDIRECT_URI", fallback=None)
    if uri is not None and parameters.get("redirect_uri", [uri]) != [uri]:
        yield warning(
            "W009",
            "The redirect_uri in TIKTOK_BUSINESS['AUTHORIZATION_URL'] differs from "
            "TIKTOK_BUSINESS['REDIRECT_URI'].",
            "Make them identical, character for character.",
        )


@check()
def check_session_cookie() -> Iterator[CheckMessage]:
    """Warn about a session cookie that browsers do not send when TikTok redirects back."""
    if str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict":
        yield warning(
            "W012",
            "SESSION_COOKIE_SAMESITE is 'Strict', so browsers do not send the session cookie when "
            "TikTok redirects a visitor back: nobody can connect an account.",
            'Set SESSION_COOKIE_SAMESITE = "Lax", which is Django\'s default.',
        )
