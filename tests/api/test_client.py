"""The client against the simulator, and against servers that send what no simulator may."""

from __future__ import annotations

import gzip
import json
import logging
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from requests.adapters import BaseAdapter
from urllib3 import exceptions as urllib3_errors

from django_tiktok_business import __version__
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.oauth import OAuth, TokenGrant, TokenInfo
from django_tiktok_business.api.profile import PROFILE_FIELDS, BusinessProfile, Profile
from django_tiktok_business.api.rate_limit import RateLimiter
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    AppConfigurationError,
    AppCredentialsRejectedError,
    AuthorizationCodeRejectedError,
    ConnectionFailedError,
    ConnectionNotMadeError,
    InvalidResponseError,
    PermissionDeniedError,
    RateLimitError,
    ReauthorizationRequired,
    ServerError,
    TikTokBusinessError,
)
from django_tiktok_business.simulator import Simulator
from tests.support import servers
from tests.support.simulated import (
    API,
    APP_ID,
    APP_SECRET,
    PROFILE,
    REDIRECT_URI,
    REFRESH,
    REVOKE,
    TOKEN,
    TOKEN_INFO,
    authorize_url,
    query_of,
)

ACCESS_TOKEN = "act.client-test-a1b2c3!4711.e1"
REFRESH_TOKEN = "rft.client-test-z9y8x7!4712.e1"
GRANT = {
    "access_token": ACCESS_TOKEN,
    "refresh_token": REFRESH_TOKEN,
    "expires_in": 86400,
    "refresh_token_expires_in": 31536000,
    "open_id": "_000ClientTest",
    "scope": "user.info.basic",
}
GRANTED = servers.http(servers.envelope(data=GRANT))
LONG = 8 * 1024 * 1024


@pytest.fixture
def simulator() -> Simulator:
    return Simulator()


def no_limiter() -> RateLimiter:
    """None for the number of calls; a pause that TikTok asks for holds for this one alone."""
    return RateLimiter(0, app_id=uuid.uuid4().hex, cache_alias="default")


@contextmanager
def client_of(
    session_factory: Callable[[], requests.Session] | None = None, **options: Any
) -> Iterator[TikTokClient]:
    """A client that never really sleeps, with a ceiling of its own that bounds nothing."""
    options = {
        "base_url": API,
        "sleep": lambda seconds: None,
        "timeout": 5,
        "limiter": no_limiter(),
        **options,
    }
    client = TikTokClient(APP_ID, APP_SECRET, session_factory=session_factory, **options)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def client(simulator: Simulator) -> Iterator[TikTokClient]:
    with client_of(simulator.session) as client:
        yield client


def code_from(simulator: Simulator) -> str:
    return query_of(simulator.authorize(authorize_url()))["code"]


# The five calls


def test_exchange_gives_a_grant_counted_from_before_the_call(
    simulator: Simulator, client: TikTokClient
) -> None:
    before = datetime.now(UTC)
    grant = OAuth(client).exchange_code(code_from(simulator), redirect_uri=REDIRECT_URI)
    after = datetime.now(UTC)
    assert (grant.access_token, grant.refresh_token) == simulator.live_tokens(str(grant.open_id))
    assert grant.open_id == simulator.open_id("harbour_bakery")
    assert grant.scopes == ["user.info.basic", "user.info.stats", "user.info.username"]
    assert grant.access_token_expires_at is not None
    assert grant.refresh_token_expires_at is not None
    assert before <= grant.access_token_expires_at - timedelta(days=1) <= after
    assert before <= grant.refresh_token_expires_at - timedelta(days=365) <= after


def test_refresh_gives_the_rotated_pair(simulator: Simulator, client: TikTokClient) -> None:
    simulator.configure(rotate="always")
    old = simulator.issue_grant()
    grant = OAuth(client).refresh(old["refresh_token"])
    assert (grant.access_token, grant.refresh_token) == simulator.live_tokens(old["open_id"])
    assert grant.refresh_token != old["refresh_token"]


def test_profile_gives_what_was_asked_for(simulator: Simulator, client: TikTokClient) -> None:
    grant = simulator.issue_grant()
    profile = BusinessProfile(client.authorized(grant["access_token"]), grant["open_id"]).profile(
        list(PROFILE_FIELDS)
    )
    assert profile.username == "harbour_bakery"
    assert None not in vars(profile).values()
    part = BusinessProfile(client.authorized(grant["access_token"]), grant["open_id"]).profile(
        ["username", "is_verified"]
    )
    assert part == Profile(username=profile.username, is_verified=profile.is_verified)


def test_token_info_tells_app_account_and_scopes(
    simulator: Simulator, client: TikTokClient
) -> None:
    grant = simulator.issue_grant(scopes=["video.list", "user.info.basic"])
    assert OAuth(client).token_info(grant["access_token"]) == TokenInfo(
        app_id=APP_ID, open_id=grant["open_id"], scopes=["user.info.basic", "video.list"]
    )


def test_revoke_ends_the_grant(simulator: Simulator, client: TikTokClient) -> None:
    grant = simulator.issue_grant()
    OAuth(client).revoke(grant["access_token"])
    assert simulator.live_tokens(grant["open_id"]) is None


