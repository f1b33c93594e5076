"""The remote control: `Controls` over HTTP under `/_simulator/`, in JSON and without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from .controls import Controls
from .faults import NOT_OVER_HTTP
from .wire import RefusedError, Request, Response, json_object

CONTROL_PREFIX = "/_simulator/"


class RemoteControl:
    """Translates HTTP requests into calls of `Controls`."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._routes: Mapping[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
            ("GET", "state"): lambda _: controls.summary(),
            ("GET", "log"): lambda _: {"calls": [asdict(call) for call in controls.calls]},
            ("POST", "clock"): self._clock,
            ("POST", "faults"): self._faults,
            ("POST", "settings"): self._settings,
            ("POST", "revoke"): self._revoke,
            ("POST", "reset"): self._reset,
        }

    def answer(self, request: Request) -> Response:
        """Answer one request; a 400 response says what is wrong with it."""
        name = request.path.removeprefix(CONTROL_PREFIX).rstrip("/")
        action = self._routes.get((request.method, name))
        if action is None:
            known = any(name == route for _, route in self._routes)
            return _json(
                {"error": "wrong method" if known else "no such page"}, 405 if known else 404
            )
        try:
            # Requiring the JSON content type also keeps out forms that other web sites post.
            document = json_object(request) if request.method == "POST" else {}
            return _json(action(document))
        except RefusedError as refusal:
            return _json({"error": refusal.message}, 400)
        except (LookupError, TypeError, ValueError) as error:
            return _json({"error": f"{type(error).__name__}: {error}"}, 400)

    def _clock(self, document: dict[str, Any]) -> Any:
        match document:
            case {"advance": int() | float() as seconds, **rest} if not rest:
                self._controls.move_clock(advance_seconds=seconds)
            case {"set": int() | float() as unix_seconds, **rest} if not rest:
                self._controls.move_clock(set_to=unix_seconds)
            case _:
                raise ValueError('send {"advance": seconds} or {"set": unix_seconds}')
        return {"now": self._controls.clock.now()}

    def _faults(self, document: dict[str, Any]) -> Any:
        if document == {"clear": True}:
            self._controls.clear_faults()
        elif "random" in document:
            random = dict(document["random"])
            faults = [item if isinstance(item, str) else tuple(item) for item in random["faults"]]
            for item in faults:
                _check_possible(item if isinstance(item, str) else item[0])
            self._controls.fail_randomly(**{**random, "faults": faults})
        else:
            _check_possible(document.get("fault"))
            self._controls.fail_next(**document)
        return {"pending": self._controls.summary()["pending_faults"]}

    def _settings(self, document: dict[str, Any]) -> Any:
        self._controls.configure(**document)
        return {"settings": self._controls.summary()["settings"]}

    def _revoke(self, document: dict[str, Any]) -> Any:
        if set(document) != {"open_id"}:
            raise ValueError('send {"open_id": "..."}')
        return {"revoked": self._controls.revoke_grant(document["open_id"])}

    def _reset(self, document: dict[str, Any]) -> Any:
        if document:
            raise ValueError("send {}")
        self._controls.reset()
        return {"reset": True}


def _check_possible(fault: Any) -> None:
    if fault in NOT_OVER_HTTP:
        raise ValueError(f"{fault!r} cannot be simulated over HTTP; use it in process")


def _json(document: Any, status: int = 200) -> Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Response(status, headers, json.dumps(document).encode())
