"""A tour of the example project against the simulator: what ``make demo`` runs.

Starts both as processes of their own, with a new SQLite database, and plays a person with a web
browser over real HTTP: logs in, connects accounts, refuses once, and refreshes tokens from the
command line. Then serves until Ctrl-C; with ``--once`` it ends after the tour.

It reads no ``.env`` and passes on no setting of the environment, so real credentials cannot get
into it. Exit status: 0 the tour went well, 1 a step failed; no process is left behind.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from browser import Browser, Page, PageError, without_query

PROJECT = Path(__file__).resolve().parent
LOGIN = ("demo", "demo")  # of a site that only this machine can reach
ADMIN_OF_ACCOUNTS = "/admin/tiktok_business/businessaccount/"
APP_ID = "7000000000000000001"
SHORT_LIFE_SECONDS = 1200  # due for a refresh, but long enough for reading the profile
DAY_SECONDS = 86_400
TOKENS = ("access_token", "refresh_token")
EVERY_STATE = (
    "healthy",
    "expires soon",
    "retrying",
    "cannot decrypt",
    "reconnect needed",
    "revoked",
)
PATIENCE_SECONDS = 30  # for a server to start or to answer


class DemoError(Exception):
    """A step failed; the message says which."""


class Stopped(Exception):  # noqa: N818 - what happened is not an error
    """Ctrl-C, SIGTERM or a closed terminal."""


class Demo:
    """The two servers, the database, and what is done with them.

    ``folder`` gets a subfolder named by the web port, so that two demos keep out of each other's
    way. ``state`` has the simulator keep its tokens in that file as well.
    """

    def __init__(self, folder: Path, port: int, state: Path | None) -> None:
        self.web = f"http://127.0.0.1:{free_port(port)}"
        self.tiktok = f"http://127.0.0.1:{free_port(8420)}"
        self.folder = folder / self.web.rpartition(":")[2]
        self.database = self.folder / "db.sqlite3"
        self.state = state
        self.callback = f"{self.web}/tiktok/callback/"
        self.browser = Browser()
        self.is_stopping = False
        self._step = 0
        self._servers: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    def step(self, text: str) -> None:
        """Print the next step; raises `Stopped` when it is time to stop."""
        self._go_on()
        self._step += 1
        print(f"{self._step:2}. {text}", flush=True)

    def tour(self, servers: ExitStack) -> None:
        self.prepare()
        command = [
            *("-m", "django_tiktok_business.simulator", "--local-images"),
            *("--port", self.tiktok.rpartition(":")[2], "--app-id", APP_ID),
            *("--redirect-uri", self.callback),
            *(("--state", str(self.state)) if self.state else ()),
        ]
        servers.enter_context(self.server("simulator", command, f"{self.tiktok}/_simulator/state"))
        self.step(f"TikTok, simulated, runs on {self.tiktok}")
        command = ["manage.py", "runserver", "--noreload", urlsplit(self.web).netloc]
        servers.enter_context(self.server("server", command, f"{self.web}/admin/login/"))
        self.step(f"The example project runs on {self.web}")

        self.log_in()
        self.connect("harbour_bakery")
        self.simulate("settings", access_token_lifetime_seconds=SHORT_LIFE_SECONDS)
        self.connect("galaxy.gadgets")
        self.simulate("settings", access_token_lifetime_seconds=DAY_SECONDS)
        self.connect("alpine_velo")
        self.deny()
        self.refresh()
        self.lose_consent()
        self.show_stored_token()
        self.every_state()

    def prepare(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        values = {
            "DEBUG": "True",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "DATABASE_URL": f"sqlite:///{quote(str(self.database))}",
            "TIKTOK_BUSINESS_APP_ID": APP_ID,
            "TIKTOK_BUSINESS_APP_SECRET": "simulator-app-secret-not-real",
            "TIKTOK_BUSINESS_ENCRYPTION_KEYS": secrets.token_urlsafe(48),
            "TIKTOK_BUSINESS_REDIRECT_URI": self.callback,
            "TIKTOK_BUSINESS_AUTHORIZATION_URL": f"{self.tiktok}/v2/auth/authorize",
            "TIKTOK_BUSINESS_API_BASE_URL": f"{self.tiktok}/open_api/v1.3",
            "TIKTOK_BUSINESS_DISABLE_AUTO_AUTH": "True",
            # The tour does not wait ten minutes for TikTok to reject an account once more.
            "TIKTOK_BUSINESS_REJECTION_CONFIRM_SECONDS": "0",
        }
        lines = [f"{name}={value}\n" for name, value in values.items()]
        self.env_file.write_text("".join(lines), encoding="utf-8")
        self.manage("migrate", "--verbosity", "0")
        user, password = LOGIN
        self.manage(
            *("createsuperuser", "--noinput", "--username", user, "--email", "demo@example.org"),
            DJANGO_SUPERUSER_PASSWORD=password,
        )
        self.step(f"A new SQLite database: {_shown(self.database)}")

    def log_in(self) -> None:
        user, password = LOGIN
        path = "/admin/login/"
        page = self.browser.get(f"{self.web}{path}?next={ADMIN_OF_ACCOUNTS}")
        page = self.browser.submit(page, path, username=user, password=password)
        if urlsplit(page.url).path != ADMIN_OF_ACCOUNTS:
            raise DemoError(f'Logging in ended on the page "{page.heading}".')
        self.step(f"Logged in to the admin as {user}")

    def connect(self, username: str) -> None:
        """Connect one of the simulator's accounts, as a person does in a browser."""
        row = self.connected(username)
        self.step(
            f"Connected {row['display_name']} (@{username}, {row['followers_count']:,} followers), "
            f"access token good for {_left(row)}"
        )

    def connected(self, username: str) -> Mapping[str, Any]:
        page = self.at_tiktok()
        page = self.browser.submit(
            page, "/_simulator/consent", account=username, decision="approve"
        )
        row = self.row(username)
        if row is None or urlsplit(page.url).path != f"{ADMIN_OF_ACCOUNTS}{row['id']}/change/":
            raise DemoError(f'Connecting {username} ended on the page "{page.heading}".')
        return row

    def deny(self) -> None:
        known = self.accounts()
        page = self.browser.submit(self.at_tiktok(), "/_simulator/consent", decision="deny")
        if without_query(page.url) != self.callback or self.accounts() != known:
            raise DemoError(f'Denying ended on the page "{page.heading}".')
        self.step(f'Pressed "Deny" once: the page says "{page.heading}", nothing is stored')

    def at_tiktok(self) -> Page:
        """Press "connect" on the site; return TikTok's consent page."""
        change_page = quote(f"{ADMIN_OF_ACCOUNTS}__pk__/change/", safe="")
        page = self.browser.get(f"{self.web}/tiktok/connect/?next={change_page}")
        page = self.browser.submit(page, "/tiktok/connect/")
        if not page.url.startswith(self.tiktok):
            raise DemoError(f'Connecting ended on the page "{page.heading}", not at TikTok.')
        return page

    def refresh(self) -> None:
        self.step("Renewed what expires within 6 hours:")
        self.show(("refresh_tokens",), exit_status=0, counted="refreshed=1")
        row = self.row("galaxy.gadgets")
        if row is None or _seconds_left(row) <= SHORT_LIFE_SECONDS:
            raise DemoError("The command says so, but the token was not renewed.")
        self.remark(f"The token of {row['display_name']} is good for {_left(row)} again.")

    def lose_consent(self) -> None:
        row = self.row("alpine_velo")
        open_id = row["open_id"] if row else ""
        self.simulate("revoke", open_id=open_id)
        self.step("The holder of @alpine_velo removed the app in TikTok:")
        command = ("refresh_tokens", "--account", open_id)
        self.show(command, exit_status=1, counted="reauthorization_required=1")
        self.remark('The account is kept; the admin says "reconnect needed".')

    def show_stored_token(self) -> None:
        row = self.row("harbour_bakery")
        stored = row["access_token"] if row else ""
        if not stored.startswith("ttb1:"):
            raise DemoError("The access token in the database is not encrypted.")
        self.step(f"In the database an access token reads {stored[:40]}...")

    def every_state(self) -> None:
        """Connect more accounts, and bring them into the states of health not yet shown."""
        self.step("More accounts, so that the admin shows every state of health:")
        self.simulate("settings", refresh_token_lifetime_seconds=12 * DAY_SECONDS)
        self.connected("mika_bakes")
        self.remark("@mika_bakes: its consent ends in 12 days")
        self.simulate("settings", refresh_token_lifetime_seconds=365 * DAY_SECONDS)

        row = self.connected("lena.draws")
        self.simulate("faults", fault="code", code=50000, path="/refresh_token/", times=None)
        self.manage("refresh_tokens", "--account", row["open_id"], exit_status=1)
        self.simulate("faults", clear=True)
        self.remark("@lena.draws: TikTok had a fault, so it is tried again")

        row = self.connected("tea_and_code")
        path = f"/tiktok/{row['id']}/disconnect/"
        self.browser.submit(self.browser.get(f"{self.web}{path}"), path)
        self.remark("@tea_and_code: disconnected")

        row = self.row("galaxy.gadgets") or {}
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS)) as connection:
            connection.execute(
                "UPDATE tiktok_business_businessaccount SET access_token = ?, refresh_token = ? "
                "WHERE id = ?",
                (
                    *("ttb1:00000000:" + row[name].rpartition(":")[2] for name in TOKENS),
                    row["id"],
                ),
            )
            connection.commit()
        self.remark("@galaxy.gadgets: encrypted under a key that is gone")

        page = self.browser.get(f"{self.web}{ADMIN_OF_ACCOUNTS}")
        missing = [state for state in EVERY_STATE if f">{state}</span>" not in page.text]
        if missing:
            raise DemoError(f"The admin does not show {', '.join(missing)}.")

    def invite(self) -> None:
        user, password = LOGIN
        python, manage = _shown(Path(sys.executable)), _shown(PROJECT / "manage.py")
        command = shlex.join([python, manage, "refresh_tokens", "--all"])
        print(
            f"\n    Admin     {self.web}/admin/   user: {user}   password: {password}\n"
            f"    Accounts  {self.web}/tiktok/\n"
            f"    Log       {_shown(self.folder / 'server.log')}\n"
            f"    Command   ENV_FILE={shlex.quote(_shown(self.env_file))} {command}\n\n"
            "Ctrl-C stops everything.",
            flush=True,
        )

    def serve(self) -> None:
        """Wait for the signal to stop, or for a server to fail."""
        while True:
            self._go_on()
            time.sleep(0.2)

    # The means

    @property
    def env_file(self) -> Path:
        return self.folder / ".env"

    @property
    def environment(self) -> dict[str, str]:
        """The environment with the project's settings removed and its file named instead."""
        example = (PROJECT / ".env.example").read_text(encoding="utf-8")
        settings = re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in settings and not name.startswith(("TIKTOK_BUSINESS_", "DJANGO_"))
        }
        return {
            **kept,
            "ENV_FILE": str(self.env_file),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        }

    def manage(
        self, *arguments: str, exit_status: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        self._go_on()
        result = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env={**self.environment, **variables},
            capture_output=True,
            encoding="utf-8",
            check=False,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        if result.returncode != exit_status:
            raise DemoError(
                f"manage.py {arguments[0]} ended with exit status {result.returncode}, "
                f"not {exit_status}:\n{result.stdout}{result.stderr}"
            )
        return result

    def show(self, command: Sequence[str], *, exit_status: int, counted: str) -> None:
        """Run a command, check its counts, and print its real output."""
        result = self.manage(*command, exit_status=exit_status)
        if counted not in result.stdout.split():
            raise DemoError(f"The command did not say {counted}:\n{result.stdout}")
        self.remark(f"$ manage.py {shlex.join(command)}")
        for line in result.stdout.splitlines():
            self.remark(line)
        self.remark(f"(exit status {result.returncode})")

    @staticmethod
    def remark(text: str) -> None:
        print(f"    {text}", flush=True)

    def simulate(self, what: str, **values: Any) -> None:
        """Use the simulator's remote control."""
        url = f"{self.tiktok}/_simulator/{what}"
        with requests.Session() as session:
            session.trust_env = False
            session.post(url, json=values, timeout=PATIENCE_SECONDS).raise_for_status()

    def accounts(self) -> dict[str, Mapping[str, Any]]:
        """The rows of the database by username, read without Django: tokens as stored."""
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_SECONDS)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM tiktok_business_businessaccount").fetchall()
        return {row["username"]: dict(row) for row in rows}

    def row(self, username: str) -> Mapping[str, Any] | None:
        return self.accounts().get(username)

    @contextmanager
    def server(self, name: str, command: Sequence[str], url: str) -> Iterator[None]:
        """Run a server inside the block, which starts when ``url`` answers."""
        log_path = self.folder / f"{name}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=PROJECT,
                env={**self.environment, "LOG_LEVEL": "DEBUG"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        try:
            self._servers.append((name, process, log_path))
            self._await(url, name)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _await(self, url: str, name: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with requests.Session() as session:
            session.trust_env = False
            while time.monotonic() < deadline:
                self._go_on()
                try:
                    session.get(url, timeout=PATIENCE_SECONDS).raise_for_status()
                except requests.ConnectionError:
                    time.sleep(0.05)
                else:
                    return
        raise DemoError(f"The {name} does not answer.")

    def _go_on(self) -> None:
        if self.is_stopping:
            raise Stopped
        for name, process, log_path in self._servers:
            if process.poll() is not None:
                lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
                raise DemoError(f"The {name} has ended:\n" + "\n".join(lines[-15:]))


def free_port(wanted: int) -> int:
    """The first port from ``wanted`` on without a listener."""
    for port in range(wanted, min(wanted + 100, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DemoError(f"There is no free port from {wanted} on; choose another: make demo PORT=9000")


def _seconds_left(row: Mapping[str, Any]) -> float:
    expires_at = datetime.fromisoformat(row["access_token_expires_at"]).replace(tzinfo=UTC)
    return (expires_at - datetime.now(UTC)).total_seconds()


def _left(row: Mapping[str, Any]) -> str:
    minutes = round(_seconds_left(row) / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{round(minutes / 60)} hours"


def _shown(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--once", action="store_true", help="end after the tour")
    parser.add_argument(
        "--port", type=_port, default=8000, help="of the site; the next free one when busy (8000)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=PROJECT / ".demo",
        help="for the database and the logs, made anew in a subfolder named by the port",
    )
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="where the simulator keeps its tokens (memory)"
    )
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # names in any script
    demo: Demo | None = None

    def stop(number: int, frame: object) -> None:
        # Only noted: an exception here could come between starting a server and recording it.
        if demo is None:
            raise Stopped
        demo.is_stopping = True

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)
    has_finished = False
    try:
        with ExitStack() as servers:
            print("Everything runs on this machine. TikTok is simulated.\n", flush=True)
            demo = Demo(options.folder.absolute(), options.port, options.state)
            demo.tour(servers)
            has_finished = True
            if not options.once:
                demo.invite()
                demo.serve()
        print("\nDone. Both servers are stopped.")
    except Stopped:
        print("\nStopped." if has_finished else "\nStopped before the end.")
    except (DemoError, PageError, requests.RequestException, OSError, sqlite3.Error) as error:
        reason = str(error)
        if isinstance(error, requests.RequestException):
            # Its text may be the whole URL, with the authorization code.
            url = error.request.url if error.request is not None else None
            reason = f"{type(error).__name__} at {without_query(url or 'an unknown address')}"
        print(f"\nThe demo failed: {reason}", file=sys.stderr)
        if demo is not None:
            print(f"Logs: {_shown(demo.folder)}", file=sys.stderr)
        return 1
    return 0 if has_finished else 1


if __name__ == "__main__":
    sys.exit(main())
