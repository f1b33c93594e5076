from __future__ import annotations

import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection

import pytest
import requests
from pytiktok import BusinessAccountApi
from pytiktok.error import PyTiktokError

from django_tiktok_business.simulator import Simulator
from django_tiktok_business.simulator.transport import Server, serving
from django_tiktok_business.simulator.wire import Request, Response
from tests.support.simulator_calls import (
    APP_ID,
    APP_SECRET,
    BAKERY,
    PROFILE,
    REDIRECT_URI,
    TOKEN_INFO,
    authorize_url,
    frozen,
    query_of,
)


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
