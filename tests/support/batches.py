"""What the tests of batches share: accounts that are due, and what a run did to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.dispatch import Signal
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect

ACCOUNTS = ("harbour_bakery", "bike_shop", "tea_house", "book_corner")


def make_due(simulator: Simulator, name: str, minutes: float) -> BusinessAccount:
    expires_at = timezone.now() + timedelta(minutes=minutes)
    return connect(simulator, name, access_token_expires_at=expires_at)


def are_live(simulator: Simulator) -> bool:
    return all(
        simulator.live_tokens(account.open_id) == (account.access_token, account.refresh_token)
        for account in BusinessAccount.objects.all()
    )


def claimed_rows() -> int:
    return BusinessAccount.objects.exclude(claim_id="", claim_expires_at=None).count()


def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in BusinessAccount.objects.order_by("pk").values()]


@contextmanager
def errors_sent_with(signal: Signal) -> Iterator[list[Any]]:
    """The errors that a signal of ours is sent with, by primary key."""
    heard: list[Any] = []

    def listen(account: BusinessAccount, error: Exception, **kwargs: Any) -> None:
        heard.append((account.pk, type(error)))

    signal.connect(listen)
    try:
        yield heard
    finally:
        signal.disconnect(listen)
