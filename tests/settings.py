"""The smallest settings that run the test suite; DATABASE_URL picks the database."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import django
import environ

ROOT = Path(__file__).resolve().parent.parent
env = environ.Env()

SECRET_KEY = "test-only-wk3Qn8zTfVb2LxYc7RjHs5GdMp9EuA4"  # signs nothing outside the tests
USE_TZ = True
ALLOWED_HOSTS = ["testserver.example"]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
LOGIN_URL = "admin:login"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast, not safe

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_tiktok_business",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    # Sends nothing until a test sets SECURE_CSP.
    "django.middleware.csp.ContentSecurityPolicyMiddleware"
    if django.VERSION >= (6,)
    else "tests.support.policy.policy_middleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db_url("DATABASE_URL", default=f"sqlite:///{ROOT / 'db.sqlite3'}")
}
# What each backend needs on top. SQLite: a file, because several threads and processes must see
# one database, named by process so that two runs do not meet; "timeout" is in seconds.
_SQLITE_FILE = f"{tempfile.gettempdir()}/django_tiktok_business-{os.getpid()}.sqlite3"
_PER_ENGINE: dict[str, dict[str, Any]] = {
    "django.db.backends.sqlite3": {"TEST": {"NAME": _SQLITE_FILE}, "OPTIONS": {"timeout": 20}},
    "django.db.backends.mysql": {
        "TEST": {"CHARSET": "utf8mb4"},
        "OPTIONS": {"charset": "utf8mb4"},
    },
}
DATABASES["default"].update(_PER_ENGINE.get(DATABASES["default"]["ENGINE"], {}))

TIKTOK_BUSINESS: dict[str, Any] = {
    "APP_ID": "7000000000000000001",
    "APP_SECRET": "simulator-app-secret-not-real",
    "ENCRYPTION_KEYS": ["test-only-Zr8vN2kXq5TgWb9YhJ4mLc7PdFs3RuEa"],
    "REDIRECT_URI": "https://testserver.example/tiktok/callback/",
    "REJECTION_CONFIRM_SECONDS": 0,  # tests of the second rejection set it
    "REQUESTS_PER_MINUTE": 0,  # tests of the rate limit set one
    "SESSION_FACTORY_PATH": "tests.support.simulator.simulator_session",
}
