"""F34: whatever goes wrong, no error, log record or error report contains a secret."""

from __future__ import annotations

import gzip
import json
import logging
import pickle
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
from django.test import override_settings
from django.utils import timezone
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from django_tiktok_business import services
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.api.profile import BusinessProfile
from django_tiktok_business.api.rate_limit import RateLimiter
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    AppCredentialsRejectedError,
    ConfigurationError,
    InvalidResponseError,
    RateLimitError,
    TikTokBusinessError,
)
from django_tiktok_business.simulator import Simulator
from tests.support import servers
from tests.support.factories import make_account, make_user
from tests.support.leaks import Search, shown_in, shown_of
from tests.support.simulator import override_tiktok, running_simulator
from tests.support.simulator_calls import API, APP_ID, REDIRECT_URI

if TYPE_CHECKING:
    from pathlib import Path

# Module variables: local ones of a test would be in the report on every error that passes it.
ACCESS_TOKEN = "act.Leak+a1/b2=c3*!4711.e1"
REFRESH_TOKEN = "rft.Leak+z9/y8=x7*!4712.e1"
CODE = "LeakCode_aa-BB22*0!5413.e1"
APP_SECRET = "leak-app-secret+5f/6g=7h"
NEW_ACCESS_TOKEN = "act.LeakNew+k1/l2=m3*!4713.e1"
NEW_REFRESH_TOKEN = "rft.LeakNew+n4/o5=p6*!4714.e1"
ODD_TOKEN = "act.LeakOdd+q7/r8=s9*!4715\n.e1"
SECRETS = [ACCESS_TOKEN, REFRESH_TOKEN, CODE, APP_SECRET, NEW_ACCESS_TOKEN, NEW_REFRESH_TOKEN]
# The part of an odd token before its odd character: enough to recognise it.
SECRETS += [ODD_TOKEN.partition("\n")[0]]


leaks_in = Search(SECRETS).found_in


