from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import requests
from pytiktok import BusinessAccountApi
from pytiktok.error import PyTiktokError
from requests.adapters import HTTPAdapter
from urllib3 import Retry

import django_tiktok_business
from django_tiktok_business.simulator import FAULTS, Simulator, StateFileError
from django_tiktok_business.simulator.__main__ import main
from django_tiktok_business.simulator.transport import Server, serving
from django_tiktok_business.simulator.wire import Request, Response
from tests.support.simulator_calls import (
    APP_ID,
    APP_SECRET,
    NOW,
    PROFILE,
    REDIRECT_URI,
    REFRESH,
    SCOPES,
    TOKEN_INFO,
    Caller,
    authorize_url,
    caller,
    frozen,
    query_of,
)

BAKERY = "harbour_bakery"
# Where Python finds the package: the checkout, or site-packages when the wheel is tested.
HOME = Path(django_tiktok_business.__file__).parent.parent


@pytest.fixture
def simulator() -> Simulator:
    return frozen()


@pytest.fixture
def address(simulator: Simulator) -> Iterator[str]:
    with simulator.serve() as base_url:
        yield base_url


@pytest.fixture
def http(address: str) -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


# The server


def test_real_client_library_runs_its_whole_round_trip(simulator: Simulator, address: str) -> None:
    client = BusinessAccountApi(
        app_id=APP_ID,
        app_secret=APP_SECRET,
        oauth_redirect_uri=REDIRECT_URI,
        base_url=address + "/open_api",
    )
    with client.session:
        code = query_of(simulator.authorize(authorize_url()))["code"]
        token = client.generate_access_token(code=code, return_json=True)
        assert token["open_id"] == simulator.open_id(BAKERY)
        profile = client.get_account_data(
            business_id=token["open_id"], fields=["username", "followers_count"], return_json=True
        )
        assert profile["data"] == {"username": BAKERY, "followers_count": 1532}
        renewed = client.refresh_access_token(token["refresh_token"], return_json=True)
        assert renewed["access_token"] != token["access_token"]
        inspected = client.get_token_info(renewed["access_token"], return_json=True)
        assert inspected["creator_id"] == token["open_id"]
        revoked = client.revoke_access_token(renewed["access_token"], return_json=True)
        assert revoked["code"] == 0
        with pytest.raises(PyTiktokError, match="40105"):
            client.get_token_info(renewed["access_token"])


def test_browser_goes_through_the_page_by_its_form(
    simulator: Simulator, address: str, http: requests.Session
) -> None:
    query = authorize_url().partition("?")[2]
    page = http.get(f"{address}/v2/auth/authorize/?{query}")
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    action = re.search(r'<form method="post" action="([^"]+)">', page.text)
    assert action is not None
    form = [
        *((name, value.replace("&amp;", "&")) for name, value in hidden.items()),
        ("account", "lena.draws"),
        ("granted", "user.info.basic"),
        ("decision", "approve"),
    ]
    answer = http.post(address + action[1], data=form, allow_redirects=False)
    assert answer.status_code == 302
    location = query_of(answer.headers["Location"])
    assert (location["state"], location["scopes"]) == ("x y&z", "user.info.basic")
    data = Caller(http, address + "/open_api/v1.3").exchange(location["code"])["data"]
    assert data["open_id"] == simulator.open_id("lena.draws")

    # The cookie says who is signed in: the account is chosen, and the next time the page skipped.
    again = http.get(f"{address}/v2/auth/authorize?{query}", allow_redirects=False)
    assert 'value="lena.draws" checked' in again.text
    narrow = authorize_url(scope="user.info.basic").partition("?")[2]
    skipped = http.get(f"{address}/v2/auth/authorize?{narrow}", allow_redirects=False)
    assert "code" in query_of(skipped.headers["Location"])
    style_sheet = re.search(r'<link rel="stylesheet" href="([^"]+)">', page.text)
    assert style_sheet is not None
    for path in (style_sheet[1], *re.findall(r'<img src="([^"]+)"', page.text)):
        assert http.get(address + path).status_code == 200


