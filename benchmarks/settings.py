"""Settings of the measured processes; `stage` sets their database and cache by environment."""

from __future__ import annotations

import json
import os
from typing import Any

SECRET_KEY = "benchmarks-only-Yk2Wn7ZtQv4LxBd9RgPc5Fj"  # noqa: S105 -- opens nothing
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_tiktok_business",
    "benchmarks",
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES: dict[str, dict[str, Any]] = {"default": json.loads(os.environ["BENCH_DATABASE"])}
CACHES: dict[str, dict[str, Any]] = {"default": json.loads(os.environ["BENCH_CACHE"])}
TIKTOK_BUSINESS: dict[str, Any] = {
    "APP_ID": "7000000000000000001",
    "APP_SECRET": "simulator-app-secret-not-real",
    "ENCRYPTION_KEYS": json.loads(os.environ["BENCH_KEYS"]),
    "API_BASE_URL": f"{os.environ['BENCH_TIKTOK']}/open_api/v1.3",
    "REQUESTS_PER_MINUTE": int(os.environ["BENCH_REQUESTS_PER_MINUTE"]),
}
SILENCED_SYSTEM_CHECKS = ["tiktok_business.W002"]  # not TikTok's own address
