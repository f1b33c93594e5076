"""Requests, responses and log entries as plain objects, and how TikTok formats them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

MAX_BODY_BYTES = 1_048_576


@dataclass(frozen=True)
class Request:
    """An HTTP request. Header names are lower-case; `path` and `query` are percent-encoded."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The decoded query parameters in order, including duplicates."""
        return parse_qsl(self.query, keep_blank_values=True)


@dataclass
class Response:
    """An HTTP response.

    `code` is the envelope's code, None if there is no envelope. `breakage` names a fault that only
    the transport can simulate; `hold_seconds` is how long it keeps an HTTP client waiting.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    code: int | None = None
    breakage: str | None = None
    hold_seconds: float = 0.0


@dataclass(frozen=True)
class Call:
    """An entry of the log. Holds no query, header or body: they carry codes, tokens and secrets.

    `code` is the envelope's code (None without an envelope), `at` is in Unix seconds on the
    simulator's clock, `fault` is the injected fault, `open_id` the account if it is known.
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
    """A request that TikTok refuses, with the code and message of the response."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def request_id(now: float) -> str:
    """Return an id in TikTok's format: 14 digits of UTC time, then 20 upper-case hex digits."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + secrets.token_hex(10).upper()


def envelope(
    code: int, message: str, data: Mapping[str, Any], *, now: float, status: int = 200
) -> Response:
    """Return a response in TikTok's JSON envelope; errors have HTTP status 200 too."""
    identity = request_id(now)
    document = {"code": code, "message": message, "request_id": identity, "data": data}
    return Response(
        status,
        {"Content-Type": "application/json", "X-TT-LOGID": identity},
        json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"),
        code,
    )


def plain_text(status: int, text: str) -> Response:
    """Return a plain text response."""
    return Response(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())


def page(html: str, *, status: int = 200) -> Response:
    """Return an HTML page that can load styles and pictures from the simulator only.

    The policy has no `form-action`: browsers also apply it to the redirect after the form, which
    leads to the client's host.
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
    """Return the JSON object in the body; raise `RefusedError` 40002 for anything else."""
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
    """Return the parameters as a dict; raise `ValueError` naming one that occurs twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(name)
        values[name] = value
    return values
