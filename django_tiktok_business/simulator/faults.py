"""Injected faults: their names and details, and what each does to the response."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .wire import Response, envelope, plain_text

DEFAULT_HOLD_SECONDS = 30.0

# Each fault with the details it takes. With a fault of the second table the request is processed
# first: the response is lost or altered when tokens may already have rotated.
_REPLACING: Mapping[str, tuple[str, ...]] = {
    "code": ("code", "message", "http_status", "processed"),
    "http_status": ("http_status", "body", "code", "message", "retry_after", "processed"),
    "rate_limited": ("message",),
    "http_429": ("retry_after",),
    "html": ("processed",),
    "empty": ("processed",),
    "timeout_before": ("seconds",),
    "connection_refused": (),
    "dns_failure": (),
    "tls_failure": (),
}
_ALTERING: Mapping[str, tuple[str, ...]] = {
    "timeout_after": ("seconds",),
    "reset_after": (),
    "cut_off": (),
    "truncated": (),
    "null_data": (),
    "string_code": (),
    "wrong_shape": ("shape",),
    "missing_field": ("field",),
    "empty_field": ("field",),
    "altered_field": ("field", "value"),
    "legacy_names": (),
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "code": ("code",),
    "http_status": ("http_status",),
    "missing_field": ("field",),
    "empty_field": ("field",),
    "altered_field": ("field", "value"),
}
_LEGACY_NAMES = {
    "open_id": "creator_id",
    "expires_in": "expires",
    "refresh_token_expires_in": "refresh_expires",
}
_HTML = b"<!DOCTYPE html><html><head><title>TikTok</title></head><body><h1>%s</h1></body></html>"

FAULTS: tuple[str, ...] = (*_REPLACING, *_ALTERING)
# A server that accepts a connection cannot simulate these.
NOT_OVER_HTTP: tuple[str, ...] = ("connection_refused", "dns_failure", "tls_failure")
_BREAKAGES = ("timeout_before", "timeout_after", "reset_after", "cut_off", *NOT_OVER_HTTP)


def _html(status: int, title: bytes) -> Response:
    return Response(status, {"Content-Type": "text/html"}, _HTML % title)


def _fits(name: str, value: Any) -> bool:
    match name:
        case "code":
            return type(value) is int
        case "http_status":
            return type(value) is int and 200 <= value <= 599
        case "seconds":
            return type(value) in (int, float) and 0 <= value < math.inf
        case "body":
            return value in ("html", "json", "empty")
        case "shape":
            return value in ("data", "document")
        case "field":
            return isinstance(value, str | list | tuple)
    return True


@dataclass
class Fault:
    """A fault for the next matching requests; with `times` None it lasts until cleared."""

    name: str
    path: str | None = None
    times: int | None = 1
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(f"unknown fault {self.name!r}; known: {', '.join(FAULTS)}")
        allowed = {**_REPLACING, **_ALTERING}[self.name]
        unknown = sorted(set(self.details) - set(allowed))
        if unknown:
            raise ValueError(f"fault {self.name!r} takes {allowed or 'no details'}, not {unknown}")
        missing = [name for name in _NEEDED.get(self.name, ()) if name not in self.details]
        if missing:
            raise ValueError(f"fault {self.name!r} needs {missing}")
        wrong = [name for name in self.details if not _fits(name, self.details[name])]
        if wrong:
            raise ValueError(f"fault {self.name!r}: wrong value for {wrong}")
        if not isinstance(self.path, str | None):
            raise ValueError(f"path must be the end of a path, or None, not {self.path!r}")
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise ValueError(f"times must be an integer of at least 1, or None, not {self.times!r}")

    @property
    def processed(self) -> bool:
        """Whether the request is processed before its response goes wrong."""
        return self.name in _ALTERING or bool(self.details.get("processed"))

    def matches(self, path: str, is_api: bool) -> bool:
        return is_api if self.path is None else path.endswith(self.path)

    def answer(self, process: Callable[[], Response], now: float) -> Response:
        """Return the faulty response; call `process` only if the request is to be processed."""
        genuine = process() if self.processed else None
        if genuine is not None and self.name in _ALTERING:
            return self._altered(genuine)
        return self._instead(now)

    def _instead(self, now: float) -> Response:
        details = self.details
        if self.name in _BREAKAGES:
            return self._broken(plain_text(503, "no answer"))
        if self.name == "http_status":
            return self._with_http_status(now)
        if self.name == "html":
            return _html(200, b"Please wait")
        if self.name == "empty":
            return Response(200, {"Content-Type": "application/json"})
        if self.name == "code":
            message = details.get("message", f"Simulated failure {details['code']}.")
            status = details.get("http_status", 200)
            return envelope(details["code"], message, {}, now=now, status=status)
        message = details.get(
            "message",
            "Due to too many requests, requests from App are temporarily restricted.",
        )
        if self.name == "rate_limited":
            return envelope(40100, message, {}, now=now)
        response = envelope(40100, message, {}, now=now, status=429)
        return _with_retry_after(response, details.get("retry_after", 60))

    def _with_http_status(self, now: float) -> Response:
        status = self.details["http_status"]
        body = self.details.get("body", "html")
        if body == "html":
            response = _html(status, b"%d" % status)
        elif body == "json":
            code = self.details.get("code", 50000 if status >= 500 else 40000)
            message = self.details.get("message", f"Simulated failure {code}.")
            response = envelope(code, message, {}, now=now, status=status)
        else:
            response = Response(status, {"Content-Type": "text/plain"})
        return _with_retry_after(response, self.details.get("retry_after"))

    def _broken(self, response: Response) -> Response:
        response.breakage = self.name
        if self.name in ("timeout_before", "timeout_after"):
            response.hold_seconds = self.details.get("seconds", DEFAULT_HOLD_SECONDS)
        return response

    def _altered(self, response: Response) -> Response:
        if self.name in _BREAKAGES:
            return self._broken(response)
        if self.name == "truncated":
            response.body = response.body[: len(response.body) // 2]
        elif response.code is not None:
            document = json.loads(response.body)
            self._alter_document(document)
            if self.details.get("shape") == "document":
                document = [document]
            response.body = json.dumps(document).encode()
        return response

    def _alter_document(self, document: dict[str, Any]) -> None:
        content = document["data"]
        names = self.details.get("field", ())
        names = [name for name in ([names] if isinstance(names, str) else names) if name in content]
        if self.name == "null_data":
            document["data"] = None
        elif self.name == "string_code":
            document["code"] = str(document["code"])
        elif self.name == "wrong_shape":
            document["data"] = [content]
        elif self.name == "legacy_names":
            document["data"] = {_LEGACY_NAMES.get(key, key): content[key] for key in content}
        elif self.name == "missing_field":
            for name in names:
                del content[name]
        else:
            for name in names:
                content[name] = self.details.get("value", "")


def _with_retry_after(response: Response, retry_after: Any) -> Response:
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


class Faults:
    """The pending faults, oldest first, and the random ones."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._pending: list[Fault] = []
        self._draw: Callable[[], Fault | None] = lambda: None
        self._random_path: str | None = None

    def add(self, fault: Fault) -> None:
        self._pending.append(fault)

    def add_random(
        self,
        rate: float,
        faults: Iterable[str | tuple[str, Mapping[str, Any]]],
        seed: int | None,
        path: str | None,
    ) -> None:
        """Make matching requests fail with this probability (0 to 1), reproducibly for a seed."""
        choices = [
            Fault(item, path) if isinstance(item, str) else Fault(item[0], path, 1, item[1])
            for item in faults
        ]
        if not choices or not 0 <= rate <= 1:
            raise ValueError("random faults need a rate from 0 to 1 and at least one fault")
        source = random.Random(seed)  # noqa: S311 -- reproducible faults, not secrets
        self._draw = lambda: source.choice(choices) if source.random() < rate else None
        self._random_path = path

    def take(self, path: str, is_api: bool) -> Fault | None:
        """Return the fault for this request, if any, and count it as used."""
        for fault in self._pending:
            if fault.matches(path, is_api):
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        self._pending.remove(fault)
                return fault
        matches = is_api if self._random_path is None else path.endswith(self._random_path)
        return self._draw() if matches else None

    def pending(self) -> list[dict[str, Any]]:
        """Return the pending faults, without the random ones."""
        return [
            {"fault": fault.name, "path": fault.path, "times": fault.times}
            for fault in self._pending
        ]
