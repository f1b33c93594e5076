"""What a process imports that has an admin and shows none of its pages."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from django_tiktok_business.admin import lazy

SET_UP = """
import json, sys
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="test-only-Rk4Tm9XcVb2NsQd7LgHw5Yp",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.admin",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django_tiktok_business",
    ],
)
django.setup()
json.dump(sorted(sys.modules), sys.stdout)
"""

ONLY_FOR_PAGES = {
    *("cryptography", "requests"),
    *(f"django_tiktok_business.{name}" for name in ("api.client", "cache", "events", "notices")),
    *(f"django_tiktok_business.{name}" for name in ("services", "sync", "tokens", "views")),
    *(f"django_tiktok_business.admin.{name}" for name in ("account_page", "charts")),
    *(f"django_tiktok_business.admin.{name}" for name in ("figures", "overview")),
}


def test_setup_imports_the_admin_but_not_what_only_its_pages_need() -> None:
    process = subprocess.run(
        [sys.executable, "-c", SET_UP], stdout=subprocess.PIPE, text=True, check=True
    )
    imported = set(json.loads(process.stdout))
    assert "django_tiktok_business.admin.accounts" in imported
    assert imported & ONLY_FOR_PAGES == set()


@pytest.mark.parametrize("name", lazy.__all__)
def test_lazy_module_is_the_module_of_that_name(name: str) -> None:
    module = getattr(lazy, name)
    assert module is sys.modules[module.__name__]
    assert module.__name__.rpartition(".")[2] == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(
        AttributeError,
        match=r"^module 'django_tiktok_business\.admin\.lazy' has no attribute 'charts'$",
    ):
        _ = lazy.charts  # type: ignore[attr-defined]
