"""The routing table: lists the groups of endpoints and finds the one that a request asks for."""

from __future__ import annotations

from django_tiktok_business.simulator.store import Store
from django_tiktok_business.simulator.wire import (
    RefusedError,
    Request,
    Response,
    Trace,
    envelope,
    plain_text,
)

from . import oauth, profile
from .base import API_PREFIX, ApiCall

# To add a group, write its module and list it here.
_GROUPS = (oauth.endpoints, profile.endpoints)
_ROUTES = {endpoint.path: endpoint for group in _GROUPS for endpoint in group}


class Api:
    """Answers API requests. Call it inside `Store.changing`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def answer(self, request: Request, now: float, trace: Trace) -> Response:
        """Answer one request; errors have HTTP status 200, as TikTok sends them.

        Official appendix, doc id 1749734684478466, 2026-11-22. A request with a wrong path, a
        missing trailing slash or a wrong method never reaches the API and gets no JSON.
        """
        endpoint = _ROUTES.get(request.path.removeprefix(API_PREFIX))
        if endpoint is None:
            return plain_text(404, "404 page not found")
        if request.method != endpoint.method:
            return plain_text(405, "405 method not allowed")
        try:
            data = endpoint.respond(ApiCall(self._store, request, now, trace))
        except RefusedError as refusal:
            return envelope(refusal.code, refusal.message, {}, now=now)
        return envelope(0, "OK", data, now=now)
