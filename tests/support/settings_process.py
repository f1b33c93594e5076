"""The test settings for a process of its own: the test database, TikTok over real HTTP."""

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
# A project's time zone may be one in which an hour repeats.
TIME_ZONE = os.environ.get("TEST_PROCESS_TIME_ZONE", "UTC")
# Not TikTok's own address; and claims that are to run out while a test looks on.
SILENCED_SYSTEM_CHECKS = ["tiktok_business.W002", "tiktok_business.E010"]