def assert_silent(error: BaseException, records: list[logging.LogRecord]) -> None:
    leaks = {
        where: found
        for where, text in (shown_of(error) | shown_in(records)).items()
        if (found := leaks_in(text))
    }
    assert leaks == {}


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Logs everything, at DEBUG. Its ``records`` belong to the current phase: do not keep them."""
    caplog.set_level(logging.DEBUG)
    return caplog


# What goes wrong


GRANT = {
    "access_token": NEW_ACCESS_TOKEN,
    "refresh_token": NEW_REFRESH_TOKEN,
    "expires_in": 86400,
    "open_id": "_000Leak",
}
GRANTED = servers.envelope(data=GRANT)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = HEAD + f"Content-Length: {len(GRANTED) + 10_000}\r\n\r\n".encode()


def repeating(code: Any, status: str = "200 OK", *, everywhere: bool = False) -> servers.Answering:
    """Answer with the whole request as the message, the request id and a header."""

    def answer(server: servers.RawServer, connection: Any) -> None:
        request = server.requests[-1].decode()
        document = {"code": code, "message": request, "request_id": request[-300:], "data": {}}
        headers = [f"X-Repeated: {quote(request)}"]
        if everywhere:
            document = {"message": request, "data": [request, GRANT]}
            headers += [f"Location: http://elsewhere.invalid/?{quote(request)}"]
        connection.sendall(
            servers.http(json.dumps(document).encode(), status=status, headers=headers)
        )

    return answer


def repeating_raw(server: servers.RawServer, connection: Any) -> None:
    """Send the request back as if it were the answer."""
    connection.sendall(server.requests[-1].rpartition(b"\n")[2] + b"\r\n\r\n")
    connection.close()


def repeating_among_headers(server: servers.RawServer, connection: Any) -> None:
    """Send the request back in a line that is not a header, followed by more."""
    request = server.requests[-1].replace(b"\r\n", b" ")
    connection.sendall(HEAD + b"Content-Length: 2\r\nrejected " + request + b"\r\n\r\n{}")


ANSWERS: dict[str, servers.Answering] = {
    **{f"code {code}": repeating(code) for code in (40001, 40100, 40105, 40107, 40113, 40131)},
    "code 50000": repeating(50000, "500 Broken"),
    "code 99999": repeating("99999"),
    "no code": repeating(None),
    "status 500": repeating(None, "500 Broken"),
    "status 429": repeating(None, "429 Wait"),
    "redirect": repeating(None, "302 Found", everywhere=True),
    "success without data": repeating(0),
    "foreign data": servers.send(servers.http(servers.envelope(data=[GRANT]))),
    "missing field": servers.send(servers.http(servers.envelope(data={**GRANT, "open_id": ""}))),
    "odd access token": servers.send(
        servers.http(servers.envelope(data={**GRANT, "access_token": ODD_TOKEN}))
    ),
    "odd refresh token": servers.send(
        servers.http(servers.envelope(data={**GRANT, "refresh_token": [NEW_REFRESH_TOKEN]}))
    ),
    "odd open id": servers.send(servers.http(servers.envelope(data={**GRANT, "open_id": "a b"}))),
    "not JSON": servers.send(servers.http(GRANTED[1:])),
    "cut JSON": servers.send(servers.http(GRANTED[:-20])),
    "request sent back": repeating_raw,
    "request among the headers": repeating_among_headers,
    "no blank line before the body": servers.send_and_close(
        HEAD + b"{\r\n" + GRANTED[1:] + b"\r\n\r\n"
    ),
    "garbage": servers.send_and_close(NEW_ACCESS_TOKEN.encode() * 10),
    "cut header": servers.send_and_close(HEAD + b"X-Token: " + NEW_ACCESS_TOKEN.encode()),
    "long header": servers.send_and_close(HEAD + NEW_ACCESS_TOKEN.encode() * 5000),
    "two lengths": servers.send_and_close(
        HEAD + b"Content-Length: 1\r\nContent-Length: " + NEW_ACCESS_TOKEN.encode() + b"\r\n\r\n"
    ),
    "bad chunk": servers.send_and_close(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + NEW_ACCESS_TOKEN.encode() + b"\r\n"
    ),
    "cut body": servers.send_and_close(LENGTH + GRANTED),
    "no answer": servers.send_and_close(b""),
    "reset": servers.reset,
    "silence": servers.stay_silent,
    "slow body": servers.drip(LENGTH + GRANTED, b" ", 0.02),
    "large body": servers.send_and_close(LENGTH[:-2] + b"\r\n" + GRANTED * 20_000),
    "not packed": servers.send(
        servers.http(b"\x1f\x8b" + GRANTED, headers=["Content-Encoding: gzip"])
    ),
    "packed and cut": servers.send(
        servers.http(gzip.compress(GRANTED)[:60], headers=["Content-Encoding: gzip"])
    ),
}
CALLS: dict[str, Callable[[TikTokClient], Any]] = {
    "exchange": lambda client: OAuth(client).exchange_code(CODE, redirect_uri=REDIRECT_URI),
    "refresh": lambda client: OAuth(client).refresh(REFRESH_TOKEN),
    "revoke": lambda client: OAuth(client).revoke(ACCESS_TOKEN),
    "token_info": lambda client: OAuth(client).token_info(ACCESS_TOKEN),
    "profile": lambda client: BusinessProfile(client.authorized(ACCESS_TOKEN), "_000Leak").profile(
        ["username"]
    ),
    "post": lambda client: client.authorized(ACCESS_TOKEN).request(
        "POST", "business/comment/create", body={"text": "Hello"}
    ),
}


def error_from(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 -- orders to stop, too
        call()
    return caught.value


def error_of_client(
    call: Callable[[TikTokClient], Any], stack: ExitStack, **options: Any
) -> BaseException:
    limiter = RateLimiter(0, app_id=APP_ID, cache_alias="default")
    options = {"timeout": 0.1, "sleep": lambda seconds: None, "limiter": limiter, **options}
    client = TikTokClient(APP_ID, APP_SECRET, **options)
    stack.callback(client.close)
    return error_from(lambda: call(client))


# An answer that one call cannot use may be complete for another.
TOKEN_FAULTS = ("missing field", "odd access token", "odd refresh token", "odd open id")
FINE = {("missing field", "refresh"), *((wrong, "profile") for wrong in TOKEN_FAULTS)}


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (wrong, name)
        for wrong in ANSWERS
        for name in ("exchange", "refresh", "profile")
        if (wrong, name) not in FINE
    ],
)
def test_f34_no_answer_makes_a_call_leak(
    wrong: str, name: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(servers.serving(ANSWERS[wrong]))
        error = error_of_client(CALLS[name], stack, base_url=server.base_url, max_attempts=2)
    assert isinstance(error, TikTokBusinessError)
    assert error.__cause__ is error.__context__ is None
    assert_silent(error, everything_logged.records)


def unreachable(stack: ExitStack, folder: Path) -> dict[str, str]:
    """Addresses that allow no connection, by what is wrong with them."""
    refused = stack.enter_context(servers.refused_port())
    full = stack.enter_context(servers.unaccepting_port())
    context, _ = servers.self_signed(folder)
    tls = stack.enter_context(servers.serving(servers.send(GRANTED), context))
    return {
        "refused": f"http://127.0.0.1:{refused}",
        "not accepted": f"http://127.0.0.1:{full}",
        "untrusted": tls.base_url,
        "no such host": "https://nothing.invalid/open_api/v1.3",
        "no URL": "nonsense",
    }


@pytest.mark.parametrize("name", CALLS)
def test_f34_no_failed_connection_makes_a_call_leak(
    name: str, everything_logged: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        for base_url in unreachable(stack, tmp_path).values():
            error = error_of_client(CALLS[name], stack, base_url=base_url, max_attempts=2)
            assert isinstance(error, TikTokBusinessError)
            assert error.__cause__ is error.__context__ is None
            assert_silent(error, everything_logged.records)


class TalkativeAdapter(BaseAdapter):
    """Fails with an exception that holds everything about the request."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        seen = f"{dict(request.headers)} {json.loads(request.body or '{}')}"
        if self.error is UnicodeEncodeError:
            raise UnicodeEncodeError("latin-1", seen, 0, 1, seen)
        raise self.error(seen, request, request.headers) from LookupError(seen, request)

    def close(self) -> None:
        pass


