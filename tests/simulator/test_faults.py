from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from urllib3 import exceptions as urllib3_errors

from django_tiktok_business.simulator import FAULTS, Simulator
from tests.support.simulator_calls import API, PROFILE, REFRESH, TOKEN_INFO, Caller, caller, frozen

NEEDED_DETAILS: dict[str, dict[str, Any]] = {
    "code": {"code": 50000},
    "http_status": {"http_status": 502},
    "missing_field": {"field": "refresh_token"},
    "empty_field": {"field": "refresh_token"},
    "altered_field": {"field": "open_id", "value": "_000other"},
}
CONNECTION_FAULTS = ("connection_refused", "dns_failure", "tls_failure")
PROCESSED = {
    "timeout_after",
    "reset_after",
    "cut_off",
    "truncated",
    "null_data",
    "string_code",
    "wrong_shape",
    "missing_field",
    "empty_field",
    "altered_field",
    "legacy_names",
}


class Refresher:
    """One connected account in a simulator that rotates, so that a processed refresh shows."""

    def __init__(self) -> None:
        self.simulator = frozen(rotate="always")
        self.client = caller(self.simulator)
        self.open_id = self.simulator.issue_grant()["open_id"]
        self.pair = self.simulator.live_tokens(self.open_id)
        assert self.pair is not None
        self.body = {
            "client_id": self.simulator.app_id,
            "client_secret": "simulator-app-secret-not-real",
            "grant_type": "refresh_token",
            "refresh_token": self.pair[1],
        }

    def refresh(self) -> requests.Response:
        return self.client.session.post(API + REFRESH, json=self.body, timeout=(3, 7))

    @property
    def was_processed(self) -> bool:
        return self.simulator.live_tokens(self.open_id) != self.pair


@pytest.fixture
def refresher() -> Refresher:
    return Refresher()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_happens_once_and_obeys_the_request_or_not(
    refresher: Refresher, fault: str
) -> None:
    refresher.simulator.fail_next(fault, **NEEDED_DETAILS.get(fault, {}))
    try:
        answer = refresher.refresh().json()
        healthy = answer["code"] == 0 and set(refresher.body) & set(answer["data"])
    except (requests.RequestException, ValueError, TypeError):
        healthy = False
    assert refresher.was_processed == (fault in PROCESSED)
    assert bool(healthy) == (fault in ("empty_field", "altered_field", "legacy_names"))
    assert refresher.simulator.calls[-1].fault == fault
    assert refresher.refresh().json()["code"] == 0
    assert refresher.simulator.calls[-1].fault is None


def test_every_fault_has_its_line_in_the_documentation() -> None:
    documentation = sys.modules["django_tiktok_business.simulator"].__doc__ or ""
    assert [fault for fault in FAULTS if f"``{fault}``" not in documentation] == []


# What each connection fault looks like


@pytest.mark.parametrize(
    ("fault", "kind", "reason", "text"),
    [
        (
            "timeout_before",
            requests.ConnectTimeout,
            urllib3_errors.ConnectTimeoutError,
            "Connection to business-api.tiktok.com timed out. (connect timeout=3)",
        ),
        (
            "connection_refused",
            requests.ConnectionError,
            urllib3_errors.NewConnectionError,
            "Connection refused",
        ),
        (
            "dns_failure",
            requests.ConnectionError,
            urllib3_errors.NameResolutionError,
            "Failed to resolve 'business-api.tiktok.com'",
        ),
        (
            "tls_failure",
            requests.exceptions.SSLError,
            urllib3_errors.SSLError,
            "certificate verify failed",
        ),
    ],
)
def test_failure_to_connect_is_wrapped_as_on_a_real_network(
    refresher: Refresher, fault: str, kind: type[Exception], reason: type[Exception], text: str
) -> None:
    refresher.simulator.fail_next(fault)
    with pytest.raises(kind) as caught:
        refresher.refresh()
    assert type(caught.value) is kind
    wrapped = caught.value.args[0]
    assert isinstance(wrapped, urllib3_errors.MaxRetryError)
    assert isinstance(wrapped.reason, reason)
    assert text in str(caught.value)
    assert "port=443" in str(caught.value)


