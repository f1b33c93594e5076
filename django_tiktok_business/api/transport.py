"""Send one HTTP request with `requests`: bounded in time and size, and without leaking secrets.

The exceptions of `requests` carry the request with its tokens, and their tracebacks run through
frames that hold it as bytes. So this module raises no error but returns one of ours, without cause
or context, whose message holds only the names of the exceptions.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

from django.views.decorators.debug import sensitive_variables

from django_tiktok_business.exceptions import (
    AppConfigurationError,
    ConnectionFailedError,
    ConnectionNotMadeError,
    InvalidResponseError,
    TikTokBusinessError,
)
from django_tiktok_business.masking import SecretBytes

from .envelope import Envelope

if TYPE_CHECKING:
    import requests


MAX_BODY_BYTES = 2 * 1024 * 1024  # the largest answer is a page of comments, far below this
READ_BYTES = 16 * 1024  # at most, in one read
MAX_RETRY_AFTER_SECONDS = 86400.0  # TikTok's longest limit ends at midnight UTC


@dataclass(frozen=True, repr=False)
class Request:
    """One HTTP request. ``secrets``: the values in it that no error may repeat."""

    method: str
    url: str
    query: Mapping[str, Any] | None
    content: SecretBytes | None
    headers: Mapping[str, str]
    secrets: Sequence[str]


class Transport:
    """The connections of one client. Not thread-safe.

    ``timeout`` is in seconds. It bounds connecting to each address of the host, each wait for the
    answer, and once more the whole body, so that a body that trickles in ends after at most twice
    that. The look-up of the host's name and headers that trickle in have no bound: the standard
    library offers no hook for them.
    """

    def __init__(
        self, *, timeout: float, session_factory: Callable[[], requests.Session] | None
    ) -> None:
        self._timeout = timeout
        self._session_factory = session_factory
        self._session: requests.Session | None = None
        self._prepared: dict[tuple[str, str], tuple[requests.PreparedRequest, Any]] = {}

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        self._prepared.clear()

    @sensitive_variables()
    def send(self, request: Request) -> Envelope | TikTokBusinessError:
        """Send a request and return the answer or the error; only the session factory may raise."""
        if self._session is None:
            self._session = self._new_session()
        outer = _is_sending.set(True)
        try:
            with self._response(self._session, request) as response:
                body = self._read(response)
                if isinstance(body, TikTokBusinessError):
                    return body
                retry_after = _seconds(response.headers.get("Retry-After"))
                return Envelope(response.status_code, body, retry_after, request.secrets)
        except Exception as error:  # noqa: BLE001 -- any of them may hold a token
            return self._failure(error)
        finally:
            _is_sending.reset(outer)

    def reach(self, url: str) -> datetime | TikTokBusinessError | None:
        """Make a HEAD request; return the time in the ``Date`` header, None without one.

        Returns an error as `send` does. Any HTTP status will do.
        """
        if self._session is None:
            self._session = self._new_session()
        try:
            with self._session.head(
                url,
                hooks={"response": [*self._session.hooks["response"], _forget_redirect]},
                auth=self._session.auth or _leave_unchanged,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                return _instant(response.headers.get("Date"))
        except Exception as error:  # noqa: BLE001 -- as in send()
            return self._failure(error)

    @sensitive_variables()
    def _response(self, session: requests.Session, request: Request) -> requests.Response:
        common: dict[str, Any] = {
            "hooks": {"response": [*session.hooks["response"], _forget_redirect]},
            # Otherwise .netrc or a URL with a password would add an Authorization header.
            "auth": session.auth or _leave_unchanged,
        }
        options: dict[str, Any] = {
            "timeout": self._timeout,
            "stream": True,
            "allow_redirects": False,  # a redirect would take the token header along
        }
        if request.query or session.auth or not _is_plain(session):
            return session.request(
                request.method,
                request.url,
                params=request.query,
                data=request.content,
                headers=request.headers,
                **common,
                **options,
            )
        # request() would read the environment (proxies, certificates) and parse the URL each time,
        # which takes longer than all the rest of a refresh.
        key = (request.method, request.url)
        if key not in self._prepared:
            from requests import Request as Unprepared

            self._prepared[key] = (
                session.prepare_request(Unprepared(*key, **common)),
                session.merge_environment_settings(request.url, {}, True, None, None),
            )
        template, environment = self._prepared[key]
        prepared = template.copy()
        prepared.headers.update(request.headers)
        prepared.prepare_body(request.content, None)
        return session.send(prepared, **{**environment, **options})

    def _new_session(self) -> requests.Session:
        # Slow to import, and most processes never call TikTok.
        from http.cookiejar import DefaultCookiePolicy

        import requests

        session = (self._session_factory or requests.Session)()
        for name in _LOGGERS_OF_URLLIB3:
            logging.getLogger(name).addFilter(_name_exceptions)  # added once, however often called
        # A cookie from one account's answer must not go with another account's call.
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        return session

    def _read(self, response: requests.Response) -> SecretBytes | TikTokBusinessError:
        if getattr(response.raw, "closed", False):  # a hook of the session has read it
            return SecretBytes(response.content)
        deadline = time.monotonic() + self._timeout
        packed = BytesIO()  # its repr shows nothing; see `_pieces`
        for piece in _pieces(response):
            packed.write(piece)
            if packed.tell() > MAX_BODY_BYTES:
                break
            if time.monotonic() > deadline:
                return self._too_slow()
        encodings = response.headers.get("Content-Encoding", "")
        body = _unpacked(SecretBytes(packed.getvalue()), encodings)
        if len(body) > MAX_BODY_BYTES:
            return InvalidResponseError(
                "TikTok's answer is too large.", http_status=response.status_code
            )
        return body

    def _failure(self, error: Exception) -> TikTokBusinessError:
        names = [type(link).__name__ for link in _chain(error)]
        kind = " / ".join(names)
        if _BAD_URL.intersection(names):
            return AppConfigurationError(
                f"API_BASE_URL, or the address of the proxy, cannot be used: {kind}."
            )
        if _BEFORE_SENDING.intersection(names) and not _MAYBE_SENT.intersection(names):
            return ConnectionNotMadeError(f"TikTok cannot be reached: {kind}.")
        if _TIMEOUT.intersection(names):
            return self._too_slow()
        if _NOT_DECODABLE.intersection(names):
            return InvalidResponseError("TikTok's answer cannot be unpacked.")
        return ConnectionFailedError(
            f"The connection to TikTok broke: {kind}; it may have acted on the request."
        )

    def _too_slow(self) -> ConnectionFailedError:
        return ConnectionFailedError(
            f"TikTok did not answer within {self._timeout:g} seconds; "
            "it may have acted on the request."
        )


# Exceptions of requests, urllib3 and the standard library, by name: the versions of urllib3 define
# them in different places and with different bases. When in doubt, the request was sent.
_BAD_URL = frozenset({"InvalidProxyURL", "InvalidSchema", "InvalidURL", "MissingSchema"})
_BEFORE_SENDING = frozenset(
    {
        "ConnectTimeoutError",
        "NameResolutionError",
        "NewConnectionError",  # refused, no route
        "ProxyError",  # the proxy is unreachable, or refuses the connection
        "SSLCertVerificationError",
    }
)

# With urllib3 1 any error of a connection through a proxy is a ProxyError.
_MAYBE_SENT = frozenset(
    {"BrokenPipeError", "ConnectionAbortedError", "ConnectionResetError", "RemoteDisconnected"}
)
_TIMEOUT = frozenset({"ReadTimeout", "ReadTimeoutError"})
_NOT_DECODABLE = frozenset({"ContentDecodingError", "DecodeError"})


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it wraps; `requests` and urllib3 keep these in three places."""
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return
        yield link
        inner = (getattr(link, "reason", None), getattr(link, "original_error", None), *link.args)
        link = next((value for value in inner if isinstance(value, BaseException)), None)


