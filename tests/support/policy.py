"""The middleware for a content security policy, for Django before 6.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse


def policy_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Send the content security policy of SECURE_CSP, as Django does from 6.0 on."""

    def respond(request: HttpRequest) -> HttpResponse:
        policy: dict[str, list[str]] = getattr(settings, "SECURE_CSP", {})
        parts = [" ".join([name, *sources]) for name, sources in policy.items()]
        response = get_response(request)
        if parts:
            response.headers["Content-Security-Policy"] = "; ".join(parts)
        return response

    return respond
