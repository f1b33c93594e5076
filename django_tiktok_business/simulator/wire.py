"""What goes in and out of the simulator: plain requests and answers, no sockets."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

__all__ = [
    "Call",
    "RefusedError",
    "Request",
    "Response",
    "Trace",
    "envelope",
    "json_object",
    "page",
    "plain_text",
    "request_id",
    "single_values",
]

MAX_BODY_BYTES = 1_048_576


@dataclass(frozen=True)
class Request:
    """One HTTP request; header names are lower-case, `path` and `query` still percent-encoded."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The decoded query parameters in order, duplicates included."""
        return parse_qsl(self.query, keep_blank_values=True)


@dataclass
class Response:
    """One HTTP answer.

    `code` is the envelope's code, None for an answer that has no envelope. `breakage` names a
    fault that only a transport can act out; `hold_seconds` is how long such a fault keeps an HTTP
    client waiting.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    code: int | None = None
    breakage: str | None = None
    hold_seconds: float = 0.0


@dataclass(frozen=True)
class Call:
    """One line of the log. Holds no query, header or body: those carry codes, tokens, secrets.

    `code` is the envelope's code (None without an envelope), `at` is Unix seconds on the
    simulator's clock, `fault` the injected fault, `open_id` the account if the call named one.
    """

    method: str
    path: str
    code: int | None
    open_id: str | None
    at: float
    status: int
    fault: str | None = None


@dataclass
class Trace:
    """Collects what the log says about a call before its response exists: the account.

    Separate from `Response`, because a fault may replace the response of a processed request.
    """

    open_id: str | None = None


class RefusedError(Exception):
    """TikTok says no: becomes an envelope with this code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def request_id(now: float) -> str:
    """Return an id as TikTok makes them: 14 digits of UTC time, then 20 upper-case hex digits."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + secrets.token_hex(10).upper()


def envelope(
    code: int, message: str, data: Mapping[str, Any], *, now: float, status: int = 200
) -> Response:
    """Return the JSON envelope of every API answer; HTTP status 200 for errors too."""
    identity = request_id(now)
    document = {"code": code, "message": message, "request_id": identity, "data": data}
    return Response(
        status,
        {"Content-Type": "application/json", "X-TT-LOGID": identity},
        json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"),
        code,
    )


def plain_text(status: int, text: str) -> Response:
    """Return an answer that is not JSON."""
    return Response(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())


def page(html: str, *, status: int = 200) -> Response:
    """Return an HTML page that may load styles and pictures from the simulator only.

    No `form-action`: browsers apply it to the redirect after the form too, which leads to the
    client's own host.
    """
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(status, headers, html.encode())


def json_object(request: Request) -> dict[str, Any]:
    """Return the request's JSON object; raises `RefusedError` 40002 for anything else."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != "application/json":
        raise RefusedError(40002, "Content-Type must be application/json.")
    try:
        document = json.loads(request.body)
    except ValueError:
        raise RefusedError(40002, "The body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise RefusedError(40002, "The body is not a JSON object.")
    return document


def single_values(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters as a dict; raises `ValueError` naming one that comes twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(name)
        values[name] = value
    return values