def test_connection_is_kept_alive(address: str) -> None:
    with closing(HTTPConnection("127.0.0.1", int(address.rpartition(":")[2]))) as connection:
        connection.connect()
        opened = connection.sock
        for _ in range(3):
            connection.request("GET", "/open_api/v1.3" + PROFILE)
            assert json.load(connection.getresponse())["code"] == 40104
            assert connection.sock is opened


def test_other_methods_get_no_json(address: str, http: requests.Session) -> None:
    url = address + "/open_api/v1.3" + PROFILE
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "POST"):
        assert http.request(method, url).status_code == 405
    head = http.head(url)
    assert (head.status_code, head.content) == (405, b"")
    assert http.get(url).json()["code"] == 40104


def test_body_in_chunks_and_excessive_bodies_are_refused(
    address: str, http: requests.Session
) -> None:
    url = address + "/open_api/v1.3" + TOKEN_INFO
    assert http.post(url, data=iter([b"{}"])).status_code == 411
    assert http.post(url, headers={"Content-Length": "-1"}).status_code == 411
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_client_that_hangs_up_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    arrived = threading.Event()
    simulator = frozen(latency_seconds=0.2, on_call=lambda _: arrived.set())
    url = "/open_api/v1.3" + PROFILE
    with simulator.serve() as base_url:
        port = int(base_url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            # Lingering for 0 seconds makes closing a reset.
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sendall(f"GET {url} HTTP/1.1\r\n\r\n".encode() * 2)
            assert arrived.wait(10)
        assert requests.get(base_url + url, timeout=5).status_code == 200
    assert capfd.readouterr().err == ""


def test_defect_of_the_core_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    def broken(request: Request) -> Response:
        raise RuntimeError(f"defect at {request.path}")

    with serving(Server(0, broken)) as base_url, pytest.raises(requests.ConnectionError):
        requests.get(base_url + "/somewhere", timeout=5)
    assert "RuntimeError: defect at /somewhere" in capfd.readouterr().err


def test_closing_ends_idle_and_waiting_connections_at_once() -> None:
    arrived = threading.Barrier(2)
    simulator = frozen(on_call=lambda _: arrived.wait(10))
    simulator.fail_next("timeout_before", seconds=300, path=TOKEN_INFO)
    with ThreadPoolExecutor() as pool, requests.Session() as idle:
        with simulator.serve() as base_url:
            idle.get(base_url + "/_simulator/state")
            waiting = pool.submit(
                requests.post, base_url + "/open_api/v1.3" + TOKEN_INFO, json={}, timeout=60
            )
            arrived.wait(10)
            started = time.monotonic()
        assert time.monotonic() - started < 5
        with pytest.raises(requests.ConnectionError):
            waiting.result()


def test_only_this_machine_is_served(simulator: Simulator) -> None:
    with Server(0, simulator.handle) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_one_lock_keeps_parallel_refreshes_apart() -> None:
    simulator = frozen(strict=True)
    token = simulator.issue_grant()["refresh_token"]
    with simulator.serve() as base_url, ThreadPoolExecutor(8) as pool:

        def refresh(_: int) -> int:
            with requests.Session() as session:
                code: int = Caller(session, base_url + "/open_api/v1.3").refresh(token)["code"]
                return code

        codes = list(pool.map(refresh, range(16)))
    assert sorted(codes) == [0] + [40107] * 15
    assert simulator.count(REFRESH) == 16


# In process


def test_session_answers_any_host_and_body() -> None:
    simulator = frozen()
    session = simulator.session()
    assert session.trust_env is False
    body = json.dumps({"app_id": APP_ID, "access_token": "act.x"})
    headers = {"Content-Type": "application/json"}
    for data in (body, body.encode(), iter([body[:9].encode(), body[9:].encode()])):
        response = session.post(
            "http://anything.example:81/open_api/v1.3" + TOKEN_INFO, data=data, headers=headers
        )
        assert response.json()["code"] == 40105


def test_session_streams() -> None:
    simulator = frozen()
    with simulator.session().get(authorize_url(), stream=True, timeout=1) as response:
        assert b"".join(response.iter_content(100)).startswith(b"<!DOCTYPE html>")


def test_non_ascii_names_travel_as_utf_8() -> None:
    simulator = frozen()
    grant = simulator.issue_grant("mika_bakes")
    answer = caller(simulator).profile(grant["access_token"], business_id=grant["open_id"])
    assert answer["data"]["display_name"] == "田中 美香のパン工房"


# The remote control


def control(address: str, name: str, **document: Any) -> dict[str, Any]:
    response = requests.post(f"{address}/_simulator/{name}", json=document, timeout=5)
    answer: dict[str, Any] = response.json()
    assert response.status_code == 200, answer
    return answer


def test_clock_by_remote_control(simulator: Simulator, address: str) -> None:
    assert control(address, "clock", advance=60) == {"now": NOW + 60}
    assert control(address, "clock", set=NOW + 5.5) == {"now": NOW + 5.5}
    assert simulator.clock.now() == NOW + 5.5


def test_faults_by_remote_control(simulator: Simulator, address: str) -> None:
    answer = control(address, "faults", fault="http_429", path=TOKEN_INFO, times=2, retry_after=5)
    assert answer == {"pending": [{"fault": "http_429", "path": TOKEN_INFO, "times": 2}]}
    url = address + "/open_api/v1.3" + TOKEN_INFO
    assert requests.post(url, json={}, timeout=5).headers["Retry-After"] == "5"
    assert control(address, "faults", clear=True) == {"pending": []}
    control(address, "faults", random={"rate": 1, "faults": ["html", ["code", {"code": 1}]]})
    answers = {requests.post(url, json={}, timeout=5).text[:9] for _ in range(40)}
    assert answers == {"<!DOCTYPE", '{"code":1'}


def test_settings_revoke_and_reset_by_remote_control(simulator: Simulator, address: str) -> None:
    answer = control(address, "settings", rotate="always", access_token_lifetime_seconds=60)
    assert answer["settings"]["rotate"] == "always"
    open_id = simulator.issue_grant("somebody new")["open_id"]
    assert control(address, "revoke", open_id=open_id) == {"revoked": True}
    assert control(address, "revoke", open_id=open_id) == {"revoked": False}
    simulator.clock.advance(5)
    simulator.fail_next("html", path="/nowhere/")
    simulator.issue_grant()
    assert control(address, "reset") == {"reset": True}
    summary = simulator.summary()
    assert summary["settings"]["rotate"] == "never"
    assert (summary["now"], summary["calls"], len(summary["accounts"])) == (NOW, 0, 6)
    assert (summary["grants"], summary["pending_faults"]) == ([], [])


@pytest.mark.parametrize(
    ("name", "document", "text"),
    [
        ("clock", {}, "advance"),
        ("clock", {"advance": 1, "set": 2}, "advance"),
        ("clock", {"set": 1, "forward": 2}, "advance"),
        ("clock", {"set": "tomorrow"}, "advance"),
        ("clock", {"set": float("inf")}, "the time must be Unix seconds below"),
        ("clock", {"advance": -1e12}, "the time must be Unix seconds below"),
        ("faults", {}, "needs ['code']"),
        ("faults", {"fault": "earthquake"}, "unknown fault"),
        ("faults", {"fault": "dns_failure"}, "cannot be simulated over HTTP"),
        ("faults", {"fault": "connection_refused"}, "cannot be simulated over HTTP"),
        (
            "faults",
            {"random": {"rate": 1, "faults": ["tls_failure"]}},
            "cannot be simulated over HTTP",
        ),
        (
            "faults",
            {"random": {"rate": 1, "faults": [["tls_failure", {}]]}},
            "cannot be simulated over HTTP",
        ),
        ("faults", {"random": {"rate": 1}}, "KeyError: 'faults'"),
        ("faults", {"random": {"rate": 1, "faults": [7]}}, "TypeError"),
        ("faults", {"random": {"rate": 1, "faults": ["html"], "speed": 1}}, "speed"),
        ("settings", {"rotation": "always"}, "unknown setting 'rotation'"),
        ("revoke", {"account": BAKERY}, "open_id"),
        ("reset", {"everything": True}, "send {}"),
    ],
)
def test_wrong_control_request_is_explained(
    address: str, name: str, document: dict[str, Any], text: str
) -> None:
    response = requests.post(
        f"{address}/_simulator/{name}",
        data=json.dumps(document),
        headers={"Content-Type": "application/json"},
        timeout=5,
    )
    assert response.status_code == 400
    assert text in response.json()["error"]


def test_control_needs_json_and_its_own_method(address: str, http: requests.Session) -> None:
    form = http.post(f"{address}/_simulator/reset", data={"a": "b"})
    assert form.status_code == 400
    assert form.json() == {"error": "Content-Type must be application/json."}
    assert http.get(f"{address}/_simulator/reset").status_code == 405
    assert http.get(f"{address}/_simulator/nothing").status_code == 404


def test_state_and_log_by_remote_control_hold_no_secret(
    simulator: Simulator, address: str, http: requests.Session
) -> None:
    simulator.add_app("7000000000000000002", "other-secret", redirect_uris=[REDIRECT_URI])
    code = query_of(simulator.authorize(authorize_url(state="secret-state")))["code"]
    client = Caller(http, address + "/open_api/v1.3")
    grant = client.exchange(code)["data"]
    client.profile(grant["access_token"], business_id=grant["open_id"])
    simulator.authorize(authorize_url(state="secret-state", disable_auto_auth="1"))
    state = http.get(f"{address}/_simulator/state/")
    log = http.get(f"{address}/_simulator/log")
    assert state.json()["grants"] == [
        {
            "app_id": APP_ID,
            "open_id": grant["open_id"],
            "account": BAKERY,
            "scopes": sorted(SCOPES.split(",")),
            "access_token_expires_in": 86_400,
            "refresh_token_expires_in": 31_536_000,
        }
    ]
    assert [call["code"] for call in log.json()["calls"]] == [None, None, 0, 0, None, None]
    everything = state.text + log.text + repr(simulator.calls) + repr(simulator.summary())
    secrets = ("act.SIM", "rft.SIM", "SIMcode", APP_SECRET, "other-secret", "secret-state")
    assert [secret for secret in secrets if secret in everything] == []


# The state file


def test_state_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = frozen(state_path=path, rotate="always", old_refresh_valid="until_successor_used")
    pending = query_of(first.authorize(authorize_url(), account="lena.draws"))["code"]
    old = first.issue_grant("somebody new")
    new = caller(first).refresh(old["refresh_token"])["data"]
    first.set_profile(BAKERY, followers_count=7)
    first.move_clock(advance_seconds=100)

    second = frozen(state_path=path, rotate="always", old_refresh_valid="until_successor_used")
    client = caller(second)
    assert second.clock.now() == NOW + 100
    assert second.live_tokens(new["open_id"]) == (new["access_token"], new["refresh_token"])
    assert client.exchange(pending)["code"] == 0
    answer = client.refresh(new["refresh_token"])["data"]
    assert answer["refresh_token_expires_in"] == 31_536_000 - 100
    assert client.refresh(old["refresh_token"])["code"] == 40107
    grant = second.issue_grant()
    profile = client.profile(
        grant["access_token"], business_id=grant["open_id"], fields='["followers_count"]'
    )
    assert profile["data"] == {"followers_count": 7}

    third = frozen(state_path=path)
    assert caller(third).exchange(pending)["code"] == 40131
    third.revoke_grant(grant["open_id"])
    assert frozen(state_path=path).live_tokens(grant["open_id"]) is None


def test_state_file_can_be_read_without_being_written(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = frozen()
    grant = first.issue_grant()
    first.save(path)
    stored = path.read_text()

    second = frozen(state_path=path, saves_state=False, rotate="always")
    answer = caller(second).refresh(grant["refresh_token"])
    assert answer["data"]["refresh_token"] != grant["refresh_token"]
    assert path.read_text() == stored


def test_state_file_is_private_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    simulator = frozen(state_path=str(path))
    assert json.loads(path.read_text())["grants"] == {}
    simulator.issue_grant()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(json.loads(path.read_text())["grants"]) == 1
    written = path.stat().st_mtime_ns
    simulator.session().get(authorize_url(disable_auto_auth="1"))
    assert path.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [path]


def test_tokens_are_on_disk_before_the_answer_goes_wrong(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    simulator = frozen(state_path=path, strict=True)
    grant = simulator.issue_grant()
    simulator.fail_next("timeout_after")
    with pytest.raises(requests.ReadTimeout):
        caller(simulator).refresh(grant["refresh_token"])
    assert simulator.live_tokens(grant["open_id"]) != (
        grant["access_token"],
        grant["refresh_token"],
    )
    stored = frozen(state_path=path)
    assert stored.live_tokens(grant["open_id"]) == simulator.live_tokens(grant["open_id"])


def stored_state(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "good.json"
    simulator = frozen(state_path=path)
    simulator.authorize(authorize_url())
    simulator.issue_grant()
    state: dict[str, Any] = json.loads(path.read_text())
    return state


def test_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for text in ("", "{", "[]", '{"kind": "shopping list"}'):
        path.write_text(text)
        with pytest.raises(StateFileError, match="not a state file of the TikTok simulator"):
            Simulator(state_path=path)
        assert path.read_text() == text
    path.write_bytes(b"\xff")
    with pytest.raises(StateFileError, match="cannot read the state file"):
        Simulator(state_path=path)
    assert path.read_bytes() == b"\xff"


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("grants"),
        lambda state: state.pop("clock_offset_seconds"),
        lambda state: state.update(accounts=[]),
        lambda state: state.update(codes=7),
        lambda state: state["accounts"].pop(BAKERY),
        lambda state: state["accounts"][BAKERY].update(shoe_size=44),
        lambda state: state["access_tokens"].clear(),
        lambda state: state["refresh_tokens"].clear(),
        lambda state: state["grants"].clear(),
        lambda state: next(iter(state["grants"].values())).update(scopes=[]),
        lambda state: next(iter(state["grants"].values())).update(scopes="user.info.basic"),
        lambda state: next(iter(state["codes"].values())).update(expires_at="soon"),
        lambda state: next(iter(state["codes"].values())).update(colour="red"),
        lambda state: next(iter(state["codes"].values())).pop("redirect_uri"),
    ],
)
def test_damaged_state_file_is_refused_and_left_alone(tmp_path: Path, damage: Any) -> None:
    state = stored_state(tmp_path)
    damage(state)
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state))
    with pytest.raises(StateFileError, match="is damaged"):
        Simulator(state_path=path)
    assert json.loads(path.read_text()) == state


