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
}
SILENCED_SYSTEM_CHECKS = ["tiktok_business.W002"]  # not TikTok's own address
