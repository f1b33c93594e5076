"""A third of all calls fail, in every way the simulator knows, and no token is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from django_tiktok_business.api import rate_limit
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import FAULTS
from tests.support.engine import (
    REFRESH,
    Status,
    WatchedSimulator,
    end_waits,
    in_status,
    make_due,
    not_live,
    run,
    watched_simulator,
)
from tests.support.simulator import override_tiktok

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]

FAILING = 0.3
TIMEOUT_SECONDS = 2
HOLD_SECONDS = TIMEOUT_SECONDS + 0.5  # how long the server waits, longer than the client
ONLY_IN_PROCESS = ("connection_refused", "dns_failure", "tls_failure")

# Every kind; where it can happen before and after TikTok has acted, both.
EVERY_KIND: list[tuple[str, dict[str, Any]]] = [
    ("code", {"code": 40000}),
    ("code", {"code": 40105}),  # rejects an access token, though the call has none
    ("code", {"code": 50000}),
    ("code", {"code": 50000, "processed": True}),
    ("http_status", {"http_status": 403}),
    ("http_status", {"http_status": 503, "retry_after": 1}),
    ("http_status", {"http_status": 502, "body": "empty", "processed": True}),
    ("rate_limited", {}),
    ("http_429", {"retry_after": 0}),
    ("html", {}),
    ("html", {"processed": True}),
    ("empty", {}),
    ("empty", {"processed": True}),
    ("timeout_before", {"seconds": HOLD_SECONDS}),
    ("timeout_after", {"seconds": HOLD_SECONDS}),
    ("connection_refused", {}),
    ("dns_failure", {}),
    ("tls_failure", {}),
    ("reset_after", {}),
    ("cut_off", {}),
    ("truncated", {}),
    ("null_data", {}),
    ("string_code", {}),
    ("wrong_shape", {}),
    ("wrong_shape", {"shape": "document"}),
    ("missing_field", {"field": "access_token"}),
    ("missing_field", {"field": ["scope", "refresh_token_expires_in"]}),
    ("empty_field", {"field": "refresh_token"}),
    ("altered_field", {"field": "open_id", "value": "_000SomebodyElse"}),
    ("altered_field", {"field": "expires_in", "value": "soon"}),
    ("legacy_names", {}),
]

# How long the previous refresh token works after TikTok has rotated it.
LENIENT = {
    "rotate": "always",
    "old_refresh_valid": "until_successor_used",
    "old_access_valid": "no",
}
STRICT = {"strict": True}


def accounts(most: int) -> int:
    """All of them on PostgreSQL, fewer elsewhere: the rules are the same."""
    return most if connection.vendor == "postgresql" else most // 5


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Skip the pauses TikTok asks for, of a second or of five minutes: there are hundreds."""
    monkeypatch.setattr(rate_limit, "NEXT_SECOND", 0.02)
    monkeypatch.setattr(rate_limit, "FIVE_MINUTES", 0.05)
    caplog.set_level(logging.CRITICAL, "tiktok_business")  # otherwise each failure logs a line


@contextmanager
def tiktok(*, over_http: bool, **profile: Any) -> Iterator[WatchedSimulator]:
    """A failing TikTok, in process or behind real sockets."""
    keys: dict[str, Any] = {
        "REFRESH_CONCURRENCY": 16,
        "REQUEST_TIMEOUT_SECONDS": TIMEOUT_SECONDS,
        "MAX_ATTEMPTS": 2,
    }
    kinds = [
        (name, details)
        for name, details in EVERY_KIND
        if not (over_http and name in ONLY_IN_PROCESS)
    ]
    with watched_simulator(**profile) as simulator, simulator.serve() as base_url:
        if over_http:
            keys |= {"SESSION_FACTORY_PATH": None, "API_BASE_URL": f"{base_url}/open_api/v1.3"}
        simulator.fail_randomly(FAILING, kinds, seed=3, path=REFRESH)
        with override_tiktok(**keys):
            yield simulator


def run_until_nothing_is_due() -> None:
    rounds = 0
    while due():
        rounds += 1
        assert rounds < 100, "it goes on for ever"
        end_waits()
        run()


def due() -> int:
    return BusinessAccount.objects.due_for_refresh(timedelta(hours=6)).count()


def let_a_day_pass() -> None:
    """A missing refresh token is noticed only when it is used."""
    BusinessAccount.objects.update(access_token_expires_at=timezone.now())


def test_every_kind_of_fault_takes_part() -> None:
    assert {name for name, _ in EVERY_KIND} == set(FAULTS)


@pytest.mark.parametrize(("over_http", "most"), [(False, 2000), (True, 300)])
def test_f02_f04_f06_f07_f08_everything_recovers_while_the_old_token_lives(
    over_http: bool, most: int
) -> None:
    with tiktok(over_http=over_http, **LENIENT) as simulator:
        open_ids = make_due(simulator, accounts(most))
        run_until_nothing_is_due()
        assert simulator.lost(), "answers were lost"

        simulator.clear_faults()
        let_a_day_pass()
        assert run()[0] == 0
        assert not_live(simulator) == set()
        assert in_status(Status.ACTIVE) == set(open_ids)
        assert simulator.presented_in_vain() == []
        assert not BusinessAccount.objects.exclude(claim_id="").exists()


@pytest.mark.parametrize(("over_http", "most"), [(False, 2000), (True, 300)])
def test_f02_f06_f07_f08_only_lost_answers_cost_a_connection_where_each_token_works_once(
    over_http: bool, most: int
) -> None:
    with tiktok(over_http=over_http, **STRICT) as simulator:
        open_ids = make_due(simulator, accounts(most))
        run_until_nothing_is_due()

        simulator.clear_faults()
        let_a_day_pass()
        run()
        lost = simulator.lost()
        assert lost
        assert in_status(Status.REAUTHORIZATION_REQUIRED) == lost
        assert in_status(Status.ACTIVE) == set(open_ids) - lost
        assert not_live(simulator) == lost
        assert simulator.presented_in_vain() == []
        assert not BusinessAccount.objects.exclude(claim_id="").exists()