def session_with(adapter: BaseAdapter) -> requests.Session:
    session = requests.Session()
    session.mount("https://", adapter)
    return session


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [requests.ConnectionError, ValueError, UnicodeEncodeError])
def test_f34_exception_that_carries_the_request_is_left_behind(
    kind: type[Exception], name: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        error = error_of_client(
            CALLS[name],
            stack,
            base_url=API,
            session_factory=lambda: session_with(TalkativeAdapter(kind)),
        )
    assert isinstance(error, TikTokBusinessError)
    assert error.__cause__ is error.__context__ is None
    assert_silent(error, everything_logged.records)


class StoppedBody(BytesIO):
    """The process gets a signal to stop while it waits for the second half of the body."""

    def read1(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise SystemExit(1)
        return super().read1(len(GRANTED) - 10)


class StoppedAdapter(BaseAdapter):
    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.raw = HTTPResponse(StoppedBody(GRANTED), preload_content=False)
        response.request = request
        return response

    def close(self) -> None:
        pass


@pytest.mark.parametrize("name", CALLS)
def test_f34_order_to_stop_in_the_middle_of_an_answer_shows_nothing_of_it(
    name: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        error = error_of_client(
            CALLS[name],
            stack,
            base_url=API,
            session_factory=lambda: session_with(StoppedAdapter()),
        )
    assert isinstance(error, SystemExit)
    assert_silent(error, everything_logged.records)


def no_session() -> requests.Session:
    raise LookupError("no proxy today")


@pytest.mark.parametrize("name", CALLS)
def test_f34_broken_session_factory_shows_nothing_of_the_call(
    name: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        error = error_of_client(CALLS[name], stack, base_url=API, session_factory=no_session)
    assert isinstance(error, LookupError)
    assert_silent(error, everything_logged.records)


@pytest.mark.parametrize("name", ["exchange", "refresh", "revoke", "token_info"])
def test_f34_debuglevel_of_http_client_prints_no_body(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody debugs the connections; headers are printed, see SECURITY.md."""
    monkeypatch.setattr("http.client.HTTPConnection.debuglevel", 1)
    with ExitStack() as stack:
        server = stack.enter_context(servers.serving(servers.send(servers.http(GRANTED[:-20]))))
        error_of_client(CALLS[name], stack, base_url=server.base_url, max_attempts=1)
    printed = capsys.readouterr().out
    assert "send: b'POST /open_api/v1.3/tt_user/" in printed
    assert "send: <secret>" in printed
    assert leaks_in(printed) == set()


def test_f34_stored_token_that_cannot_be_one_is_not_shown(
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    with ExitStack() as stack:
        error = error_of_client(
            lambda client: client.authorized(ODD_TOKEN).request(
                "GET",
                "business/get",
            ),
            stack,
            base_url=API,
            session_factory=no_session,
        )
    assert isinstance(error, AccessTokenRejectedError)
    assert_silent(error, everything_logged.records)


def test_f34_wrong_path_does_not_show_the_token(
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    with ExitStack() as stack:
        error = error_of_client(
            lambda client: client.authorized(ACCESS_TOKEN).request(
                "GET",
                "../get",
            ),
            stack,
            base_url=API,
        )
    assert isinstance(error, ValueError)
    assert_silent(error, everything_logged.records)


def test_this_module_notices_a_leak(everything_logged: pytest.LogCaptureFixture) -> None:
    def leaking() -> None:
        token = str(ACCESS_TOKEN)
        logging.getLogger("some.package").debug("Token: %s", token)
        raise LookupError(quote(token))

    error = error_from(leaking)
    logged = shown_in(everything_logged.records)
    assert logged
    shown = shown_of(error) | logged
    assert {where for where, text in shown.items() if not leaks_in(text)} == set()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "settings",
    [
        {"APP_SECRET": f"{APP_SECRET} "},
        {"ENCRYPTION_KEYS": APP_SECRET},
        {"ENCRYPTION_KEYS": [APP_SECRET, ""]},
        {"ENCRYPTION_KEYS": ["", APP_SECRET]},
        {"ENCRYPTION_KEYS": [APP_SECRET, f"{APP_SECRET}\n"]},
        {"ENCRYPTION_KEYS": []},
    ],
)
def test_f34_secret_that_is_set_a_little_wrong_is_not_told(settings: dict[str, Any]) -> None:
    account = make_account()
    account.refresh_from_db()
    secret_key = APP_SECRET.encode()

    def use() -> None:
        with override_settings(SECRET_KEY=secret_key), override_tiktok(**settings):
            services.account_client(account)
            assert account.access_token

    error = error_from(use)
    assert isinstance(error, ConfigurationError)
    inner = error.with_traceback(error.__traceback__.tb_next.tb_next)  # type: ignore[union-attr]
    assert_silent(inner, [])


# Errors on their way to another process


@pytest.mark.parametrize("wrong", ["code 40100", "code 50000", "no code", "reset", "code 40131"])
@pytest.mark.parametrize("name", ["exchange", "refresh", "profile"])
def test_error_survives_pickling_with_all_it_tells(wrong: str, name: str) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(servers.serving(ANSWERS[wrong]))
        error = error_of_client(CALLS[name], stack, base_url=server.base_url, max_attempts=1)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.args == error.args


def test_rate_limit_survives_pickling_with_its_pause() -> None:
    limited = servers.http(servers.envelope(40100), headers=["Retry-After: 60"])
    with ExitStack() as stack:
        server = stack.enter_context(servers.serving(servers.send(limited)))
        error = error_of_client(CALLS["refresh"], stack, base_url=server.base_url)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, RateLimitError)
    assert (copy.retry_after, copy.code) == (60.0, 40100)


# Through the services


ERRORS: Mapping[str, tuple[type[TikTokBusinessError], Mapping[str, Any]]] = {
    "refused": (AppCredentialsRejectedError, {"code": 40113}),
    "useless": (InvalidResponseError, {"fault": "truncated"}),
}


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", ERRORS)
def test_f34_failing_connect_shows_nothing_of_the_code(
    wrong: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    user = make_user()
    with running_simulator() as simulator:
        error = failing_service(
            simulator,
            lambda: services.connect_account(user, code=CODE, redirect_uri=REDIRECT_URI),
            ERRORS[wrong][1],
        )
    assert_silent(error, everything_logged.records)


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", ERRORS)
@pytest.mark.parametrize(
    "service",
    [
        services.refresh_account,
        services.sync_profile,
        lambda account: services.account_client(account).token_info(),
    ],
    ids=["refresh_account", "sync_profile", "account_client"],
)
def test_f34_failing_service_shows_nothing_of_the_tokens(
    service: Callable[[Any], Any], wrong: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    account = make_account(access_token=ACCESS_TOKEN, refresh_token=REFRESH_TOKEN)
    kind, details = ERRORS[wrong]
    with running_simulator() as simulator:
        error = failing_service(simulator, lambda: service(account), details)
    assert isinstance(error, kind)
    assert_silent(error, everything_logged.records)
    account.refresh_from_db()
    assert leaks_in(account.last_error_message + account.last_error_request_id) == set()


def failing_service(
    simulator: Simulator, call: Callable[[], Any], details: Mapping[str, Any]
) -> BaseException:
    simulator.fail_next(times=None, **details)
    with override_tiktok(APP_SECRET=APP_SECRET, MAX_ATTEMPTS=1):
        return error_from(call)


@pytest.mark.django_db
def test_f34_what_tiktok_repeats_is_not_stored(
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    account = make_account(
        access_token=ACCESS_TOKEN,
        refresh_token=REFRESH_TOKEN,
        access_token_expires_at=timezone.now() - timedelta(hours=1),
    )
    with (
        servers.serving(repeating(40107)) as server,
        override_tiktok(
            APP_SECRET=APP_SECRET, API_BASE_URL=server.base_url, SESSION_FACTORY_PATH=None
        ),
    ):
        error = error_from(lambda: services.get_access_token(account))
    assert_silent(error, everything_logged.records)
    account.refresh_from_db()
    assert account.status == account.Status.REAUTHORIZATION_REQUIRED
    assert account.last_error_code == 40107
    assert "<secret>" in account.last_error_message
    assert leaks_in(account.last_error_message + account.last_error_request_id) == set()
