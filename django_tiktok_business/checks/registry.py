"""Register all system checks with Django."""

from __future__ import annotations

from django.core import checks
from django.core.checks import Tags

from . import encryption, oauth, settings

TAG = "tiktok_business"


def register() -> None:
    """Register all checks, under the tag ``tiktok_business`` unless they query a database."""
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