def test_failure_to_connect_over_plain_http_names_its_port(refresher: Refresher) -> None:
    refresher.simulator.fail_next("connection_refused", times=2)
    for url, port in (("http://127.0.0.1:8420", 8420), ("http://tiktok.example", 80)):
        with pytest.raises(requests.ConnectionError, match=f"port={port}"):
            refresher.client.session.post(url + "/open_api/v1.3" + REFRESH, json={})


def test_time_out_after_sending_is_a_read_time_out(refresher: Refresher) -> None:
    refresher.simulator.fail_next("timeout_after")
    with pytest.raises(requests.ReadTimeout, match="read timeout=7"):
        refresher.refresh()


def test_reset_is_an_aborted_connection(refresher: Refresher) -> None:
    refresher.simulator.fail_next("reset_after")
    with pytest.raises(requests.ConnectionError, match="Connection aborted") as caught:
        refresher.refresh()
    assert isinstance(caught.value.args[0], urllib3_errors.ProtocolError)
    assert not isinstance(caught.value, requests.Timeout)


def test_cut_off_answer_is_an_incomplete_read(refresher: Refresher) -> None:
    refresher.simulator.fail_next("cut_off")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        refresher.refresh()


# What each altered answer looks like


def altered(refresher: Refresher, fault: str, **details: Any) -> Any:
    refresher.simulator.fail_next(fault, **details)
    return refresher.refresh().json()


def test_forced_code_has_the_message_and_status_that_were_asked_for(
    refresher: Refresher,
) -> None:
    refresher.simulator.fail_next(code=51065, message="Something is wrong", http_status=500)
    response = refresher.refresh()
    assert response.status_code == 500
    answer = response.json()
    assert (answer["code"], answer["message"]) == (51065, "Something is wrong")
    assert answer["data"] == {}
    assert answer["request_id"] == response.headers["X-TT-LOGID"]


def test_forced_code_and_status_may_name_the_body_too(refresher: Refresher) -> None:
    refresher.simulator.fail_next(code=40105, http_status=401, body="json", message="gone")
    response = refresher.refresh()
    assert (response.status_code, response.json()["code"]) == (401, 40105)
    assert response.json()["message"] == "gone"


@pytest.mark.parametrize(("status", "code"), [(500, 50000), (403, 40000)])
def test_forced_http_status_with_a_json_body(refresher: Refresher, status: int, code: int) -> None:
    refresher.simulator.fail_next(http_status=status, body="json", retry_after=9)
    response = refresher.refresh()
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["Retry-After"] == "9"


def test_forced_http_status_with_html_or_nothing(refresher: Refresher) -> None:
    refresher.simulator.fail_next(http_status=503)
    refresher.simulator.fail_next(http_status=504, body="empty", processed=True)
    html = refresher.refresh()
    assert (html.status_code, html.headers["Content-Type"]) == (503, "text/html")
    assert html.text.startswith("<!DOCTYPE html>")
    assert not refresher.was_processed
    empty = refresher.refresh()
    assert (empty.status_code, empty.content) == (504, b"")
    assert refresher.was_processed


def test_rate_limit_faults(refresher: Refresher) -> None:
    refresher.simulator.fail_next("rate_limited", message="App reaches the QPS limit.")
    refresher.simulator.fail_next("http_429")
    refresher.simulator.fail_next("http_429", retry_after=None)
    in_body, with_header, without = (refresher.refresh() for _ in range(3))
    assert in_body.status_code == 200
    assert in_body.json()["message"] == "App reaches the QPS limit."
    assert (with_header.status_code, with_header.headers["Retry-After"]) == (429, "60")
    assert (without.status_code, "Retry-After" in without.headers) == (429, False)
    assert {response.json()["code"] for response in (in_body, with_header, without)} == {40100}


