"""Sessions of the transport, and the errors it makes of connections that fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import BaseAdapter
from urllib3 import exceptions as urllib3_errors

from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.api.profile import BusinessProfile
from django_tiktok_business.exceptions import (
    AppConfigurationError,
    ConnectionFailedError,
    ConnectionNotMadeError,
    InvalidResponseError,
    ReauthorizationRequired,
)
from django_tiktok_business.simulator import Simulator
from tests.support import servers
from tests.support.clients import (
    ACCESS_TOKEN,
    CALLS,
    GRANT,
    GRANTED,
    REFRESH_TOKEN,
    client_of,
    parsed,
    refresh_error_at,
)
from tests.support.simulator_calls import API

# Sessions


@pytest.mark.parametrize("with_session", [True, False])
def test_netrc_adds_no_authorization(
    with_session: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with servers.serving(servers.send(GRANTED)) as server:
        requests.get(server.base_url, timeout=5)
        assert "authorization" in parsed(server.requests[0])[1]
        factory = requests.Session if with_session else None
        with client_of(factory, base_url=server.base_url) as client:
            OAuth(client).refresh(REFRESH_TOKEN)
    assert "authorization" not in parsed(server.requests[1])[1]


def test_session_of_the_project_keeps_its_own_settings() -> None:
    seen = []

    def session() -> requests.Session:
        session = requests.Session()
        session.auth = ("gateway", "password")
        session.headers["X-Gateway"] = "1"
        session.cookies.set("gateway", "in")
        session.hooks["response"].append(lambda response, **_: seen.append(response.content))
        return session

    with (
        servers.serving(servers.send(GRANTED)) as server,
        client_of(session, base_url=server.base_url) as client,
    ):
        grant = OAuth(client).refresh(REFRESH_TOKEN)
    headers = parsed(server.requests[0])[1]
    assert headers["authorization"].startswith("basic ")
    assert (headers["x-gateway"], headers["cookie"]) == ("1", "gateway=in")
    assert seen == [servers.envelope(data=GRANT)]
    assert grant.access_token == ACCESS_TOKEN  # although the hook has read the body before


def test_f35_cookies_of_one_answer_do_not_go_with_the_next_call() -> None:
    answer = servers.http(servers.envelope(data=GRANT), headers=["Set-Cookie: who=first; Path=/"])
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(base_url=server.base_url) as client,
    ):
        OAuth(client).refresh(REFRESH_TOKEN)
        BusinessProfile(client.authorized(ACCESS_TOKEN), "_1").profile(["username"])
    assert "cookie" not in parsed(server.requests[1])[1]
    assert server.connections == 1  # the connection is kept all the same


def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.serving(servers.send(GRANTED)) as proxy:
        monkeypatch.setenv("http_proxy", urlsplit(proxy.base_url)._replace(path="").geturl())
        monkeypatch.delenv("no_proxy", raising=False)
        with client_of(base_url="http://tiktok.invalid/open_api/v1.3") as client:
            OAuth(client).refresh(REFRESH_TOKEN)
    assert proxy.requests[0].startswith(b"POST http://tiktok.invalid/open_api/v1.3/tt_user/")


def test_error_of_the_session_factory_is_raised_and_the_next_call_asks_again() -> None:
    tries: list[int] = []

    def session() -> requests.Session:
        tries.append(1)
        if len(tries) == 1:
            raise LookupError("no proxy today")
        return Simulator().session()

    with client_of(session) as client:
        with pytest.raises(LookupError, match="no proxy today"):
            OAuth(client).refresh(REFRESH_TOKEN)
        with pytest.raises(ReauthorizationRequired):  # the second session reaches the simulator
            OAuth(client).refresh(REFRESH_TOKEN)


@pytest.mark.parametrize("base_url", ["nonsense", "ftp://127.0.0.1", "https://", "http://a..b:x/"])
def test_malformed_base_url_is_a_configuration_error(base_url: str) -> None:
    with (
        client_of(base_url=base_url) as client,
        pytest.raises(
            AppConfigurationError,
            match=r"^API_BASE_URL, or the address of the proxy, cannot be used: ",
        ) as caught,
    ):
        OAuth(client).refresh(REFRESH_TOKEN)
    assert caught.value.code is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_takes_no_token_along(status: int) -> None:
    with servers.serving(servers.send(GRANTED)) as elsewhere:
        answer = servers.http(
            b"", status=f"{status} Moved", headers=[f"Location: {elsewhere.base_url}/x/"]
        )
        with (
            servers.serving(servers.send(answer)) as server,
            client_of(base_url=server.base_url, max_attempts=1) as client,
        ):
            for call in CALLS.values():
                with pytest.raises(InvalidResponseError) as caught:
                    call(client)
                assert caught.value.http_status == status
    assert elsewhere.connections == 0


# Connections that fail


NOT_MADE = "TikTok cannot be reached: "
BROKEN = "The connection to TikTok broke: "
MAYBE = "; it may have acted on the request."


def test_refused_connection_was_not_made() -> None:
    with servers.refused_port() as port:
        error = refresh_error_at(f"http://127.0.0.1:{port}/open_api/v1.3")
    assert type(error) is ConnectionNotMadeError
    assert str(error) == (
        "TikTok cannot be reached: ConnectionError / MaxRetryError / NewConnectionError."
    )


def test_unknown_host_was_not_reached() -> None:
    error = refresh_error_at("https://nothing.invalid/open_api/v1.3")
    assert type(error) is ConnectionNotMadeError
    assert str(error).startswith(NOT_MADE)


def test_f52_connection_that_is_not_accepted_ends_after_the_timeout() -> None:
    with servers.unaccepting_port() as port:
        started = time.monotonic()
        error = refresh_error_at(f"http://127.0.0.1:{port}", timeout=0.2, max_attempts=2)
        assert time.monotonic() - started < 20  # the system would try for two minutes
    assert type(error) is ConnectionNotMadeError
    assert "ConnectTimeoutError" in str(error)


def test_proxy_out_of_reach_was_not_made() -> None:
    def session(port: int) -> requests.Session:
        session = requests.Session()
        session.proxies = {"https": f"http://127.0.0.1:{port}"}
        return session

    with servers.refused_port() as port:
        error = refresh_error_at(API, session_factory=lambda: session(port))
    assert type(error) is ConnectionNotMadeError
    assert "ProxyError" in str(error)


def test_proxy_that_refuses_was_not_made() -> None:
    def session(url: str) -> requests.Session:
        session = requests.Session()
        session.proxies = {"https": url}
        return session

    refusal = servers.http(b"", status="407 Proxy Authentication Required")
    with servers.serving(servers.send_and_close(refusal)) as proxy:
        error = refresh_error_at(API, session_factory=lambda: session(proxy.base_url[:-14]))
    assert type(error) is ConnectionNotMadeError
    assert b"Access-Token" not in b"".join(proxy.requests)


def test_f52_silence_ends_after_the_timeout() -> None:
    with servers.serving(servers.stay_silent) as server:
        started = time.monotonic()
        error = refresh_error_at(server.base_url, timeout=0.2)
        assert time.monotonic() - started < 8  # the server hangs up after 10 seconds
    assert type(error) is ConnectionFailedError
    assert str(error) == f"TikTok did not answer within 0.2 seconds{MAYBE}"
    assert len(server.requests) == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "RemoteDisconnected"),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", ""),
        (HEAD + b"Content-Length: 100\r\n\r\n{", "IncompleteRead"),
        (CHUNKED + b"5\r\n{", "IncompleteRead"),
        (CHUNKED + b"5\r\n{    \r\n", "IncompleteRead"),
        (CHUNKED + b"nonsense\r\n{", "IncompleteRead"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "BadStatusLine"),
        (b"\0\1\2\3" * 10, "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "HTTPException"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", "LineTooLong"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{   }", ""),
    ],
)
def test_broken_answer_may_have_been_acted_on(answer: bytes, words: str) -> None:
    with servers.serving(servers.send_and_close(answer)) as server:
        error = refresh_error_at(server.base_url)
        requests_seen = len(server.requests)
    assert isinstance(error, ConnectionFailedError | InvalidResponseError)
    assert not isinstance(error, ConnectionNotMadeError)
    assert words in str(error)
    assert requests_seen == 1


def test_reset_connection_may_have_been_acted_on() -> None:
    with servers.serving(servers.reset) as server:
        error = refresh_error_at(server.base_url)
    assert type(error) is ConnectionFailedError
    assert str(error) == (f"{BROKEN}ConnectionError / ProtocolError / ConnectionResetError{MAYBE}")
    assert len(server.requests) == 1


def test_untrusted_certificate_gets_no_request(tmp_path: Path) -> None:
    context, _ = servers.self_signed(tmp_path)
    with servers.serving(servers.send(GRANTED), context) as server:
        error = refresh_error_at(server.base_url)
    assert type(error) is ConnectionNotMadeError
    assert "SSLCertVerificationError" in str(error)
    assert server.requests == []


def test_certificate_of_another_host_gets_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, path = servers.self_signed(tmp_path, host="elsewhere.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", path)
    with servers.serving(servers.send(GRANTED), context) as server:
        error = refresh_error_at(server.base_url)
    assert type(error) is ConnectionNotMadeError
    assert server.requests == []


def test_trusted_certificate_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, path = servers.self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", path)
    with (
        servers.serving(servers.send(GRANTED), context) as server,
        client_of(base_url=server.base_url) as client,
    ):
        assert OAuth(client).refresh(REFRESH_TOKEN).access_token == ACCESS_TOKEN


def test_plain_http_on_an_https_url_gets_no_request() -> None:
    with servers.serving(servers.send_and_close(GRANTED)) as server:
        error = refresh_error_at(server.base_url.replace("http:", "https:"), timeout=0.3)
    assert isinstance(error, ConnectionFailedError)
    assert all(b"rft." not in request for request in server.requests)


# Sessions with a transport of their own


class ReplyAdapter(BaseAdapter):
    """Answers in process; ``reply`` makes the response or raises."""

    def __init__(self, reply: Callable[[requests.PreparedRequest], requests.Response]) -> None:
        super().__init__()
        self.reply = reply

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        return self.reply(request)

    def close(self) -> None:
        pass


def session_that(
    reply: Callable[[requests.PreparedRequest], requests.Response],
) -> Callable[[], requests.Session]:
    def session() -> requests.Session:
        session = requests.Session()
        session.mount("https://", ReplyAdapter(reply))
        return session

    return session


class PlainFile:
    """The least that a body can be."""

    def __init__(self, content: bytes) -> None:
        self._file = BytesIO(content)
        self.read = self._file.read
        self.close = self._file.close


def test_response_with_a_plain_file_is_read() -> None:
    def reply(request: requests.PreparedRequest) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.raw = PlainFile(servers.envelope(data=GRANT))
        response.request = request
        return response

    with client_of(session_that(reply)) as client:
        assert OAuth(client).refresh(REFRESH_TOKEN).access_token == ACCESS_TOKEN


def raising(error: BaseException) -> Callable[[], requests.Session]:
    def reply(request: requests.PreparedRequest) -> requests.Response:
        raise error

    return session_that(reply)


@pytest.mark.parametrize(
    "error",
    [
        *(ValueError("x"), RuntimeError("x"), UnicodeEncodeError("ascii", "ä", 0, 1, "x")),
        *(OSError(113, "No route"), MemoryError(), requests.RequestException("x")),
        *(urllib3_errors.HTTPError("x"), requests.exceptions.InvalidHeader("x")),
    ],
)
def test_any_other_exception_may_have_been_after_sending(error: Exception) -> None:
    result = refresh_error_at(API, session_factory=raising(error))
    assert type(result) is ConnectionFailedError
    assert str(result) == f"{BROKEN}{type(error).__name__}{MAYBE}"


def test_reset_through_a_proxy_may_have_been_after_sending() -> None:
    reset = ConnectionResetError(104, "Connection reset by peer")
    broken = urllib3_errors.ProxyError("Cannot connect to proxy.", reset)
    error = refresh_error_at(API, session_factory=raising(requests.exceptions.ProxyError(broken)))
    assert type(error) is ConnectionFailedError


def test_exception_that_wraps_itself_ends() -> None:
    endless = OSError()
    endless.args = (endless,)
    error = refresh_error_at(API, session_factory=raising(endless))
    assert str(error) == f"{BROKEN}{' / '.join(['OSError'] * 8)}{MAYBE}"


def test_what_urllib3_logs_about_calls_of_others_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with servers.serving(servers.send(GRANTED)) as server:
        with client_of(base_url=server.base_url) as client:
            OAuth(client).refresh(REFRESH_TOKEN)
        logging.getLogger("urllib3.connectionpool").warning("Failed: %s", LookupError("theirs"))
    assert caplog.messages == ["Failed: theirs"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_exception_that_ends_the_process_is_raised(stop: type[BaseException]) -> None:
    with client_of(raising(stop())) as client, pytest.raises(stop):
        OAuth(client).refresh(REFRESH_TOKEN)
