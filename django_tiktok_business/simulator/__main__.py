"""Run the simulator over HTTP: ``python -m django_tiktok_business.simulator --port 8420``.

Exits with status 0 after SIGTERM or Ctrl-C, with 2 if it cannot start.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from .core import Simulator
from .state_file import StateFileError
from .transport import Server, serving
from .wire import Call, Request, Response

_REDIRECT_URIS = (
    "http://127.0.0.1:8000/tiktok/callback/",
    "http://localhost:8000/tiktok/callback/",
)
_STARTED = """TikTok simulator on {base_url}, Ctrl-C stops it. Point the project at it:

TIKTOK_BUSINESS = {{
    "APP_ID": "{app_id}",
    "AUTHORIZATION_URL": "{base_url}/v2/auth/authorize",
    "API_BASE_URL": "{base_url}/open_api/v1.3",
    ...
}}

Registered redirect URLs: {redirect_uris}
Remote control: {base_url}/_simulator/state
Ready.
"""


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise ValueError(text)
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m django_tiktok_business.simulator",
        description="Simulate TikTok's Accounts API on 127.0.0.1.",
    )
    parser.add_argument(
        "--port", type=_port, default=8420, help="0 picks a free one (default: 8420)"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="rotate tokens and kill old ones at once; block for 5 minutes after too many calls",
    )
    parser.add_argument(
        "--rotate", choices=("always", "never"), help="whether a refresh issues a new refresh token"
    )
    parser.add_argument(
        "--latency",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="delay each API response",
    )
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="keep accounts and tokens in this JSON file"
    )
    parser.add_argument(
        "--no-save",
        action="store_true",
        help="only read the state file: for load tests with many accounts",
    )
    parser.add_argument("--app-id", default="7000000000000000001")
    parser.add_argument("--app-secret", default="simulator-app-secret-not-real")
    parser.add_argument(
        "--redirect-uri",
        action="append",
        metavar="URL",
        help=f"register this redirect URL; can be repeated (default: {', '.join(_REDIRECT_URIS)})",
    )
    parser.add_argument(
        "--strict-redirects",
        action="store_true",
        help="follow TikTok's redirect URL rules for this machine too: no http, no port",
    )
    parser.add_argument(
        "--rate-limits",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="40 calls a minute per account and endpoint, 600 per app (default: on)",
    )
    parser.add_argument(
        "--local-images",
        action="store_true",
        help="serve profile pictures here instead of linking to TikTok's CDN",
    )
    parser.add_argument("--quiet", action="store_true", help="do not log calls to stderr")
    return parser


def _log(call: Call) -> None:
    outcome = call.status if call.code is None else call.code
    fault = f" {call.fault}" if call.fault else ""
    sys.stderr.write(f"{call.method} {call.path} {outcome} {call.open_id or '-'}{fault}\n")


def _failed(reason: object) -> int:
    sys.stderr.write(f"simulator: {reason}\n")
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status. Call it from the main thread."""
    options = _parser().parse_args(argv)
    redirect_uris = options.redirect_uri or _REDIRECT_URIS
    settings = {"rotate": options.rotate} if options.rotate else {}

    def handle(request: Request) -> Response:
        return simulator.handle(request)

    # Bind the port before creating the simulator: the picture URLs contain it.
    try:
        server = Server(options.port, handle)
    except OSError as error:
        return _failed(
            f"cannot listen on 127.0.0.1:{options.port}: {error.strerror}; "
            "choose another port with --port"
        )
    with server:
        try:
            simulator = Simulator(
                app_id=options.app_id,
                app_secret=options.app_secret,
                redirect_uris=redirect_uris,
                strict=options.strict,
                strict_redirects=options.strict_redirects,
                state_path=options.state,
                saves_state=not options.no_save,
                on_call=None if options.quiet else _log,
                rate_limits=options.rate_limits,
                latency_seconds=options.latency,
                image_base_url=server.base_url if options.local_images else None,
                **settings,
            )
        except (StateFileError, ValueError) as error:
            return _failed(error)
        stop = threading.Event()
        previous = {
            number: signal.signal(number, lambda *_: stop.set())
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            with serving(server) as base_url:
                sys.stdout.write(
                    _STARTED.format(
                        base_url=base_url,
                        app_id=options.app_id,
                        redirect_uris=", ".join(redirect_uris),
                    )
                )
                sys.stdout.flush()
                stop.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
