"""The batch when something of its own goes wrong: answers in flight are saved first."""

from __future__ import annotations

import pytest

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.services import RefreshResult
from tests.factories import connect
from tests.utils import override_tiktok, running_simulator

ACCOUNTS = ("harbour_bakery", "bike_shop", "tea_house", "book_corner")
DAY_SECONDS = 86_400


@pytest.mark.django_db
def test_f14_callback_that_always_raises_costs_no_answer_that_is_in_flight() -> None:
    def complain(result: RefreshResult) -> None:
        raise LookupError(result.open_id)

    with running_simulator(rotate="always", old_refresh_valid="no") as simulator:
        for name in ACCOUNTS:
            connect(simulator, name)
        simulator.configure(latency_seconds=0.2)  # so that all are in flight at once
        with (
            override_tiktok(REFRESH_WITHIN_SECONDS=DAY_SECONDS),
            pytest.raises(LookupError),
        ):
            services.refresh_due_accounts(
                concurrency=len(ACCOUNTS), requests_per_minute=0, on_result=complain
            )
        assert simulator.count("/refresh_token/") == len(ACCOUNTS)
        for account in BusinessAccount.objects.all():
            assert simulator.live_tokens(account.open_id) == (
                account.access_token,
                account.refresh_token,
            )
