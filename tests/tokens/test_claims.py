"""Claim rows: one worker at a time, until the claim expires."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db.models import Q
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import claims
from tests.support.accounts import pair, stored
from tests.support.factories import connect, make_account
from tests.support.simulator import override_tiktok

Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


def open_ids(rows: list[BusinessAccount]) -> set[str]:
    return {row.open_id for row in rows}


def test_free_rows_that_meet_the_condition_are_claimed_once() -> None:
    for open_id in ("one", "two", "other"):
        make_account(open_id=open_id)
    make_account(open_id="disconnected", status=Status.REVOKED)
    make_account(open_id="of another app", app_id="42")
    pks = list(BusinessAccount.objects.values_list("pk", flat=True))
    condition = ~Q(open_id="other")

    claimed = claims.claim(pks, "default", condition=condition)
    assert open_ids(claimed) == {"one", "two"}
    assert claims.claim(pks, "default", condition=condition) == []
    assert open_ids(claims.claim(pks, "default")) == {"other"}


def test_claim_can_be_repeated_with_its_id() -> None:
    account = make_account()
    claim_id = claims.new_claim_id()
    first = claims.claim([account.pk], "default", claim_id=claim_id)
    assert claims.claim([account.pk], "default", claim_id=claim_id) == first == [account]


def test_expired_claim_is_taken_over_and_marked_as_such() -> None:
    account = make_account()
    (first,) = claims.claim([account.pk], "default")
    BusinessAccount.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=60))
    (second,) = claims.claim([account.pk], "default")
    assert not first.claim_id.startswith(claims.TAKEN_OVER)
    assert second.claim_id.startswith(claims.TAKEN_OVER)


def test_claim_is_released_by_its_holder_only() -> None:
    account = make_account()
    (held,) = claims.claim([account.pk], "default")
    claims.release(account, "default", bio="not by me")
    assert (stored(account).claim_id, stored(account).bio) == (held.claim_id, "")
    claims.release(held, "default", bio="by me")
    assert (stored(account).claim_id, stored(account).bio) == ("", "by me")


def test_calls_have_to_end_before_the_claim_does() -> None:
    with override_tiktok(CLAIM_SECONDS=120, REQUEST_TIMEOUT_SECONDS=20):
        times = claims.ClaimTimes.now()
    now = time.monotonic()
    assert now < times.begin_by < times.end_by < now + 120
    with override_tiktok(CLAIM_SECONDS=30, REQUEST_TIMEOUT_SECONDS=20):
        times = claims.ClaimTimes.now()
    assert times.begin_by > time.monotonic(), "a call may begin at once"


def test_f12_claim_of_a_dead_worker_expires(simulator: Simulator) -> None:
    account = connect(simulator)
    with override_tiktok(CLAIM_SECONDS=1):
        started = time.monotonic()
        assert claims.claim([account.pk], "default") != []
        assert claims.claim([account.pk], "default") == []
        services.refresh_account(account)
        assert time.monotonic() - started > 0.8
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)