def test_html_and_empty_come_with_status_200(refresher: Refresher) -> None:
    refresher.simulator.fail_next("html")
    refresher.simulator.fail_next("empty")
    html, empty = refresher.refresh(), refresher.refresh()
    assert (html.status_code, html.text[:9]) == (200, "<!DOCTYPE")
    assert (empty.status_code, empty.content) == (200, b"")


def test_truncated_answer_is_half_of_the_json(refresher: Refresher) -> None:
    refresher.simulator.fail_next("truncated")
    response = refresher.refresh()
    assert response.text.startswith('{"code":0,')
    with pytest.raises(requests.JSONDecodeError):
        response.json()


def test_null_data_string_code_and_wrong_shapes(refresher: Refresher) -> None:
    assert altered(refresher, "null_data")["data"] is None
    assert altered(refresher, "string_code")["code"] == "0"
    assert altered(refresher, "wrong_shape")["data"][0]["token_type"] == "Bearer"
    assert altered(refresher, "wrong_shape", shape="document")[0]["code"] == 0


def test_missing_empty_and_altered_fields(refresher: Refresher) -> None:
    left_out = altered(refresher, "missing_field", field=["refresh_token", "scope", "nonsense"])
    assert {"refresh_token", "scope"}.isdisjoint(left_out["data"])
    assert altered(refresher, "empty_field", field="refresh_token")["data"]["refresh_token"] == ""
    changed = altered(refresher, "altered_field", field="expires_in", value="86400")
    assert changed["data"]["expires_in"] == "86400"


def test_legacy_names(refresher: Refresher) -> None:
    data = altered(refresher, "legacy_names")["data"]
    assert {"creator_id", "expires", "refresh_expires"} <= set(data)
    assert {"open_id", "expires_in", "refresh_token_expires_in"}.isdisjoint(data)
    assert data["creator_id"] == refresher.open_id


def test_answer_without_an_envelope_is_not_altered(refresher: Refresher) -> None:
    refresher.simulator.fail_next("null_data")
    assert refresher.client.session.post(API + "/nowhere/").text == "404 page not found"


# When a fault applies


def test_fault_waits_for_its_path(refresher: Refresher) -> None:
    refresher.simulator.fail_next("rate_limited", path=REFRESH)
    session = refresher.client.session
    assert session.post(API + TOKEN_INFO, json={}).json()["code"] == 40002
    assert refresher.refresh().json()["code"] == 40100
    assert refresher.refresh().json()["code"] == 0


def test_fault_without_a_path_leaves_the_consent_page_alone(simulator: Simulator) -> None:
    simulator.fail_next(http_status=500)
    page = "https://www.tiktok.com/v2/auth/authorize"
    assert simulator.session().get(page).status_code == 400
    simulator.fail_next(http_status=500, path="/v2/auth/authorize")
    assert simulator.session().get(page).status_code == 500


def test_fault_can_last(simulator: Simulator) -> None:
    session = simulator.session()

    def codes(number: int) -> list[int]:
        return [session.post(API + TOKEN_INFO, json={}).json()["code"] for _ in range(number)]

    simulator.fail_next("rate_limited", times=2)
    assert codes(3) == [40100, 40100, 40002]
    simulator.fail_next("rate_limited", times=None)
    assert codes(5) == [40100] * 5
    simulator.clear_faults()
    assert codes(1) == [40002]


def random_codes(seed: int, path: str | None = None) -> list[int]:
    simulator = frozen()
    simulator.fail_randomly(0.5, ["rate_limited", ("code", {"code": 50000})], seed, path=path)
    session = simulator.session()
    return [session.post(API + TOKEN_INFO, json={}).json()["code"] for _ in range(60)]


def test_random_faults_repeat_with_the_seed() -> None:
    assert random_codes(1) == random_codes(1)
    assert random_codes(1) != random_codes(2)
    assert set(random_codes(1)) == {40002, 40100, 50000}
    assert 15 < random_codes(1).count(40002) < 45


