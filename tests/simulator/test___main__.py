from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

import django_tiktok_business
from django_tiktok_business.simulator.__main__ import main
from tests.support.simulator_calls import APP_SECRET, PROFILE, authorize_url

# Where Python finds the package: the checkout, or site-packages when the wheel is tested.
HOME = Path(django_tiktok_business.__file__).parent.parent


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