def test_request_reaches_any_endpoint(simulator: Simulator, client: TikTokClient) -> None:
    grant = simulator.issue_grant()
    answer = client.authorized(grant["access_token"]).request(
        "get",
        "business/get",
        query={"business_id": grant["open_id"], "fields": ["username"], "end_date": None},
    )
    assert answer == {"username": "harbour_bakery"}


def test_client_works_on_after_close(simulator: Simulator) -> None:
    grant = simulator.issue_grant()
    with client_of(simulator.session) as client:
        client.close()
        OAuth(client).refresh(grant["refresh_token"])
        client.close()
        client.close()
        OAuth(client).refresh(grant["refresh_token"])


# What is sent


def fields_of(request: bytes) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The request line, the headers by lower-case name, and the JSON body ({} without one)."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(header.lower().split(": ", 1) for header in lines)
    names = [header.split(":")[0].lower() for header in lines]
    assert len(names) == len(set(names))
    return line, headers, json.loads(body) if body else {}


CALLS: dict[str, Callable[[TikTokClient], Any]] = {
    "exchange": lambda client: OAuth(client).exchange_code("a*0!1", redirect_uri=REDIRECT_URI),
    "refresh": lambda client: OAuth(client).refresh(REFRESH_TOKEN),
    "revoke": lambda client: OAuth(client).revoke(ACCESS_TOKEN),
    "token_info": lambda client: OAuth(client).token_info(ACCESS_TOKEN),
    "profile": lambda client: BusinessProfile(client.authorized(ACCESS_TOKEN), "_0 &1").profile(
        ["username"]
    ),
    "get": lambda client: client.authorized(ACCESS_TOKEN).request(
        "GET",
        "/business/get/",
    ),
    "post": lambda client: client.authorized(ACCESS_TOKEN).request(
        "POST", "business/comment/create/", body={"text": "Danke ö"}
    ),
}
APP = {"client_id": APP_ID, "client_secret": APP_SECRET}
SENT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "exchange": (
        "POST",
        TOKEN,
        {
            **APP,
            "grant_type": "authorization_code",
            "auth_code": "a*0!1",
            "redirect_uri": REDIRECT_URI,
        },
    ),
    "refresh": (
        "POST",
        REFRESH,
        {**APP, "grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN},
    ),
    "revoke": ("POST", REVOKE, {**APP, "access_token": ACCESS_TOKEN}),
    "token_info": ("POST", TOKEN_INFO, {"app_id": APP_ID, "access_token": ACCESS_TOKEN}),
    "profile": ("GET", PROFILE, {}),
    "get": ("GET", "/business/get/", {}),
    "post": ("POST", "/business/comment/create/", {"text": "Danke ö"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_sends_exactly_what_is_documented(name: str) -> None:
    with (
        servers.serving(servers.send(GRANTED)) as server,
        client_of(base_url=server.base_url + "/") as client,
    ):
        CALLS[name](client)
    line, headers, body = fields_of(server.requests[0])
    method, path, sent = SENT[name]
    assert line.split("?")[0].split(" ")[:2] == [method, "/open_api/v1.3" + path]
    assert body == sent
    assert headers["user-agent"] == f"django_tiktok_business/{__version__}"
    assert headers["accept-encoding"] == "identity"
    assert headers.get("content-type") == ("application/json" if method == "POST" else None)
    with_token = name in ("profile", "get", "post")
    assert headers.get("access-token") == (ACCESS_TOKEN if with_token else None)
    assert not {"authorization", "cookie"} & set(headers)


def test_profile_query_holds_json_text() -> None:
    with (
        servers.serving(servers.send(GRANTED)) as server,
        client_of(base_url=server.base_url) as client,
    ):
        CALLS["profile"](client)
    query = urlsplit(fields_of(server.requests[0])[0].split(" ")[1]).query
    assert parse_qs(query) == {"business_id": ["_0 &1"], "fields": ['["username"]']}


def test_request_query_holds_lists_objects_and_booleans_as_json_text() -> None:
    with (
        servers.serving(servers.send(GRANTED)) as server,
        client_of(base_url=server.base_url) as client,
    ):
        client.authorized(ACCESS_TOKEN).request(
            "GET",
            "business/video/list",
            query={
                "fields": ("item_id", "ä"),
                "filters": {"video_ids": ["7"], "ad_post_only": False},
                "include_replies": True,
                "max_count": 20,
                "cursor": None,
                "text": "a b",
            },
        )
    path, _, query = fields_of(server.requests[0])[0].split(" ")[1].partition("?")
    assert path.endswith("/business/video/list/")
    assert parse_qs(query) == {
        "fields": ['["item_id", "\\u00e4"]'],
        "filters": ['{"video_ids": ["7"], "ad_post_only": false}'],
        "include_replies": ["true"],
        "max_count": ["20"],
        "text": ["a b"],
    }


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "//elsewhere.example/", "business//get", "../v1.2/x", "business/../x"),
        *("business/%2e%2e/x", "business/get?x=1", "business/get#x", "https://elsewhere.example"),
        *("@elsewhere.example", "\\\\elsewhere.example", "business/get/\n", "business/ä", "a b"),
        *("business/.", ".", "business/get;x", "business/get:80"),
    ],
)
def test_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with (
        client_of(lambda: pytest.fail("nothing may be sent")) as client,
        pytest.raises(ValueError, match="Not a path of the Accounts API: "),
    ):
        client.authorized(ACCESS_TOKEN).request(
            "GET",
            path,
        )


