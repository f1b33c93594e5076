"""The public signals: what each is sent with, when, and that a receiver cannot do harm."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import (
    ReauthorizationRequired,
    ServerError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.accounts import Listener, connect_account, consent, stored
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import override_tiktok, running_simulator

REFRESH = "/tt_user/oauth2/refresh_token/"
REVOKE = "/tt_user/oauth2/revoke/"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator, override_tiktok(MAX_ATTEMPTS=1):
        yield simulator


@contextmanager
def listening_to_all() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The name and the arguments of each signal that is sent inside the block."""
    heard: list[tuple[str, dict[str, Any]]] = []

    def listen(name: str, *, sender: Any, signal: Any, **arguments: Any) -> None:
        assert sender is BusinessAccount
        heard.append((name, arguments))

    with ExitStack() as stack:
        for name in signals.__all__:
            receiver = partial(listen, name)
            getattr(signals, name).connect(receiver)
            stack.callback(getattr(signals, name).disconnect, receiver)
        yield heard


def test_each_signal_has_the_account_and_its_documented_arguments(simulator: Simulator) -> None:
    with listening_to_all() as heard:
        account = connect_account(make_user(), consent(simulator))
        connect_account(account.owner, consent(simulator))
        services.refresh_account(account)
        simulator.fail_next("code", code=50000, path=REFRESH)
        with pytest.raises(ServerError):
            services.refresh_account(account)
        services.sync_profile(account)
        simulator.fail_next("code", code=50000, path=REVOKE)
        services.disconnect_account(account)
    sent = [(name, sorted(arguments)) for name, arguments in heard]
    assert sent == [
        ("account_connected", ["account", "created"]),
        ("account_connected", ["account", "created"]),
        ("tokens_refreshed", ["account"]),
        ("refresh_failed", ["account", "error"]),
        ("profile_synced", ["account"]),
        ("account_disconnected", ["account", "error"]),
    ]
    assert all(arguments["account"] == account for _, arguments in heard)
    assert [heard[0][1]["created"], heard[1][1]["created"]] == [True, False]
    assert isinstance(heard[3][1]["error"], ServerError)
    assert isinstance(heard[5][1]["error"], TikTokBusinessError)


def test_rejection_is_sent_once_when_it_changes_the_status(simulator: Simulator) -> None:
    account = connect(simulator, access_token_expires_at=timezone.now())
    simulator.revoke_grant(account.open_id)
    with listening_to_all() as heard:
        for _ in range(2):
            with pytest.raises(ReauthorizationRequired):
                services.get_access_token(stored(account))
    ((name, arguments),) = heard
    assert (name, sorted(arguments)) == ("reauthorization_required", ["account", "error"])
    assert arguments["account"].status == BusinessAccount.Status.REAUTHORIZATION_REQUIRED
    assert isinstance(arguments["error"], ReauthorizationRequired)


def test_end_of_a_consent_is_sent_by_a_run_with_its_time(simulator: Simulator) -> None:
    ends_at = timezone.now() + timedelta(days=20)
    account = make_account(refresh_token_expires_at=ends_at)
    with listening_to_all() as heard:
        services.refresh_due_accounts()
    assert heard == [("consent_ends_soon", {"account": account, "ends_at": ends_at})]


def test_signal_is_sent_after_the_commit(simulator: Simulator) -> None:
    account = connect(simulator)
    with Listener(signals.profile_synced) as heard:
        with transaction.atomic():
            services.sync_profile(account)
            assert heard == []
        assert heard == [{"account": account}]
        with transaction.atomic():
            services.sync_profile(account)
            transaction.set_rollback(True)
        assert len(heard) == 1


def test_exception_of_a_receiver_is_logged_by_django_and_changes_nothing(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    account = connect(simulator)

    def complain(**arguments: Any) -> None:
        raise LookupError("a bug of the project")

    signals.tokens_refreshed.connect(complain)
    try:
        with (
            Listener(signals.tokens_refreshed) as heard,
            caplog.at_level(logging.ERROR, logger="django.dispatch"),
        ):
            services.refresh_account(account)
    finally:
        signals.tokens_refreshed.disconnect(complain)
    assert heard == [{"account": account}]
    assert "a bug of the project" in caplog.text
    row = stored(account)
    assert (row.access_token, row.refresh_token) == simulator.live_tokens(account.open_id)
