"""One call of the client: what it sends, when it repeats it, and how long it waits."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs

import pytest

from django_tiktok_business import __version__
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.oauth import OAuth, TokenGrant
from django_tiktok_business.api.profile import BusinessProfile
from django_tiktok_business.api.rate_limit import RateLimiter
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    AppConfigurationError,
    ConnectionNotMadeError,
    InvalidResponseError,
    RateLimitError,
    ServerError,
    TikTokBusinessError,
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
    no_limiter,
    parsed,
    refresh_error,
    refresh_error_at,
)
from tests.support.simulator_calls import (
    API,
    APP_ID,
    APP_SECRET,
    PROFILE,
    REDIRECT_URI,
    REFRESH,
    REVOKE,
    TOKEN,
    TOKEN_INFO,
)

# What a call sends and returns


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
    line, headers, body = parsed(server.requests[0])
    method, path, sent = SENT[name]
    assert line.split("?")[0].split(" ")[:2] == [method, "/open_api/v1.3" + path]
    assert body == sent
    assert headers["user-agent"] == f"django_tiktok_business/{__version__}"
    assert headers["accept-encoding"] == "identity"
    assert headers.get("content-type") == ("application/json" if method == "POST" else None)
    with_token = name in ("profile", "get", "post")
    assert headers.get("access-token") == (ACCESS_TOKEN if with_token else None)
    assert not {"authorization", "cookie"} & set(headers)


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
    path, _, query = parsed(server.requests[0])[0].split(" ")[1].partition("?")
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
        client.authorized(ACCESS_TOKEN).request("GET", path)


@pytest.mark.parametrize("token", ["", "act.a\nb", " act.a", "act.a\r\nX: y", "act.ä", "act.\0"])
def test_token_that_fits_in_no_header_asks_for_a_refresh(token: str) -> None:
    with (
        client_of(lambda: pytest.fail("nothing may be sent")) as client,
        pytest.raises(
            AccessTokenRejectedError, match=r"^What is stored cannot be an access token\.$"
        ),
    ):
        client.authorized(token).request("GET", "business/get")


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


@pytest.mark.parametrize("data", [{}, [], ["a"]])
def test_answer_without_data_is_refused_where_data_is_needed(data: Any) -> None:
    answer = servers.http(servers.envelope(data=data))
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(base_url=server.base_url, max_attempts=1) as client,
    ):
        caller = client.authorized(ACCESS_TOKEN)
        for call in (caller.get, caller.post):
            assert call("business/get", {}, is_data_needed=False).data == {}
            with pytest.raises(InvalidResponseError, match="it has no data"):
                call("business/get", {})


def test_reach_returns_the_time_of_the_host() -> None:
    date = "Date: Sun, 22 Nov 2026 10:00:00 GMT"
    answer = servers.http(b"", status="404 Not Found", headers=[date])
    with servers.serving(servers.send(answer)) as server, client_of() as client:
        for _ in range(2):
            assert client.reach(server.base_url) == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert parsed(server.requests[0])[0].startswith("HEAD /open_api/v1.3 ")


@pytest.mark.parametrize("headers", [[], ["Date: soon"]])
def test_reach_needs_no_time(headers: list[str]) -> None:
    answer = servers.http(b"", headers=headers)
    with servers.serving(servers.send(answer)) as server, client_of() as client:
        assert client.reach(server.base_url) is None


def test_reach_raises_when_no_connection_is_made() -> None:
    with (
        servers.refused_port() as port,
        client_of() as client,
        pytest.raises(ConnectionNotMadeError, match="TikTok cannot be reached: "),
    ):
        client.reach(f"http://127.0.0.1:{port}")


def test_wrong_base_url_is_a_configuration_error(simulator: Simulator) -> None:
    with (
        client_of(simulator.session, base_url=API + "/typo") as client,
        pytest.raises(AppConfigurationError, match="check API_BASE_URL"),
    ):
        OAuth(client).refresh(REFRESH_TOKEN)


def test_nothing_is_logged_by_the_client_itself(
    simulator: Simulator, client: TikTokClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    simulator.fail_next(http_status=503, path=REFRESH)
    OAuth(client).refresh(simulator.issue_grant()["refresh_token"])
    assert caplog.records == []


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


@pytest.mark.parametrize("fault", ["connection_refused", "dns_failure", "tls_failure"])
def test_simulated_failure_before_sending_is_repeated(
    simulator: Simulator, client: TikTokClient, fault: str
) -> None:
    simulator.fail_next(fault, times=2, path=REFRESH)
    assert OAuth(client).refresh(simulator.issue_grant()["refresh_token"]).access_token
    assert simulator.count(REFRESH) == 3


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
            assert type(refresh_error(client)) is ConnectionNotMadeError
    rounds = [pauses[start : start + 9] for start in range(0, 45, 9)]
    for one in rounds:
        for number, pause in enumerate(one):
            assert min(0.25 * 2**number, 10) <= pause <= min(0.5 * 2**number, 10)
    assert len({one[0] for one in rounds}) > 1  # workers do not come back together


def test_pause_after_too_many_calls_is_at_least_a_second(simulator: Simulator) -> None:
    pauses: list[float] = []
    simulator.fail_next("rate_limited", message="App reaches the QPS limit.", times=None)
    with client_of(simulator.session, sleep=pauses.append) as client:
        assert type(refresh_error(client)) is RateLimitError
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
def test_odd_retry_after_does_not_spoil_a_good_answer(header: str) -> None:
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
def test_long_retry_after_is_raised_instead_of_waited_for(header: str, seconds: int) -> None:
    pauses: list[float] = []
    with servers.serving(servers.send(limited_by(header))) as server:
        error = refresh_error_at(server.base_url, sleep=pauses.append)
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


# Slots of the rate limit


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