def test_random_faults_keep_to_their_path() -> None:
    assert set(random_codes(1, path=PROFILE)) == {40002}
    assert 40100 in random_codes(1, path=TOKEN_INFO)


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda s: s.fail_next("earthquake"), "unknown fault 'earthquake'; known: code,"),
        (lambda s: s.fail_next(), "needs \\['code'\\]"),
        (lambda s: s.fail_next("code"), "needs \\['code'\\]"),
        (lambda s: s.fail_next("altered_field", field="x"), "needs \\['value'\\]"),
        (lambda s: s.fail_next("truncated", seconds=1), "takes no details, not \\['seconds'\\]"),
        (lambda s: s.fail_next("html", field="x"), "takes \\('processed',\\)"),
        (lambda s: s.fail_next("html", times=0), "times must be an integer of at least 1"),
        (lambda s: s.fail_next("html", times="2"), "times must be an integer of at least 1"),
        (lambda s: s.fail_next("html", path=7), "path must be the end of a path"),
        (lambda s: s.fail_next(code="40001"), "wrong value for \\['code'\\]"),
        (lambda s: s.fail_next(http_status=99), "wrong value for \\['http_status'\\]"),
        (lambda s: s.fail_next(http_status=500, body="xml"), "wrong value for \\['body'\\]"),
        (lambda s: s.fail_next("timeout_after", seconds=-1), "wrong value for \\['seconds'\\]"),
        (lambda s: s.fail_next("wrong_shape", shape="cube"), "wrong value for \\['shape'\\]"),
        (lambda s: s.fail_next("missing_field", field=7), "wrong value for \\['field'\\]"),
        (lambda s: s.fail_randomly(2, ["html"]), "rate from 0 to 1"),
        (lambda s: s.fail_randomly(0.5, []), "at least one fault"),
    ],
)
def test_impossible_fault_is_refused(
    simulator: Simulator, ask: Callable[[Simulator], None], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        ask(simulator)
    assert simulator.summary()["pending_faults"] == []


# Over real HTTP


@pytest.fixture
def served(simulator: Simulator) -> Iterator[Caller]:
    with simulator.serve() as base_url, requests.Session() as session:
        yield Caller(session, base_url + "/open_api/v1.3")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("timeout_before", requests.ReadTimeout),
        ("timeout_after", requests.ReadTimeout),
        ("reset_after", requests.ConnectionError),
        ("cut_off", requests.exceptions.ChunkedEncodingError),
        *((fault, requests.ConnectionError) for fault in CONNECTION_FAULTS),
    ],
)
def test_connection_faults_over_http(
    simulator: Simulator, served: Caller, fault: str, kind: type[Exception]
) -> None:
    grant = simulator.issue_grant()
    simulator.configure(rotate="always")
    simulator.fail_next(fault)
    body = {
        "client_id": simulator.app_id,
        "client_secret": "simulator-app-secret-not-real",
        "grant_type": "refresh_token",
        "refresh_token": grant["refresh_token"],
    }
    with pytest.raises(kind):
        served.session.post(served.base_url + REFRESH, json=body, timeout=0.3)
    rotated = simulator.live_tokens(grant["open_id"]) != (
        grant["access_token"],
        grant["refresh_token"],
    )
    assert rotated == (fault in PROCESSED)
    assert served.refresh(grant["refresh_token"])["code"] == 0


def test_time_out_over_http_ends_after_the_given_time(simulator: Simulator, served: Caller) -> None:
    simulator.fail_next("timeout_after", seconds=0.1)
    started = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        served.session.post(served.base_url + TOKEN_INFO, json={}, timeout=20)
    assert 0.1 <= time.monotonic() - started < 10


def test_altered_answers_over_http(simulator: Simulator, served: Caller) -> None:
    simulator.fail_next("html")
    simulator.fail_next("http_429", retry_after=3)
    simulator.fail_next("string_code")
    url = served.base_url + TOKEN_INFO
    html, slow, odd = (served.session.post(url, json={}) for _ in range(3))
    assert html.text.startswith("<!DOCTYPE html>")
    assert (slow.status_code, slow.headers["Retry-After"]) == (429, "3")
    assert odd.json()["code"] == "40002"
