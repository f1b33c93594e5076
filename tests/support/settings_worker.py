"""Settings of a worker's process: those of any separate process, and a queue."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.settings_process import *  # noqa: F403
from tests.support.settings_process import DATABASES, INSTALLED_APPS, TIKTOK_BUSINESS

if TYPE_CHECKING:
    from django.db.models import Model

TIKTOK_BUSINESS["REFRESH_CONCURRENCY"] = 4

CELERY_BROKER_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
# What a run leaves in Redis has its own prefix, and can be found and removed.
CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": os.environ.get("TEST_PROCESS_PREFIX", "")}
CELERY_TASK_ACKS_LATE = True  # a common choice of projects
CELERY_TASK_SOFT_TIME_LIMIT = 1  # some projects' choice, for mails
CELERY_TASK_TIME_LIMIT = 2

# django-tasks-db keeps its queue in another database, so that the test database has the tables
# of the package alone.
INSTALLED_APPS = [*INSTALLED_APPS, "django_tasks_db"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
DATABASES = {
    **DATABASES,
    "queue": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TEST_PROCESS_QUEUE", ":memory:"),
        "OPTIONS": {"timeout": 20},
    },
}


class QueueRouter:
    """Sends the models of the queue, and nothing else, to its database."""

    def db_for_read(self, model: type[Model], **hints: object) -> str | None:
        return "queue" if model._meta.app_label == "django_tasks_database" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool:
        return (db == "queue") == (app_label == "django_tasks_database")


DATABASE_ROUTERS = ["tests.support.settings_worker.QueueRouter"]
