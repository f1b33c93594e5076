"""Settings of a separate process: the test database, and TikTok over real HTTP."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, TIKTOK_BUSINESS

DATABASES["default"].update(json.loads(os.environ["TEST_PROCESS_DATABASE"]))
TIKTOK_BUSINESS = {
    **{key: value for key, value in TIKTOK_BUSINESS.items() if key != "SESSION_FACTORY_PATH"},
    "API_BASE_URL": os.environ["TEST_PROCESS_API"],
    **json.loads(os.environ.get("TEST_PROCESS_TIKTOK", "{}")),
}
if _caches := json.loads(os.environ.get("TEST_PROCESS_CACHES", "{}")):
    CACHES = _caches
# A time zone in which an hour repeats, as a project may have.
TIME_ZONE = os.environ.get("TEST_PROCESS_TIME_ZONE", "UTC")
# Not TikTok's own address; and claims short enough to expire during a test.
SILENCED_SYSTEM_CHECKS = ["tiktok_business.W002", "tiktok_business.E010"]