def _pieces(response: requests.Response) -> Iterator[SecretBytes]:
    """The compressed body as it arrives: no piece takes more than one wait for the network."""
    read1 = getattr(response.raw, "read1", None)
    if read1 is None:  # urllib3 1, whose read() waits until it has all the bytes
        stream = getattr(response.raw, "stream", None)
        pieces = stream(1, decode_content=False) if stream else response.iter_content(1)
        yield from map(SecretBytes, pieces)
        return
    # Should a signal stop the process right here, a report would show this frame's variables.
    while piece := SecretBytes(read1(READ_BYTES, decode_content=False) or b""):
        yield piece


def _unpacked(body: SecretBytes, encodings: str) -> SecretBytes:
    """The decompressed body, cut off when it is larger than any answer.

    urllib3 would wait without limit for enough of a compressed body to decompress something. A
    body that cannot be decompressed is returned as it is: some gateways label plain answers as
    compressed, and parsing shows whether it is one.
    """
    for encoding in reversed(encodings.lower().replace(" ", "").split(",")):
        if encoding in ("deflate", "gzip", "x-gzip"):
            # There are two kinds of deflate, with and without a zlib header.
            is_bare = encoding == "deflate" and body[:1] != b"\x78"
            unpacking = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else 32 + zlib.MAX_WBITS)
            try:
                unpacked = SecretBytes(unpacking.decompress(body, MAX_BODY_BYTES + 1))
            except zlib.error:
                return body
            if not unpacking.eof and len(unpacked) <= MAX_BODY_BYTES:
                return body
            body = unpacked
    return body


_LOGGERS_OF_URLLIB3 = ("urllib3.connection", "urllib3.connectionpool")  # of its versions 2 and 1
_is_sending: ContextVar[bool] = ContextVar("is_sending", default=False)


def _name_exceptions(record: logging.LogRecord) -> bool:
    """Reduce the exceptions that urllib3 logs about our calls to their names.

    urllib3 logs headers that it cannot parse, with all that follows them. When the blank line
    before the body is missing, or a gateway repeats the request, tokens follow.
    """
    if _is_sending.get() and isinstance(record.args, tuple):
        record.args = tuple(
            type(value).__name__ if isinstance(value, Exception) else value for value in record.args
        )
        record.exc_info = None
    return True


def _is_plain(session: requests.Session) -> bool:
    """Whether it is no subclass or wrapper, which may treat each request in its own way."""
    import requests

    return type(session) is requests.Session


def _forget_redirect(response: requests.Response, **_: Any) -> None:
    """Keep `requests` from preparing the redirected request: that would read the whole body."""
    response.headers.pop("Location", None)


def _leave_unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _seconds(header: str | None) -> float | None:
    """The seconds of a Retry-After header, at most a day; None when missing or malformed."""
    if header is None:
        return None
    text = header.strip()
    if text.isdecimal():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    at = _instant(text)
    if at is None:
        return None
    remaining = (at - datetime.now(UTC)).total_seconds()
    return min(max(remaining, 0.0), MAX_RETRY_AFTER_SECONDS)


def _instant(header: str | None) -> datetime | None:
    """The instant of an HTTP date; None when missing or malformed."""
    try:
        at = parsedate_to_datetime(header or "")
    except (ValueError, OverflowError):
        return None
    return at.replace(tzinfo=at.tzinfo or UTC)
