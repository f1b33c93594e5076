"""Private database servers that a test may stop, start and break."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management import call_command
from django.db import connection

from tests.support.engine import wait_until
from tests.support.requires import program, require

if TYPE_CHECKING:
    from collections.abc import Iterator


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PrivateServer(ABC):
    """A private server on 127.0.0.1 with an empty data folder."""

    user = ""  # the system's, when the tests run as root: neither server runs as root

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.port = _free_port()
        self.variables = variables
        self.create()
        self.start()
        wait_until(self.answers, timeout=60)

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Django's settings of the connection to it."""

    @abstractmethod
    def create(self) -> None:
        """Make the data folder."""

    @abstractmethod
    def start(self) -> None:
        """Start the server, which may take a moment to answer."""

    @abstractmethod
    def stop(self, mode: str = "fast") -> None:
        """Stop the server and all connections; "immediate" stops as a crash does."""

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def run(self, *arguments: str) -> None:
        subprocess.run(
            arguments,
            check=True,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self.as_other_user(),
        )

    def environment(self) -> dict[str, str]:
        # Another user may not write where this one's temporary files are.
        return {**os.environ, "TMPDIR": str(self.folder), **self.variables}

    def as_other_user(self) -> dict[str, Any]:
        is_root = os.getuid() == 0
        shutil.chown(self.folder, self.user if is_root else os.getuid())
        who = {"user": self.user, "group": self.user, "extra_groups": []}
        return {**(who if is_root else {}), "cwd": self.folder}


class PrivatePostgres(PrivateServer):
    user = "postgres"

    @property
    def settings(self) -> dict[str, Any]:
        return {"NAME": "postgres", "USER": "postgres", "HOST": "127.0.0.1", "PORT": str(self.port)}

    def _postgres(self, name: str) -> str:
        return str(program(name))

    def create(self) -> None:
        arguments = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale")
        self.run(self._postgres("initdb"), "--no-sync", *arguments, f"{self.folder}/data")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.folder}"
        self._control("start", "-o", options, "-l", f"{self.folder}/log")

    def stop(self, mode: str = "fast") -> None:
        self._control("stop", "-m", mode)

    def _control(self, *arguments: str) -> None:
        self.run(self._postgres("pg_ctl"), "-w", "-s", "-D", f"{self.folder}/data", *arguments)


class PrivateMariaDB(PrivateServer):
    user = "mysql"

    @property
    def settings(self) -> dict[str, Any]:
        return {"NAME": "private", "USER": "root", "HOST": "127.0.0.1", "PORT": str(self.port)}

    def create(self) -> None:
        options = ("--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db")
        self.run(str(program("mariadb-install-db")), *options, f"--datadir={self.folder}/data")
        (self.folder / "init.sql").write_text("CREATE DATABASE IF NOT EXISTS private;")

    def start(self) -> None:
        options = (
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            f"--init-file={self.folder}/init.sql",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=2",
        )
        self._process = subprocess.Popen(
            [str(program("mariadbd")), *options],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self.as_other_user(),
        )

    def stop(self, mode: str = "fast") -> None:
        with self._process as process:
            process.kill() if mode == "immediate" else process.terminate()


_KINDS: dict[str, type[PrivateServer]] = {
    "postgresql": PrivatePostgres,
    "mysql": PrivateMariaDB,
}


@contextmanager
def private_server(vendor: str, **variables: str) -> Iterator[PrivateServer]:
    """Put the default database on such a server inside the block, with our tables in it."""
    require(vendor)
    folder = Path(tempfile.mkdtemp(prefix="django_tiktok_business-", dir="/tmp"))
    folder.chmod(0o755)
    server = _KINDS[vendor](folder, variables)
    settings = connection.settings_dict  # one dict for all threads
    usual = dict(settings)
    try:
        connection.close()
        settings.update(server.settings)
        call_command("migrate", verbosity=0)
        yield server
    finally:
        connection.close()
        settings.update(usual)
        with suppress(subprocess.CalledProcessError):  # it is stopped already
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
