"""Processes that tests start: the settings they see, and how to await what they do."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from django.db import connection

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]


def environment(base_url: str, settings: str, **more: str) -> dict[str, str]:
    """For a process that has the test database, and TikTok at that address."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": settings,
        "TEST_PROCESS_DATABASE": json.dumps(
            {
                key: str(connection.settings_dict[key])
                for key in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
            }
        ),
        "TEST_PROCESS_API": f"{base_url}/open_api/v1.3",
        "PYTHONPATH": str(ROOT) if "TOX_WHEEL" not in os.environ else "",
        **more,
    }


def wait_until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "It took too long."
        time.sleep(0.05)
