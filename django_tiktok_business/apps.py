"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig

from . import checks

__all__ = ["TikTokBusinessConfig"]


class TikTokBusinessConfig(AppConfig):
    name = "django_tiktok_business"
    label = "tiktok_business"
    verbose_name = "TikTok Business"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        checks.register()
