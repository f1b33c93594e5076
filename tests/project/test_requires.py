"""What a machine or Django lacks is named in one line, or replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import redis
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings

from tests.support import requires
from tests.support.policy import policy_middleware
from tests.support.requires import program, require, some_redis, summary

pytestmark = pytest.mark.databases("sqlite")


def skipped(reason: object) -> Any:
    report = object.__new__(pytest.TestReport)
    report.longrepr = ("tests/test_x.py", 1, reason) if isinstance(reason, str) else None
    return report


def reason_of(tool: str, monkeypatch: pytest.MonkeyPatch) -> str:
    packages, _ = requires.TOOLS[tool]
    monkeypatch.setitem(requires.TOOLS, tool, (packages, lambda: False))
    with pytest.raises(pytest.skip.Exception) as caught:
        require(tool)
    return f"Skipped: {caught.value}"


def test_nothing_is_said_when_all_has_run() -> None:
    assert summary([]) == ""


def test_missing_packages_are_named_once_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = ("redis", "memcached", "redis-server", "memcached")
    reports = [skipped(reason_of(tool, monkeypatch)) for tool in tools]
    assert summary(reports) == (
        "Not run: 4 tests. To run all: apt install memcached redis-server\n"
    )


def test_other_reasons_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [skipped(reason_of("gettext", monkeypatch)), skipped("Skipped: full moon")]
    assert summary(reports).endswith("To run all: apt install gettext; Skipped: full moon\n")
    assert summary([skipped(None)]) == "Not run: 1 test. To run all: None\n"


def test_what_is_here_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for tool, (packages, _) in requires.TOOLS.items():
        monkeypatch.setitem(requires.TOOLS, tool, (packages, lambda: True))
        require(tool)


@pytest.mark.parametrize("tool", requires.TOOLS)
def test_bare_machine_has_none_of_it(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("TEST_REDIS_URL", raising=False)
    monkeypatch.setattr(requires, "REDIS_PORT", 1)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    with pytest.raises(pytest.skip.Exception):
        require(tool)


def test_redis_that_is_not_started_is_started_for_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require("redis-server")
    monkeypatch.delenv("TEST_REDIS_URL", raising=False)
    monkeypatch.setattr(requires, "REDIS_PORT", 1)
    with some_redis():
        url = os.environ["TEST_REDIS_URL"]
        with redis.Redis.from_url(url) as connected:
            assert connected.ping()
            assert connected.dbsize() == 0
    assert "TEST_REDIS_URL" not in os.environ
    with redis.Redis.from_url(url) as connected, pytest.raises(redis.ConnectionError):
        connected.ping()


def test_redis_that_runs_or_is_not_installed_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requires, "program", lambda name: None)
    monkeypatch.delenv("TEST_REDIS_URL", raising=False)
    with some_redis():
        assert "TEST_REDIS_URL" not in os.environ
    assert program("no such program") is None


@pytest.mark.parametrize(
    ("policy", "sent"),
    [
        ({}, None),
        (
            {"default-src": ["'self'"], "img-src": ["'self'", "https://a.example"]},
            "default-src 'self'; img-src 'self' https://a.example",
        ),
    ],
)
def test_policy_is_sent_beside_each_django(policy: dict[str, list[str]], sent: str | None) -> None:
    with override_settings(SECURE_CSP=policy):
        response = policy_middleware(lambda request: HttpResponse())(HttpRequest())
        assert response.headers.get("Content-Security-Policy") == sent
        page = Client().get("/admin/login/")
        assert page.headers.get("Content-Security-Policy") == sent
