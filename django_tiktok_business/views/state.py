"""The authorization request, stored in the session, and TikTok's response to it.

`start` stores an `AuthorizationRequest` in the session and returns a random state for the
authorization URL; TikTok returns the state in its `AuthorizationResponse`. Only the user who
started, in the same session and within STATE_MAX_AGE_SECONDS, can use the response, and only once.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from typing import TypedDict

from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpRequest, QueryDict
from django.utils.crypto import constant_time_compare

from django_tiktok_business import cache
from django_tiktok_business.conf import conf
from django_tiktok_business.masking import SECRET_PARAMETER, Secret

logger = logging.getLogger("tiktok_business")

SESSION_KEY = "tiktok_business_states"
REQUESTS_KEPT = 5  # a user may connect in this many tabs at once

# How often a user may do each thing per minute; no person is that quick. Twice as many, at the end
# of one window and the start of the next, stay below the 40 calls a minute that TikTok allows for
# an account.
LIMIT = 15

# How many consents per minute a user may bring for accounts of other users. Each may invalidate the
# owner's tokens at TikTok; finding out takes a refresh, of which `tokens.connect` makes at most 20
# a minute for an account.
OWNER_CONFLICT_LIMIT = 3

# Any of these in the query means that access was denied, even beside a code. TikTok's page "OAuth
# error handling" (developers.tiktok.com, 2026-11-22) lists the parameters and the errors. Other
# text is not logged, because anybody can write such a query.
_ERROR_PARAMETERS = ("error", "error_code", "error_description", "error_reason")
_KNOWN_ERRORS = {
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
}


class AuthorizationRequest(TypedDict):
    """One visit to the consent page, as JSON in the session of the user who started it."""

    digest: str  # of the state, which itself is stored nowhere
    user: str  # primary key
    started_at: int  # Unix seconds
    next_url: str
    redirect_uri: str  # must be exactly the same when the code is exchanged
    is_answered: bool
    ended_at: str  # where connecting ended, a URL; "" before that


def start(request: HttpRequest, *, next_url: str, redirect_uri: str) -> str:
    """Store a new authorization request and return its state; keep a few others for other tabs."""
    state = secrets.token_urlsafe(32)
    auth_request: AuthorizationRequest = {
        "digest": _digest(state),
        "user": str(request.user.pk),
        "started_at": int(time.time()),
        "next_url": next_url,
        "redirect_uri": redirect_uri,
        "is_answered": False,
        "ended_at": "",
    }
    stored = request.session.get(SESSION_KEY, [])
    others = [other for other in stored if not is_expired(other)]
    request.session[SESSION_KEY] = [*others, auth_request][-REQUESTS_KEPT:]
    return state


def find(request: HttpRequest, state: str) -> AuthorizationRequest | None:
    """Return the authorization request with this ``state``; call `save` after changing it."""
    digest = _digest(state)
    found = None
    # No early exit: the time that this takes must not depend on the state.
    for auth_request in request.session.get(SESSION_KEY, []):
        if constant_time_compare(auth_request["digest"], digest):
            found = auth_request
    return found


def is_expired(auth_request: AuthorizationRequest) -> bool:
    return time.time() - auth_request["started_at"] > conf.STATE_MAX_AGE_SECONDS


def save(request: HttpRequest, auth_request: AuthorizationRequest) -> bool:
    """Save the authorization request now, not with the response; False when that failed.

    Then the user is logged out, unless the session still exists and only its store failed.
    """
    session = request.session
    # Read the session afresh: connecting takes seconds, and another tab may have started meanwhile.
    stored = type(session)(session.session_key).get(SESSION_KEY, [])
    others = [other for other in stored if other["digest"] != auth_request["digest"]]
    was_modified = session.modified
    session[SESSION_KEY] = [auth_request, *others][-REQUESTS_KEPT:]
    # Keep the middleware from saving this again with the response, over what the other tab started.
    # A session in a cookie marks itself as modified.
    session.modified = was_modified
    try:
        session.save()
    except UpdateError:
        if session.session_key and session.exists(session.session_key):
            logger.warning("The session could not be saved.")
        else:
            session.flush()  # the middleware could not save it either, if something modifies it
        return False
    return True


def claim(auth_request: AuthorizationRequest) -> bool:
    """Claim the response for this HTTP request; False when another one has claimed it.

    Two simultaneous requests (a double click, a prefetch) both read the session before either
    writes it; the cache lets one of them pass. Without a cache that the processes share, only the
    session stops the second request.
    """
    key = f"tiktok_business.state.{auth_request['digest']}"
    seconds = conf.STATE_MAX_AGE_SECONDS + 60
    return bool(cache.cached(lambda store: store.add(key, 1, timeout=seconds), otherwise=True))


def allow(request: HttpRequest, event: str) -> bool:
    """Count one more ``event`` of this user; False above LIMIT a minute.

    By user and not by session: a new session is only a login away.
    """
    return cache.allow(event, str(request.user.pk), LIMIT)


def allow_profile_sync(account_pk: int) -> bool:
    """Count a profile sync of this account; False for the second one within a minute.

    Failed ones count too: a consent that does not cover the profile costs several calls, and TikTok
    pauses all calls of an app that makes too many for one account.
    """
    return cache.allow("profile", str(account_pk), 1)


def record_owner_conflict(request: HttpRequest) -> None:
    """Count a consent for an account that another user owns; checking it has cost a refresh."""
    cache.allow("owner_conflict", str(request.user.pk), OWNER_CONFLICT_LIMIT)


def has_too_many_owner_conflicts(request: HttpRequest) -> bool:
    return cache.is_exhausted("owner_conflict", str(request.user.pk), OWNER_CONFLICT_LIMIT)


def _digest(state: str) -> str:
    # With a charset that the request names, a value may decode to text that UTF-8 cannot encode.
    return hashlib.sha256(state.encode(errors="replace")).hexdigest()


class AuthorizationResponse:
    """The parameters in the query of TikTok's redirect; reading them removes them from the request.

    After that, no error report, log line or middleware finds the code there. Nor do the access logs
    that gunicorn and uvicorn write from the same mappings at the end of the request.
    """

    def __init__(self, request: HttpRequest) -> None:
        query = request.GET
        self.is_ambiguous = any(len(values) > 1 for _, values in query.lists())
        self.state = Secret(query.get("state", ""))
        # TikTok's documentation uses both names, and other TikTok products send both.
        self.code = Secret(query.get("code") or query.get("auth_code") or "")
        self.is_denial = any(name in query for name in _ERROR_PARAMETERS)
        error = query.get("error", "")
        self.reason = error if error in _KNOWN_ERRORS else "reason unknown"
        request.GET = QueryDict()
        raw_query = request.META.get("QUERY_STRING") or "?"
        request.META["QUERY_STRING"] = ""
        # Servers also keep the full URL, and some proxies send it in a header, perhaps encoded in
        # another way. The cookie stays: the session may not have been read yet.
        for name, value in request.META.items():
            if isinstance(value, str) and name != "HTTP_COOKIE":
                request.META[name] = _without_query(value, raw_query)
        request.__dict__.pop("headers", None)  # cached when first accessed
        if (scope := getattr(request, "scope", None)) is not None:
            scope["query_string"] = b""
            scope["headers"] = [
                (name, _without_query(value.decode("latin-1"), raw_query).encode("latin-1"))
                if name != b"cookie"
                else (name, value)
                for name, value in scope["headers"]
            ]


def _without_query(header: str, raw_query: str) -> str:
    """``header`` up to the query of the request, whether it repeats it verbatim or re-encoded."""
    found = SECRET_PARAMETER.search(header)
    if found is None and raw_query not in header:
        return header
    return header[: found.start() if found else None].partition("?")[0]
