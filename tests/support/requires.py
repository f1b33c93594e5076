"""Programs that some tests need: without one, a test is skipped and names the package."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

REDIS_PORT = 6379
# Folders that Debian keeps off the PATH of other users than root.
_DAEMONS = ("/usr/sbin", "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")


def program(name: str) -> str | None:
    """The path of a program, of the newest if there are several."""
    folders = [
        str(folder)
        for pattern in _DAEMONS
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)
    ]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))


def faketime() -> str | None:
    """The library that gives a process another clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


def has_redis() -> bool:
    """Whether there is a Redis; a named one has to answer, or the tests fail."""
    return "TEST_REDIS_URL" in os.environ or _listens(REDIS_PORT)


def _programs(*names: str) -> Callable[[], bool]:
    return lambda: all(program(name) for name in names)


# What a test may need: the Debian packages to install, and whether it is here.
TOOLS: dict[str, tuple[str, Callable[[], bool]]] = {
    "chromium": ("chromium chromium-driver", _programs("chromium", "chromedriver")),
    "faketime": ("faketime", lambda: faketime() is not None),
    "gettext": ("gettext", _programs("msgfmt", "msgcmp", "xgettext")),
    "mysql": ("mariadb-server", _programs("mariadbd", "mariadb-install-db")),
    "memcached": ("memcached", _programs("memcached")),
    "postgresql": ("postgresql", _programs("initdb", "pg_ctl")),
    "redis": ("redis-server", has_redis),
    "redis-server": ("redis-server", _programs("redis-server")),
}
_MISSING = "Skipped: needs "


def require(tool: str) -> None:
    """Skip the test if this is missing; the last line of the run says what to install."""
    packages, is_here = TOOLS[tool]
    if not is_here():
        pytest.skip(_MISSING.removeprefix("Skipped: ") + packages)


def summary(skipped: Sequence[pytest.TestReport]) -> str:
    """One line on what was skipped and what to install; "" if nothing was."""
    reasons = {
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in skipped
    }
    packages = {each.removeprefix(_MISSING) for each in reasons if each.startswith(_MISSING)}
    install = [f"apt install {' '.join(sorted(packages))}"] if packages else []
    others = sorted(each for each in reasons if not each.startswith(_MISSING))
    what = f"Not run: {len(skipped)} test{'' if len(skipped) == 1 else 's'}"
    return f"{what}. To run all: {'; '.join(install + others)}\n" if skipped else ""


# A Redis for this run, if none is running


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def some_redis() -> Iterator[None]:
    """If Redis is installed but not running, run one on another port inside the block."""
    server = program("redis-server")
    if has_redis() or server is None:
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    url = f"redis://127.0.0.1:{port}/9"
    with (
        tempfile.TemporaryDirectory(prefix="django_tiktok_business-") as folder,
        subprocess.Popen(
            [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        ) as process,
    ):
        wait_until(lambda: _listens(port))
        with patch.dict(os.environ, TEST_REDIS_URL=url):
            yield
        process.terminate()
