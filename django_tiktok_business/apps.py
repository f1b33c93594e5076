"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register

from . import checks, token_checks

__all__ = ["TikTokBusinessConfig"]


class TikTokBusinessConfig(AppConfig):
    name = "django_tiktok_business"
    label = "tiktok_business"
    verbose_name = "TikTok Business"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        register(checks.check_keys, self.label)
        register(checks.check_values, self.label)
        register(checks.check_redirect_uri, Tags.security, self.label)
        register(checks.check_redirect_uri_is_fixed, Tags.security, self.label, deploy=True)
        register(checks.check_urls_are_tiktoks, Tags.security, self.label)
        register(checks.check_authorization_url, self.label)
        register(checks.check_encryption_keys, Tags.security, self.label)
        register(checks.check_cache_alias, self.label)
        register(checks.check_cache_is_shared, self.label, deploy=True)
        register(checks.check_session_cookie, self.label)
        register(checks.check_session_factory, self.label)
        register(checks.check_claim_outlasts_call, self.label)
        register(checks.check_time_zone_support, self.label)
        # Not by our own tag: `check --tag tiktok_business` asks no database.
        register(token_checks.check_stored_tokens, Tags.database)
