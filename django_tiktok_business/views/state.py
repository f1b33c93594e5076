"""The authorization request, as the session remembers it, and TikTok's response to it.

Starting leaves an `AuthorizationRequest` in the session and a random state in the authorization
URL; TikTok returns the state in its `AuthorizationResponse`. Only the user who started, in that
session, within STATE_MAX_AGE_SECONDS, can use the response, and only once.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from typing import TYPE_CHECKING, TypedDict

from django.contrib.sessions.backends.base import UpdateError
from django.http import QueryDict
from django.utils.crypto import constant_time_compare

from django_tiktok_business import cache as cache_module
from django_tiktok_business.conf import conf
from django_tiktok_business.masking import SECRET_PARAMETER, Secret

if TYPE_CHECKING:
    from django.http import HttpRequest


__all__ = [
    "AuthorizationRequest",
    "AuthorizationResponse",
    "find",
    "is_expired",
    "is_first",
    "is_too_often",
    "save",
    "start",
]

logger = logging.getLogger("tiktok_business")

SESSION_KEY = "tiktok_business_states"
REQUESTS_KEPT = 5  # tabs in which a user may be connecting at once

# Of each event that is counted, for one user within a minute; nobody is that quick. Twice as
# many, at the end of one window and the beginning of the next, are less than the 40 calls a minute
# that TikTok allows for an account.
LIMIT = 15

# Consents for accounts of other users, likewise: each may end a pair of the owner's at TikTok. To
# find that out takes a refresh, which `consents` makes 20 times a minute for an account.
REFUSALS = 3

# With any of these in the query there was no consent, even when a code comes along. TikTok's page
# "OAuth error handling" (developers.tiktok.com, 2026-11-22) names the parameters and the errors;
# other text is not repeated, because anybody can write such a query.
_REFUSALS = ("error", "error_code", "error_description", "error_reason")
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
    """One visit to the consent page, as JSON in the session of who started it."""

    digest: str  # of the state; the state itself is nowhere but on its way through TikTok
    user: str  # primary key
    started_at: int  # Unix seconds
    next_url: str
    redirect_uri: str  # has to be the same, to the letter, when the code is exchanged
    is_answered: bool
    ended_at: str  # the URL that shows the connected account, "" while there is none


def start(request: HttpRequest, *, next_url: str, redirect_uri: str) -> str:
    """Begin an attempt and return its state. Of older ones a handful stays, for other tabs."""
    state = secrets.token_urlsafe(32)
    attempt: AuthorizationRequest = {
        "digest": _digest(state),
        "user": str(request.user.pk),
        "started_at": int(time.time()),
        "next_url": next_url,
        "redirect_uri": redirect_uri,
        "is_answered": False,
        "ended_at": "",
    }
    known = [known for known in request.session.get(SESSION_KEY, []) if not is_expired(known)]
    request.session[SESSION_KEY] = [*known, attempt][-REQUESTS_KEPT:]
    return state


def find(request: HttpRequest, state: str) -> AuthorizationRequest | None:
    """The attempt that ``state`` belongs to; to change it, change it and call `save`."""
    digest = _digest(state)
    found = None
    for attempt in request.session.get(SESSION_KEY, []):  # to the end: the time tells nothing
        if constant_time_compare(attempt["digest"], digest):
            found = attempt
    return found


def is_expired(attempt: AuthorizationRequest) -> bool:
    return time.time() - attempt["started_at"] > conf.STATE_MAX_AGE_SECONDS


def save(request: HttpRequest, attempt: AuthorizationRequest) -> bool:
    """Save the attempt now, not with the response; False when the session could not be saved.

    Then the user is logged out, unless the session is still there and only its store had a fault.
    """
    session = request.session
    # As the session is by now: connecting takes seconds, in which another tab may have started.
    now_stored = type(session)(session.session_key).get(SESSION_KEY, [])
    others = [known for known in now_stored if known["digest"] != attempt["digest"]]
    was_modified = session.modified
    session[SESSION_KEY] = [attempt, *others][-REQUESTS_KEPT:]
    # Nor may the middleware save this once more with the response, after the other tab's start. A
    # session that lives in a cookie marks itself.
    session.modified = was_modified
    try:
        session.save()
    except UpdateError:
        if session.session_key and session.exists(session.session_key):
            logger.warning("The session could not be saved.")
        else:
            session.flush()  # or the middleware would fail to save it, if something changes it
        return False
    return True


def is_first(attempt: AuthorizationRequest) -> bool:
    """Whether no other request is at work on this attempt's answer.

    Two requests at once (a double click, a prefetch) have both read the session before either
    wrote it; the cache lets one of them pass. Where the cache is down or not shared by the
    processes, only the session tells the second from the first.
    """
    key = f"tiktok_business.state.{attempt['digest']}"
    lives_seconds = conf.STATE_MAX_AGE_SECONDS + 60
    return bool(
        cache_module.cached(lambda cache: cache.add(key, 1, timeout=lives_seconds), otherwise=True)
    )


def is_too_often(request: HttpRequest, event: str) -> bool:
    """Count one more ``event`` of this user; True when that is more than LIMIT by now.

    Of the user and not of the session: another session is one login away.
    """
    return not cache_module.allow(event, str(request.user.pk), LIMIT)


def is_first_profile(account_pk: int) -> bool:
    """Whether nobody has connected this account, and read its profile, within the minute.

    Of the account, and whatever came of it: a consent that allows no profile costs several calls,
    and TikTok pauses all calls of an app that asks too much for one account.
    """
    return cache_module.allow("profile", str(account_pk), 1)


def note_refusal(request: HttpRequest) -> None:
    """Count a consent for an account that another user owns; it has cost a refresh to judge it."""
    cache_module.allow("refused_consent", str(request.user.pk), REFUSALS)


def is_refused_too_often(request: HttpRequest) -> bool:
    return cache_module.is_exhausted("refused_consent", str(request.user.pk), REFUSALS)


def _digest(state: str) -> str:
    # A charset that the request names can decode to what UTF-8 does not encode.
    return hashlib.sha256(state.encode(errors="replace")).hexdigest()


class AuthorizationResponse:
    """What TikTok put into the query of the redirect. Taking it removes it from the request.

    From then on no error report, log line or middleware finds the code there, and neither do the
    access logs that gunicorn and uvicorn write, from the same mappings, when all is done.
    """

    def __init__(self, request: HttpRequest) -> None:
        query = request.GET
        self.is_ambiguous = any(len(values) > 1 for _, values in query.lists())
        self.state = Secret(query.get("state", ""))
        # TikTok's documentation calls it both, other TikTok products send both.
        self.code = Secret(query.get("code") or query.get("auth_code") or "")
        self.is_refusal = any(name in query for name in _REFUSALS)
        error = query.get("error", "")
        self.reason = error if error in _KNOWN_ERRORS else "reason unknown"
        request.GET = QueryDict()
        sent = request.META.get("QUERY_STRING") or "?"
        request.META["QUERY_STRING"] = ""
        # Servers keep the whole address beside it, and some proxies send it in a header, in their
        # own spelling. A cookie belongs to this site, and the session may not have been read yet.
        for name, value in request.META.items():
            if isinstance(value, str) and name != "HTTP_COOKIE":
                request.META[name] = _without_answer(value, sent)
        request.__dict__.pop("headers", None)  # made of them when it was first asked for
        if (scope := getattr(request, "scope", None)) is not None:
            scope["query_string"] = b""
            scope["headers"] = [
                (name, _without_answer(value.decode("latin-1"), sent).encode("latin-1"))
                if name != b"cookie"
                else (name, value)
                for name, value in scope["headers"]
            ]


def _without_answer(header: str, sent: str) -> str:
    """``header`` up to the query that it repeats, ``sent`` as it was or otherwise spelled."""
    found = SECRET_PARAMETER.search(header)
    if found is None and sent not in header:
        return header
    return header[: found.start() if found else None].partition("?")[0]
