"""The Celery tasks, in the module that ``app.autodiscover_tasks()`` imports.

Huey and Dramatiq also import each app's module of this name. Without Celery it is empty, so that
their workers start; accessing a task raises an error that says what to install.
"""

from __future__ import annotations

from importlib.util import find_spec

from .exceptions import ConfigurationError

__all__ = ["refresh_accounts", "refresh_due", "sync_profiles"]

if find_spec("celery"):
    from .celery_tasks import refresh_accounts, refresh_due, sync_profiles
else:

    def __getattr__(name: str) -> object:
        if name in __all__:
            raise ConfigurationError(
                "Celery is not installed: python -m pip install 'django_tiktok_business[celery]'"
            )
        raise AttributeError(name)