def test_state_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({**stored_state(tmp_path), "version": 99}))
    with pytest.raises(StateFileError, match="another version"):
        Simulator(state_path=path)


def test_state_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateFileError, match="cannot write the state file"):
        Simulator(state_path=tmp_path / "nowhere" / "state.json")
    path = tmp_path / "state.json"
    simulator = frozen(state_path=path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StateFileError, match="cannot write the state file"):
        simulator.issue_grant()
    assert list(tmp_path.iterdir()) == [path]


# The command line


def test_command_serves_until_a_signal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    redirect_uri = "https://h.example/callback/"
    arguments = f"--port {port} --strict --rotate never --local-images --latency 0.01 --app-id 7123"
    state = tmp_path / "state.json"
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor() as pool:
        seen = pool.submit(observe, port)
        status = main([*arguments.split(), "--redirect-uri", redirect_uri, "--state", str(state)])
        summary = seen.result()
    assert status == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert summary["apps"][0]["app_id"] == "7123"
    assert summary["apps"][0]["redirect_uris"] == [redirect_uri]
    settings = summary["settings"]
    assert (settings["rotate"], settings["old_access_valid"]) == ("never", "no")
    assert (settings["rate_limits"], settings["rate_penalty_seconds"]) == (True, 300)
    assert settings["latency_seconds"] == 0.01
    assert settings["image_base_url"] == f"http://127.0.0.1:{port}"
    assert state.exists()
    out, err = capsys.readouterr()
    assert f'"AUTHORIZATION_URL": "http://127.0.0.1:{port}/v2/auth/authorize"' in out
    assert f'"API_BASE_URL": "http://127.0.0.1:{port}/open_api/v1.3"' in out
    assert out.endswith("Ready.\n")
    assert APP_SECRET not in out + err
    assert err == (
        "GET /open_api/v1.3/business/get/ 40104 -\n"
        "GET /open_api/v1.3/nowhere 404 -\n"
        "GET /open_api/v1.3/business/get/ 40104 - string_code\n"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def observe(port: int) -> Any:
    """Wait for the command in the main thread, use it, and end it as a service manager does."""
    base_url = f"http://127.0.0.1:{port}"
    try:
        summary = wait_until_ready(base_url)
        api = base_url + "/open_api/v1.3"
        requests.get(api + PROFILE, params={"business_id": "act.secret"}, timeout=5)
        requests.get(api + "/nowhere", timeout=5)
        requests.post(base_url + "/_simulator/faults", json={"fault": "string_code"}, timeout=5)
        requests.get(api + PROFILE, timeout=5)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
    return summary


def wait_until_ready(base_url: str) -> Any:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(connect=10, backoff_factor=0.02)))
        return session.get(base_url + "/_simulator/state", timeout=5).json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strict-redirects"], "must be an absolute https URL, have no port"),
        (["--latency", "-1"], "latency_seconds must be a number of at least 0"),
        (["--redirect-uri", "https://h.example/callback"], "end with a slash"),
    ],
)
def test_command_that_cannot_start_says_why(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--port", "0", "--quiet", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_command_refuses_a_damaged_state_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.json"
    path.write_text("{")
    assert main(["--port", "0", "--state", str(path)]) == 2
    assert "is not a state file" in capsys.readouterr().err
    assert path.read_text() == "{"


def test_command_says_that_the_port_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    message = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in message
    assert "--port" in message


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_command_refuses_a_wrong_port(port: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([f"--port={port}"])
    assert caught.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_as_a_process_ends_with_status_0(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "django_tiktok_business.simulator", "--port", "0"]
    with subprocess.Popen(
        command, cwd=HOME, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        lines = list(takewhile(lambda line: line != "Ready.\n", process.stdout))
        address = re.search(r"http://127\.0\.0\.1:\d+", lines[0])
        assert address is not None
        grants = wait_until_ready(address[0])["grants"]
        query = authorize_url(
            redirect_uri="http://localhost:8000/tiktok/callback/", state="secret-state"
        ).partition("?")[2]
        page = requests.get(f"{address[0]}/v2/auth/authorize?{query}", timeout=5)
        process.send_signal(number)
        error_output = process.stderr.read()
        assert process.wait() == 0
        watchdog.cancel()
    assert (grants, page.status_code) == ([], 200)
    assert error_output == "GET /v2/auth/authorize 200 -\n"
    assert APP_SECRET not in page.text + "".join(lines) + error_output


def test_every_fault_has_its_line_in_the_documentation() -> None:
    documentation = sys.modules["django_tiktok_business.simulator"].__doc__ or ""
    assert [fault for fault in FAULTS if f"``{fault}``" not in documentation] == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example:1"])
def test_name_of_another_site_is_not_answered(
    http: requests.Session, address: str, host: str
) -> None:
    """Such a name can lead to this machine, and a page of that site then asks it anything."""
    answer = http.get(f"{address}/_simulator/state", headers={"Host": host})
    assert (answer.status_code, answer.text) == (421, "This is 127.0.0.1.")
    port = address.rpartition(":")[2]
    local = http.get(f"{address}/_simulator/state", headers={"Host": f"localhost:{port}"})
    assert local.status_code == 200