@pytest.mark.parametrize("token", ["", "act.a\nb", " act.a", "act.a\r\nX: y", "act.ä", "act.\0"])
def test_token_that_fits_in_no_header_asks_for_a_refresh(token: str) -> None:
    with (
        client_of(lambda: pytest.fail("nothing may be sent")) as client,
        pytest.raises(
            AccessTokenRejectedError, match=r"^What is stored cannot be an access token\.$"
        ),
    ):
        client.authorized(token).request(
            "GET",
            "business/get",
        )


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
        assert "authorization" in fields_of(server.requests[0])[1]
        factory = requests.Session if with_session else None
        with client_of(factory, base_url=server.base_url) as client:
            OAuth(client).refresh(REFRESH_TOKEN)
    assert "authorization" not in fields_of(server.requests[1])[1]


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
    headers = fields_of(server.requests[0])[1]
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
    assert "cookie" not in fields_of(server.requests[1])[1]
    assert server.connections == 1  # the connection is kept all the same


def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.serving(servers.send(GRANTED)) as proxy:
        monkeypatch.setenv("http_proxy", urlsplit(proxy.base_url)._replace(path="").geturl())
        monkeypatch.delenv("no_proxy", raising=False)
        with client_of(base_url="http://tiktok.invalid/open_api/v1.3") as client:
            OAuth(client).refresh(REFRESH_TOKEN)
    assert proxy.requests[0].startswith(b"POST http://tiktok.invalid/open_api/v1.3/tt_user/")


def test_broken_session_factory_is_told_and_asked_again() -> None:
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


# Answers that refuse or cannot be used


@pytest.mark.parametrize("code", [40110, 40115, 40120, 40131])
def test_refused_authorization_code_restarts_the_flow(
    simulator: Simulator, client: TikTokClient, code: int
) -> None:
    simulator.fail_next(code=code, path=TOKEN)
    with pytest.raises(AuthorizationCodeRejectedError):
        OAuth(client).exchange_code("SIMcode", redirect_uri=REDIRECT_URI)


def test_used_authorization_code_restarts_the_flow(
    simulator: Simulator, client: TikTokClient
) -> None:
    code = code_from(simulator)
    OAuth(client).exchange_code(code, redirect_uri=REDIRECT_URI)
    with pytest.raises(AuthorizationCodeRejectedError) as caught:
        OAuth(client).exchange_code(code, redirect_uri=REDIRECT_URI)
    assert caught.value.code == 40131
    assert caught.value.request_id


@pytest.mark.parametrize("bad_refresh_code", [40107, 40131])
def test_unknown_refresh_token_requires_reauthorization(
    simulator: Simulator, client: TikTokClient, bad_refresh_code: int
) -> None:
    simulator.configure(bad_refresh_code=bad_refresh_code)
    with pytest.raises(ReauthorizationRequired) as caught:
        OAuth(client).refresh("rft.nobody")
    assert caught.value.code == bad_refresh_code
    assert caught.value.http_status == 200


@pytest.mark.parametrize("expired_access_code", [40102, 40105])
def test_expired_access_token_asks_for_a_refresh(
    simulator: Simulator, client: TikTokClient, expired_access_code: int
) -> None:
    simulator.configure(expired_access_code=expired_access_code)
    grant = simulator.issue_grant()
    simulator.clock.advance(90_000)
    with pytest.raises(AccessTokenRejectedError) as caught:
        BusinessProfile(client.authorized(grant["access_token"]), grant["open_id"]).profile(
            ["username"]
        )
    assert caught.value.code == expired_access_code


@pytest.mark.parametrize("wrong_secret_code", [40101, 40113])
def test_f9_wrong_app_secret_is_told_apart(simulator: Simulator, wrong_secret_code: int) -> None:
    simulator.configure(wrong_secret_code=wrong_secret_code)
    grant = simulator.issue_grant()
    client = TikTokClient(
        APP_ID,
        "wrong",
        base_url=API,
        limiter=no_limiter(),
        session_factory=simulator.session,
    )
    with pytest.raises(AppCredentialsRejectedError):
        OAuth(client).refresh(grant["refresh_token"])
    client.close()
    assert simulator.count(REFRESH) == 1


def test_account_of_somebody_else_is_denied(simulator: Simulator, client: TikTokClient) -> None:
    grant = simulator.issue_grant()
    with pytest.raises(PermissionDeniedError, match="No permission to operate"):
        BusinessProfile(client.authorized(grant["access_token"]), "_other").profile(["username"])


def test_wrong_base_url_is_a_matter_of_configuration(simulator: Simulator) -> None:
    with (
        client_of(simulator.session, base_url=API + "/typo") as client,
        pytest.raises(AppConfigurationError, match="check API_BASE_URL"),
    ):
        OAuth(client).refresh(REFRESH_TOKEN)


