"""Processes that tests start, and those of other suites: settings, waiting, and a lock."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from django.db import connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


def environment(base_url: str, settings: str, **more: str) -> dict[str, str]:
    """The environment of a process with the test database, and TikTok at this address."""
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


@contextmanager
def only_one_suite(name: str) -> Iterator[None]:
    """Wait until no other suite of this user, on any database or version, is inside this block."""
    path = Path(tempfile.gettempdir(), f"django_tiktok_business-{name}-{os.getuid()}.lock")
    with path.open("w", encoding="utf-8") as file:
        # The lock ends with the file, even if the process is killed.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
