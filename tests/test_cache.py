"""Limits and halts that processes share, and caches that fail."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.management import call_command
from django.db import connection, connections, transaction

from django_tiktok_business import cache as shared_cache
from tests.support.simulator import override_tiktok

NOON = 1_795_348_800.0  # 2026-11-22 12:00:00 UTC


class BrokenCache(BaseCache):
    """A cache whose server is down."""

    def __init__(self, location: str, parameters: dict[str, Any]) -> None:
        super().__init__(parameters)

    def _fail(self, *arguments: Any, **options: Any) -> Any:
        raise ConnectionError("with a password in the text")

    add = get = set = _fail


@pytest.fixture(autouse=True)
def own_caches(settings: Any) -> Iterator[None]:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {
        "default": {"BACKEND": backend, "LOCATION": uuid.uuid4().hex},
        "other": {"BACKEND": backend, "LOCATION": uuid.uuid4().hex},
        "broken": {"BACKEND": "tests.test_cache.BrokenCache"},
        "missing_table": {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": "missing",
        },
        "nothing": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }
    shared_cache._warned_at.clear()
    yield
    shared_cache._warned_at.clear()


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as a list of one, to be changed."""
    now = [NOON]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_limit_allows_so_many_events(noon: list[float]) -> None:
    assert [shared_cache.allow("start", "ada", 3) for _ in range(5)] == [True] * 3 + [False] * 2


def test_limits_of_other_events_and_subjects_are_separate(noon: list[float]) -> None:
    assert shared_cache.allow("start", "ada", 1)
    assert not shared_cache.allow("start", "ada", 1)
    assert shared_cache.allow("start", "grace", 1)
    assert shared_cache.allow("return", "ada", 1)


@pytest.mark.parametrize("subject", ["", "a b", "x" * 1000, "\n", "ä", "\ud800"])
def test_any_text_can_be_a_subject(noon: list[float], subject: str) -> None:
    assert shared_cache.allow("start", subject, 1)
    assert not shared_cache.allow("start", subject, 1)


def test_limit_ends_with_its_minute(noon: list[float]) -> None:
    assert shared_cache.allow("start", "ada", 1)
    noon[0] += 59.9
    assert not shared_cache.allow("start", "ada", 1)
    assert shared_cache.is_exhausted("start", "ada", 1)
    noon[0] += 0.1
    assert not shared_cache.is_exhausted("start", "ada", 1)
    assert shared_cache.allow("start", "ada", 1)


def test_limit_is_exhausted_by_its_last_event(noon: list[float]) -> None:
    for _ in range(3):
        assert not shared_cache.is_exhausted("start", "ada", 3)  # which counts nothing
        assert shared_cache.allow("start", "ada", 3)
    assert shared_cache.is_exhausted("start", "ada", 3)


@pytest.mark.parametrize("alias", ["broken", "nothing", "not in CACHES"])
def test_cache_that_fails_or_stores_nothing_allows_all(noon: list[float], alias: str) -> None:
    with override_tiktok(CACHE_ALIAS=alias):
        assert all(shared_cache.allow("start", "ada", 1) for _ in range(3))
        assert not shared_cache.is_exhausted("start", "ada", 1)
        shared_cache.halt("tiktok_unavailable", 300)
        assert shared_cache.halt_reason() is None


def test_halt_holds_for_its_app_and_time(noon: list[float]) -> None:
    assert shared_cache.halt_reason() is None
    shared_cache.halt("tiktok_unavailable", 300)
    noon[0] += 299
    assert shared_cache.halt_reason() == "tiktok_unavailable"
    with override_tiktok(APP_ID="7000000000000000042"):
        assert shared_cache.halt_reason() is None
    noon[0] += 2
    assert shared_cache.halt_reason() is None


def test_alias_is_the_one_of_the_settings_unless_one_is_named() -> None:
    with override_tiktok(CACHE_ALIAS="other"):
        shared_cache.cached(lambda cache: cache.set("key", 1), otherwise=None)
    assert caches["other"].get("key") == 1
    assert shared_cache.cached(lambda cache: cache.get("key"), otherwise="no") is None
    assert shared_cache.cached(lambda cache: cache.get("key"), otherwise="no", alias="other") == 1


def test_failing_cache_is_logged_once_a_minute_without_its_message(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(alias: str) -> object:
        return shared_cache.cached(lambda cache: cache.get("key"), otherwise="no", alias=alias)

    with caplog.at_level(logging.WARNING, logger="tiktok_business"):
        assert [ask("broken") for _ in range(3)] == ["no"] * 3
        assert ask("not in CACHES") == "no"
        monkeypatch.setattr(shared_cache, "WARN_AGAIN_SECONDS", 0.0)
        assert ask("broken") == "no"
    starts = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert starts == [
        "The cache 'broken' does not answer (ConnectionError)",
        "The cache 'not in CACHES' does not answer (InvalidCacheBackendError)",
        "The cache 'broken' does not answer (ConnectionError)",
    ]
    assert "password" not in caplog.text


@pytest.mark.django_db
def test_failing_database_cache_leaves_the_caller_s_transaction_intact() -> None:
    with transaction.atomic():
        User.objects.create(username="ada")
        found = shared_cache.cached(
            lambda cache: cache.get("key"), otherwise="no", alias="missing_table"
        )
        assert found == "no"
        User.objects.create(username="grace")
    assert User.objects.count() == 2


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.django_db(transaction=True)
def test_requests_at_the_same_moment_are_all_counted_in_a_table(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_cache, "LIMIT_SECONDS", 10**10)
    table = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "limits_cache"}
    settings.CACHES = {"default": table}
    call_command("createcachetable")
    together = threading.Barrier(8)

    def ask_for_more(_: int) -> int:
        together.wait()
        allowed = [shared_cache.allow("start", "ada", 15) for _ in range(5)]
        connections.close_all()
        return sum(allowed)

    try:
        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(ask_for_more, range(8))) == 15
        assert shared_cache.is_exhausted("start", "ada", 15)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE limits_cache")
