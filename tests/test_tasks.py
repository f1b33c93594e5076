"""The module that Celery's autodiscovery imports, with and without Celery."""

from __future__ import annotations

import subprocess
import sys

import pytest

from django_tiktok_business import celery_tasks, tasks
from tests.support.processes import ROOT, environment


def run(code: str) -> str:
    """What a process of its own prints, with the app installed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment("http://127.0.0.1:9", "tests.support.settings_process"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", tasks.__all__)
def test_autodiscovery_finds_the_celery_tasks(name: str) -> None:
    assert getattr(tasks, name) is getattr(celery_tasks, name)


def test_package_itself_imports_neither_the_jobs_nor_celery_nor_tasks() -> None:
    loaded = run(
        "import sys, django; django.setup()\n"
        "import django_tiktok_business.management.commands.refresh_tokens\n"
        "import django_tiktok_business.urls, django_tiktok_business.admin\n"
        "print(*sys.modules, sep='\\n')"
    ).splitlines()
    assert "django_tiktok_business.services" in loaded
    ours = ("services.chunks", "tasks", "celery_tasks", "django_tasks")
    assert not {f"django_tiktok_business.{name}" for name in ours} & set(loaded)
    assert not {"celery", "kombu", "django_tasks", "django_tasks_db"} & set(loaded)


WITHOUT_CELERY = """
import sys, django; sys.modules["celery"] = None
django.setup()
from django.core.exceptions import ImproperlyConfigured
from django_tiktok_business import tasks  # as Huey and Dramatiq do with every app's tasks
assert not hasattr(tasks, "__path__")
for name in ("django_tiktok_business.tasks", "django_tiktok_business.celery_tasks"):
    try:
        getattr(__import__(name, fromlist=["refresh_due"]), "refresh_due")
    except ImproperlyConfigured as error:
        print(error)
"""


def test_without_celery_the_tasks_say_what_to_install() -> None:
    lines = run(WITHOUT_CELERY).splitlines()
    to_do = "Celery is not installed: python -m pip install 'django_tiktok_business[celery]'"
    assert lines == [to_do, to_do]