@pytest.mark.parametrize("base_url", ["nonsense", "ftp://127.0.0.1", "https://", "http://a..b:x/"])
def test_base_url_that_is_none_is_a_matter_of_configuration(base_url: str) -> None:
    with (
        client_of(base_url=base_url) as client,
        pytest.raises(
            AppConfigurationError,
            match=r"^API_BASE_URL, or the address of the proxy, cannot be used: ",
        ) as caught,
    ):
        OAuth(client).refresh(REFRESH_TOKEN)
    assert caught.value.code is None


@pytest.mark.parametrize("field", ["access_token", "refresh_token", "open_id"])
@pytest.mark.parametrize("fault", ["missing_field", "empty_field"])
def test_f4_exchange_without_a_needed_field_is_refused(
    simulator: Simulator, client: TikTokClient, fault: str, field: str
) -> None:
    simulator.fail_next(fault, field=field, path=TOKEN)
    with pytest.raises(InvalidResponseError, match=f"has no {field}"):
        OAuth(client).exchange_code(code_from(simulator), redirect_uri=REDIRECT_URI)


@pytest.mark.parametrize("field", ["refresh_token", "open_id", "scope", "expires_in"])
@pytest.mark.parametrize("fault", ["missing_field", "empty_field"])
def test_f4_refresh_without_an_optional_field_gives_the_rest(
    simulator: Simulator, client: TikTokClient, fault: str, field: str
) -> None:
    old = simulator.issue_grant()
    simulator.fail_next(fault, field=field, path=REFRESH)
    grant = OAuth(client).refresh(old["refresh_token"])
    names = {"scope": "scopes", "expires_in": "access_token_expires_at"}
    assert getattr(grant, names.get(field, field)) is None
    live = simulator.live_tokens(old["open_id"])
    assert live is not None
    assert grant.access_token == live[0]


@pytest.mark.parametrize("field", ["creator_id", "scope"])
def test_token_info_without_a_needed_field_is_refused(
    simulator: Simulator, client: TikTokClient, field: str
) -> None:
    grant = simulator.issue_grant()
    simulator.fail_next("missing_field", field=field, path=TOKEN_INFO)
    with pytest.raises(InvalidResponseError, match="lacks creator_id or scope"):
        OAuth(client).token_info(grant["access_token"])


def test_legacy_names_are_understood(simulator: Simulator, client: TikTokClient) -> None:
    simulator.fail_next("legacy_names", path=REFRESH)
    grant = OAuth(client).refresh(simulator.issue_grant()["refresh_token"])
    assert grant.open_id
    assert grant.access_token_expires_at
    assert grant.refresh_token_expires_at


def test_string_code_is_understood(simulator: Simulator, client: TikTokClient) -> None:
    simulator.fail_next("string_code", path=REFRESH)
    assert OAuth(client).refresh(simulator.issue_grant()["refresh_token"]).access_token


@pytest.mark.parametrize(
    ("fault", "details"),
    [
        ("null_data", {}),
        ("wrong_shape", {}),
        ("wrong_shape", {"shape": "document"}),
        ("truncated", {}),
        ("html", {}),
        ("empty", {}),
        ("missing_field", {"field": "access_token"}),
        ("empty_field", {"field": "access_token"}),
        ("altered_field", {"field": "access_token", "value": ["act.a"]}),
        ("altered_field", {"field": "refresh_token", "value": "rft\n.a"}),
        ("altered_field", {"field": "open_id", "value": "a b"}),
        ("http_status", {"http_status": 401, "body": "html"}),
        ("http_status", {"http_status": 403, "body": "empty"}),
    ],
)
def test_f6_refresh_answer_of_another_shape_is_invalid_and_not_repeated(
    simulator: Simulator, client: TikTokClient, fault: str, details: dict[str, Any]
) -> None:
    simulator.fail_next(fault, path=REFRESH, times=None, **details)
    with pytest.raises(InvalidResponseError, match="TikTok's answer cannot be used: "):
        OAuth(client).refresh(simulator.issue_grant()["refresh_token"])
    assert simulator.count(REFRESH) == 1


@pytest.mark.parametrize("fault", ["null_data", "wrong_shape"])
def test_revoke_needs_no_data(simulator: Simulator, client: TikTokClient, fault: str) -> None:
    grant = simulator.issue_grant()
    simulator.fail_next(fault, path=REVOKE)
    OAuth(client).revoke(grant["access_token"])
    assert simulator.live_tokens(grant["open_id"]) is None


@pytest.mark.parametrize("data", [{}, []])
def test_request_without_data_gives_an_empty_object(data: Any) -> None:
    answer = servers.http(servers.envelope(data=data))
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(base_url=server.base_url) as client,
    ):
        assert CALLS["post"](client) == {}


def test_request_with_data_that_is_no_object_is_refused_and_not_repeated() -> None:
    answer = servers.http(servers.envelope(data=["a"]))
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(base_url=server.base_url) as client,
        pytest.raises(InvalidResponseError, match="its data is not an object"),
    ):
        CALLS["get"](client)
    assert len(server.requests) == 1


