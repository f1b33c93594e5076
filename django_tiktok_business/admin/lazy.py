"""Import what only a shown page needs when the first page asks for it.

Every process of a project imports its admin: workers, cron jobs, `manage.py migrate`. They should
not wait for charts or for TikTok's API. Use these modules as attributes of this one, for example
``lazy.services.sync_profile(account)``. To import them directly at the head of another module of
the admin would undo it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["account_page", "bulk", "overview", "services"]

_MODULES = {
    "account_page": "django_tiktok_business.admin.account_page",
    "bulk": "django_tiktok_business.services.bulk",
    "overview": "django_tiktok_business.admin.overview",
    "services": "django_tiktok_business.services",
}

if TYPE_CHECKING:
    from django_tiktok_business import services
    from django_tiktok_business.services import bulk

    from . import account_page, overview
else:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(_MODULES[name])
