"""System checks. None calls TikTok, and no text holds a secret; `register` adds all of them.

Ids are never reused. Errors: E001 no dict, E002 missing key, E003 unknown key, E004 wrong value,
E005 redirect URI, E006 cache, E007 session factory, E008 time zones, E009 authorization URL of
another app, E010 short claim. Warnings: W001 redirect URI (the text of E005 while DEBUG is on),
W002 API base URL, W003 authorization URL, W004 no encryption key, W005 short, W006 guessable, W007
shared with SECRET_KEY, W008 repeated, W009 two redirect URIs, W010 (E010 now), W011 redirect URI
from the request, W012 session cookie that does not come back from TikTok, W013 cache that processes
cannot share, W014 tokens that no configured key opens, W015 tokens under another key than the
first, W016 tokens that could not be looked at. W011 and W013 come only with ``check --deploy``,
W014 to W016 only with ``check --database`` and ``migrate``.
"""

from __future__ import annotations

from django.core import checks
from django.core.checks import Tags

from . import encryption, oauth, settings

__all__ = ["register"]

TAG = "tiktok_business"


def register() -> None:
    """Register all checks, under the tag ``tiktok_business``."""
    for check in (
        settings.check_keys,
        settings.check_values,
        settings.check_cache_alias,
        settings.check_session_factory,
        settings.check_claim_outlasts_call,
        settings.check_time_zone_support,
        oauth.check_authorization_url,
        oauth.check_session_cookie,
    ):
        checks.register(check, TAG)
    for check in (
        oauth.check_redirect_uri,
        oauth.check_urls_are_tiktoks,
        encryption.check_encryption_keys,
    ):
        checks.register(check, Tags.security, TAG)
    checks.register(oauth.check_redirect_uri_is_fixed, Tags.security, TAG, deploy=True)
    checks.register(settings.check_cache_is_shared, TAG, deploy=True)
    # Not under our own tag: `check --tag tiktok_business` must not query a database.
    checks.register(encryption.check_stored_tokens, Tags.database)