def test_redirect_is_not_followed_and_its_body_not_waited_for() -> None:
    with servers.serving(servers.send(GRANTED)) as elsewhere:
        redirect = (
            f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.base_url}/x/\r\n"
            f"Content-Length: {LONG}\r\n\r\n"
        )
        with (
            servers.serving(servers.send(redirect.encode() + bytes(LONG))) as server,
            client_of(base_url=server.base_url, max_attempts=1) as client,
            pytest.raises(InvalidResponseError, match="too large") as caught,
        ):
            CALLS["get"](client)
    assert caught.value.http_status == 302
    assert elsewhere.requests == []


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


def outcome(client: TikTokClient) -> TikTokBusinessError:
    with pytest.raises(TikTokBusinessError) as caught:
        OAuth(client).refresh(REFRESH_TOKEN)
    return caught.value


def outcome_at(base_url: str, **options: Any) -> TikTokBusinessError:
    with client_of(base_url=base_url, **options) as client:
        return outcome(client)


NOT_MADE = "TikTok cannot be reached: "
BROKEN = "The connection to TikTok broke: "
MAYBE = "; it may have acted on the request."


def test_refused_connection_was_not_made() -> None:
    with servers.refused_port() as port:
        error = outcome_at(f"http://127.0.0.1:{port}/open_api/v1.3")
    assert type(error) is ConnectionNotMadeError
    assert str(error) == (
        "TikTok cannot be reached: ConnectionError / MaxRetryError / NewConnectionError."
    )


def test_unknown_host_was_not_reached() -> None:
    error = outcome_at("https://nothing.invalid/open_api/v1.3")
    assert type(error) is ConnectionNotMadeError
    assert str(error).startswith(NOT_MADE)


def test_f52_connection_that_is_not_accepted_ends_after_the_timeout() -> None:
    with servers.unaccepting_port() as port:
        started = time.monotonic()
        error = outcome_at(f"http://127.0.0.1:{port}", timeout=0.2, max_attempts=2)
        assert time.monotonic() - started < 20  # the system would try for two minutes
    assert type(error) is ConnectionNotMadeError
    assert "ConnectTimeoutError" in str(error)


def test_proxy_out_of_reach_was_not_made() -> None:
    def session(port: int) -> requests.Session:
        session = requests.Session()
        session.proxies = {"https": f"http://127.0.0.1:{port}"}
        return session

    with servers.refused_port() as port:
        error = outcome_at(API, session_factory=lambda: session(port))
    assert type(error) is ConnectionNotMadeError
    assert "ProxyError" in str(error)


def test_proxy_that_refuses_was_not_made() -> None:
    def session(url: str) -> requests.Session:
        session = requests.Session()
        session.proxies = {"https": url}
        return session

    refusal = servers.http(b"", status="407 Proxy Authentication Required")
    with servers.serving(servers.send_and_close(refusal)) as proxy:
        error = outcome_at(API, session_factory=lambda: session(proxy.base_url[:-14]))
    assert type(error) is ConnectionNotMadeError
    assert b"Access-Token" not in b"".join(proxy.requests)


def test_f52_silence_ends_after_the_timeout() -> None:
    with servers.serving(servers.stay_silent) as server:
        started = time.monotonic()
        error = outcome_at(server.base_url, timeout=0.2)
        assert time.monotonic() - started < 8  # the server hangs up after 10 seconds
    assert type(error) is ConnectionFailedError
    assert str(error) == f"TikTok did not answer within 0.2 seconds{MAYBE}"
    assert len(server.requests) == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"Content-Length: 10000\r\n\r\n", b"{"),
        (HEAD + b"Content-Length: 10000\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"{"),
         gzip.compress(b" ")),
        (HEAD + b"Content-Length: 10000\r\nContent-Encoding: gzip\r\n\r\n"
         + b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", b"a"),
        (HEAD + b"Content-Length: 10000\r\nContent-Encoding: deflate\r\n\r\n\x78\x9c",
         b"\0\0\0\xff\xff"),
        (HEAD + b"\r\n", b"{"),
        (CHUNKED, b"1\r\n{\r\n"),
        (CHUNKED + b"2000\r\n", b"{"),
    ],
    ids=["length", "gzip", "gzip_name", "empty_blocks", "until_close", "chunks", "one_chunk"],
)  # fmt: skip
@pytest.mark.parametrize("urllib3_version", [1, 2])
def test_f52_body_that_trickles_in_is_given_up(
    start: bytes, piece: bytes, urllib3_version: int
) -> None:
    factory = requests.Session if urllib3_version == 2 else session_without_read1
    with servers.serving(servers.drip(start, piece, 0.03)) as server:
        started = time.monotonic()
        error = outcome_at(server.base_url, timeout=0.2, session_factory=factory)
        assert time.monotonic() - started < 8  # the shortest body takes 14 seconds
    assert type(error) is ConnectionFailedError
    assert str(error) == f"TikTok did not answer within 0.2 seconds{MAYBE}"


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
        error = outcome_at(server.base_url)
        requests_seen = len(server.requests)
    assert isinstance(error, ConnectionFailedError | InvalidResponseError)
    assert not isinstance(error, ConnectionNotMadeError)
    assert words in str(error)
    assert requests_seen == 1


def test_reset_connection_may_have_been_acted_on() -> None:
    with servers.serving(servers.reset) as server:
        error = outcome_at(server.base_url)
    assert type(error) is ConnectionFailedError
    assert str(error) == (f"{BROKEN}ConnectionError / ProtocolError / ConnectionResetError{MAYBE}")
    assert len(server.requests) == 1


def test_untrusted_certificate_gets_no_request(tmp_path: Path) -> None:
    context, _ = servers.self_signed(tmp_path)
    with servers.serving(servers.send(GRANTED), context) as server:
        error = outcome_at(server.base_url)
    assert type(error) is ConnectionNotMadeError
    assert "SSLCertVerificationError" in str(error)
    assert server.requests == []


def test_certificate_of_another_host_gets_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, path = servers.self_signed(tmp_path, host="elsewhere.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", path)
    with servers.serving(servers.send(GRANTED), context) as server:
        error = outcome_at(server.base_url)
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
        error = outcome_at(server.base_url.replace("http:", "https:"), timeout=0.3)
    assert isinstance(error, ConnectionFailedError)
    assert all(b"rft." not in request for request in server.requests)


@pytest.mark.parametrize("fault", ["connection_refused", "dns_failure", "tls_failure"])
def test_simulated_failure_before_sending_is_repeated(
    simulator: Simulator, client: TikTokClient, fault: str
) -> None:
    simulator.fail_next(fault, times=2, path=REFRESH)
    assert OAuth(client).refresh(simulator.issue_grant()["refresh_token"]).access_token
    assert simulator.count(REFRESH) == 3


# Bodies that are large or packed


@pytest.mark.parametrize("head", [f"Content-Length: {LONG}", "Connection: close"])
def test_body_that_is_too_large_is_not_read_to_its_end(head: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + b"x" * LONG
    with servers.serving(servers.send_and_close(answer)) as server:
        error = outcome_at(server.base_url)
    assert type(error) is InvalidResponseError
    assert str(error) == "TikTok's answer is too large."


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-Gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare),
        ("identity, deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("urllib3_version", [1, 2])
def test_answer_packed_without_being_asked_for_is_unpacked(
    urllib3_version: int, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    factory = requests.Session if urllib3_version == 2 else session_without_read1
    packed = pack(servers.envelope(data={**GRANT, "padding": "x" * 100_000}))
    answer = servers.http(packed, headers=[f"Content-Encoding: {encoding}"])
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(factory, base_url=server.base_url) as client,
    ):
        assert OAuth(client).refresh(REFRESH_TOKEN).access_token == ACCESS_TOKEN


def test_bomb_is_not_unpacked_to_its_end() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(64)) + packer.flush()
    answer = servers.http(bomb, headers=["Content-Encoding: gzip"])
    with servers.serving(servers.send(answer)) as server:
        started = time.process_time()
        error = outcome_at(server.base_url)
        assert time.process_time() - started < 1
    assert str(error) == "TikTok's answer is too large."


def session_that_reads() -> requests.Session:
    session = requests.Session()
    seen: list[bytes] = []
    session.hooks["response"].append(lambda response, **_: seen.append(response.content))
    return session


def test_packed_answer_that_a_hook_has_read_is_used() -> None:
    packed = gzip.compress(servers.envelope(data=GRANT))
    answer = servers.http(packed, headers=["Content-Encoding: gzip"])
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(session_that_reads, base_url=server.base_url) as client,
    ):
        assert OAuth(client).refresh(REFRESH_TOKEN).access_token == ACCESS_TOKEN


def test_answer_that_a_hook_cannot_unpack_is_invalid() -> None:
    answer = servers.http(b"no gzip" * 10, headers=["Content-Encoding: gzip"])
    with servers.serving(servers.send(answer)) as server:
        error = outcome_at(server.base_url, session_factory=session_that_reads)
    assert str(error) == "TikTok's answer cannot be unpacked."


@pytest.mark.parametrize("urllib3_version", [1, 2])
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", b"no gzip" * 10),
        ("deflate", b"\x78"),
        ("gzip", gzip.compress(bytes(999), mtime=0)[:-9]),
        ("br", b"\x0b\x02\x80hello\x03"),
    ],
)
def test_answer_that_cannot_be_unpacked_is_invalid(
    urllib3_version: int, encoding: str, packed: bytes
) -> None:
    factory = requests.Session if urllib3_version == 2 else session_without_read1
    answer = servers.http(packed, headers=[f"Content-Encoding: {encoding}"])
    with servers.serving(servers.send(answer)) as server:
        error = outcome_at(server.base_url, session_factory=factory)
    assert type(error) is InvalidResponseError
    assert str(error) == "TikTok's answer cannot be used: it is not a JSON object."


@pytest.mark.parametrize("label", ["gzip", "deflate", "br", "utf-8", "gzip, gzip"])
def test_plain_answer_with_a_wrong_label_costs_no_token(label: str) -> None:
    answer = servers.http(servers.envelope(data=GRANT), headers=[f"Content-Encoding: {label}"])
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(requests.Session, base_url=server.base_url) as client,
    ):
        assert OAuth(client).refresh(REFRESH_TOKEN).access_token == ACCESS_TOKEN


# What is repeated, and when

READS = ["profile", "get", "token_info", "revoke"]
NEVER_SENT = ["connection_refused", "dns_failure", "tls_failure", "timeout_before"]
SENT_FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("timeout_after", {}),
    ("reset_after", {}),
    ("cut_off", {}),
]
ANSWERED: list[tuple[str, dict[str, Any]]] = [
    ("code", {"code": 50000}),
    ("code", {"code": 51065}),
    ("code", {"code": 60001}),
    ("http_status", {"http_status": 502}),
]
LIMITED: list[tuple[str, dict[str, Any]]] = [
    ("rate_limited", {"message": "App reaches the QPS limit."}),
    ("http_429", {"retry_after": 1}),
    ("code", {"code": 61000}),
]
INVALID: list[tuple[str, dict[str, Any]]] = [("html", {}), ("empty", {}), ("truncated", {})]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("code", {"code": 40105}),
    ("code", {"code": 40113}),
    ("code", {"code": 40002}),
    ("code", {"code": 99999}),
    ("http_status", {"http_status": 404}),
]
BEFORE: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in NEVER_SENT]
ALL_FAULTS = BEFORE + SENT_FAULTS + ANSWERED + LIMITED + INVALID + REFUSED
# Which call is repeated on what; everything else is tried once.
REPEATED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "exchange": [],
    "refresh": BEFORE + ANSWERED + LIMITED,
    "post": BEFORE + LIMITED,
    **dict.fromkeys(READS, BEFORE + SENT_FAULTS + ANSWERED + LIMITED + INVALID),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("fault", "details"), ALL_FAULTS, ids=[f"{name}-{details}" for name, details in ALL_FAULTS]
)
def test_f54_call_is_repeated_only_where_that_is_safe(
    simulator: Simulator, name: str, fault: str, details: dict[str, Any]
) -> None:
    pauses: list[float] = []
    simulator.fail_next(fault, times=None, **details)
    with (
        client_of(simulator.session, sleep=pauses.append, max_attempts=4) as client,
        pytest.raises(TikTokBusinessError),
    ):
        CALLS[name](client)
    tries = 4 if (fault, details) in REPEATED[name] else 1
    assert len(simulator.calls) == tries
    assert len(pauses) == tries - 1


@pytest.mark.parametrize("max_attempts", [1, 2, 10])
def test_number_of_tries_is_bounded(simulator: Simulator, max_attempts: int) -> None:
    simulator.fail_next(http_status=503, times=None)
    with (
        client_of(simulator.session, max_attempts=max_attempts) as client,
        pytest.raises(ServerError),
    ):
        OAuth(client).refresh(REFRESH_TOKEN)
    assert len(simulator.calls) == max_attempts


def test_pauses_grow_with_jitter_up_to_a_bound(simulator: Simulator) -> None:
    pauses: list[float] = []
    simulator.fail_next("connection_refused", times=None)
    with client_of(simulator.session, sleep=pauses.append, max_attempts=10) as client:
        for _ in range(5):
            assert type(outcome(client)) is ConnectionNotMadeError
    rounds = [pauses[start : start + 9] for start in range(0, 45, 9)]
    for one in rounds:
        for number, pause in enumerate(one):
            assert min(0.25 * 2**number, 10) <= pause <= min(0.5 * 2**number, 10)
    assert len({one[0] for one in rounds}) > 1  # workers do not come back together


def test_pause_after_too_many_calls_is_at_least_a_second(simulator: Simulator) -> None:
    pauses: list[float] = []
    simulator.fail_next("rate_limited", message="App reaches the QPS limit.", times=None)
    with client_of(simulator.session, sleep=pauses.append) as client:
        assert type(outcome(client)) is RateLimitError
    # What is left of the one second, of which no test waits for any.
    assert [0.5 < pause <= 1 for pause in pauses] == [True, True]


def limited_by(header: str, *, status: str = "429 Too Many") -> bytes:
    return servers.http(servers.envelope(40100), status=status, headers=[f"Retry-After: {header}"])


def pauses_after(answer: bytes) -> tuple[list[float], TokenGrant]:
    """How long the client pauses before it comes back and gets its tokens."""
    pauses: list[float] = []
    with (
        servers.serving(servers.send(answer, GRANTED)) as server,
        client_of(base_url=server.base_url, sleep=pauses.append) as client,
    ):
        return pauses, OAuth(client).refresh(REFRESH_TOKEN)


@pytest.mark.parametrize("header", ["3", " 3 ", "10", "0003"])
def test_retry_after_in_seconds_is_obeyed(header: str) -> None:
    pauses, grant = pauses_after(limited_by(header))
    assert pauses == [pytest.approx(float(header), abs=0.5)]
    assert grant.access_token == ACCESS_TOKEN


def test_retry_after_as_a_date_is_obeyed() -> None:
    at = datetime.now(UTC) + timedelta(seconds=9)
    (pause,), _ = pauses_after(limited_by(format_datetime(at, usegmt=True)))
    assert 6 <= pause <= 9
    (pause,), _ = pauses_after(limited_by(at.strftime("%a, %d %b %Y %H:%M:%S -0000")))
    assert 6 <= pause <= 9


@pytest.mark.parametrize("header", ["0", "Sun, 22 Nov 2020 10:00:00 GMT"])
def test_retry_after_that_is_over_pauses_as_usual(header: str) -> None:
    (pause,), _ = pauses_after(limited_by(header))
    assert 0.5 < pause <= 1


ODD_RETRY_AFTER = [
    *("", "soon", "-5", "1e3", "1.5", "Mon, 99 Foo 2026 10:00:00 GMT", "²", "Nov Nov Nov"),
    *("22 999999999999999999999 2026 10:00:00", "0 0 0 0 0", "Sun, 22 Nov 2026 10:00:00 +9999"),
    "22 Nov 2026 10:00:00 +999999999999999999999",
]


@pytest.mark.parametrize("header", ODD_RETRY_AFTER)
def test_retry_after_that_is_nonsense_is_ignored(header: str) -> None:
    (pause,), _ = pauses_after(limited_by(header))
    assert 0.5 < pause <= 1


@pytest.mark.parametrize("header", ["9" * 400, *ODD_RETRY_AFTER])
def test_odd_retry_after_never_costs_a_good_answer(header: str) -> None:
    answer = servers.http(servers.envelope(data=GRANT), headers=[f"Retry-After: {header}"])
    pauses, grant = pauses_after(answer)
    assert (pauses, grant.access_token) == ([], ACCESS_TOKEN)


def test_server_error_with_retry_after_is_waited_for() -> None:
    answer = servers.http(b"busy", status="503 Busy", headers=["Retry-After: 4"])
    assert pauses_after(answer)[0] == [4.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("11", 11), ("300", 300), ("9" * 400, 86400), ("Thu, 22 Nov 2096 10:00:00 GMT", 86400)],
)
def test_long_retry_after_is_told_instead_of_waited_for(header: str, seconds: int) -> None:
    pauses: list[float] = []
    with servers.serving(servers.send(limited_by(header))) as server:
        error = outcome_at(server.base_url, sleep=pauses.append)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == seconds
    assert pauses == []
    assert len(server.requests) == 1


def test_real_sleep_is_the_default(simulator: Simulator) -> None:
    simulator.fail_next("connection_refused", path=REFRESH)
    client = TikTokClient(
        APP_ID,
        APP_SECRET,
        base_url=API,
        limiter=no_limiter(),
        session_factory=simulator.session,
    )
    started = time.monotonic()
    OAuth(client).refresh(simulator.issue_grant()["refresh_token"])
    client.close()
    assert time.monotonic() - started >= 0.25


def paused_limiter() -> RateLimiter:
    """Has no slot for the next five minutes."""
    limiter = no_limiter()
    limiter.refused(RateLimitError("App reaches the QPM limit."), sent_at=clock.now())
    return limiter


def test_reserved_slot_is_used_once_also_by_authorized_clients(simulator: Simulator) -> None:
    grant = simulator.issue_grant()
    with client_of(simulator.session, limiter=paused_limiter()) as client:
        reserved = client.with_slot()
        profile = BusinessProfile(reserved.authorized(grant["access_token"]), grant["open_id"])
        profile.profile(["username"])
        for call in (
            lambda: profile.profile(["username"]),
            lambda: OAuth(reserved).token_info(grant["access_token"]),
            lambda: OAuth(client).token_info(grant["access_token"]),
        ):
            with pytest.raises(RateLimitError, match=r"^No call to TikTok is free within 10 "):
                call()
    assert simulator.count(PROFILE) == len(simulator.calls) == 1


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


class WithoutRead1:
    """A body as urllib3 1 offers it: it can be read, but not as it comes in."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.stream = raw.stream
        self.close = raw.close
        self.release_conn = raw.release_conn


def session_without_read1() -> requests.Session:
    def hide(response: requests.Response, **_: Any) -> None:
        response.raw = WithoutRead1(response.raw)

    session = requests.Session()
    session.hooks["response"].append(hide)
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
    result = outcome_at(API, session_factory=raising(error))
    assert type(result) is ConnectionFailedError
    assert str(result) == f"{BROKEN}{type(error).__name__}{MAYBE}"


def test_reset_through_a_proxy_may_have_been_after_sending() -> None:
    reset = ConnectionResetError(104, "Connection reset by peer")
    broken = urllib3_errors.ProxyError("Cannot connect to proxy.", reset)
    error = outcome_at(API, session_factory=raising(requests.exceptions.ProxyError(broken)))
    assert type(error) is ConnectionFailedError


def test_exception_that_wraps_itself_ends() -> None:
    endless = OSError()
    endless.args = (endless,)
    error = outcome_at(API, session_factory=raising(endless))
    assert str(error) == f"{BROKEN}{' / '.join(['OSError'] * 8)}{MAYBE}"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_order_to_stop_is_obeyed(stop: type[BaseException]) -> None:
    with client_of(raising(stop())) as client, pytest.raises(stop):
        OAuth(client).refresh(REFRESH_TOKEN)


def test_nothing_is_logged_by_the_client_itself(
    simulator: Simulator, client: TikTokClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    simulator.fail_next(http_status=503, path=REFRESH)
    OAuth(client).refresh(simulator.issue_grant()["refresh_token"])
    assert caplog.records == []
