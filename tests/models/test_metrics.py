"""`DailyMetrics`: one row for each account and day, gone with the account."""

from __future__ import annotations

from datetime import date

import pytest
from django.db import IntegrityError, transaction

from django_tiktok_business.models import DailyMetrics
from tests.support.factories import make_account

TODAY = date(2026, 11, 30)

pytestmark = pytest.mark.django_db


def test_account_has_one_row_for_each_day() -> None:
    account, other = make_account(), make_account(open_id="other")
    DailyMetrics.objects.create(account=account, date=TODAY, likes=5)
    DailyMetrics.objects.create(account=other, date=TODAY)
    with pytest.raises(IntegrityError), transaction.atomic():
        DailyMetrics.objects.create(account=account, date=TODAY)
    assert account.daily_metrics.get().likes == 5
    account.delete()
    assert DailyMetrics.objects.get().account == other


def test_what_tiktok_has_not_said_is_unknown_and_not_zero() -> None:
    row = DailyMetrics.objects.create(account=make_account(), date=TODAY)
    row.refresh_from_db()
    counts = {field.name for field in row._meta.fields} - {"id", "account", "date"}
    assert {getattr(row, name) for name in counts} == {None}
    assert str(row) == "2026-11-30"
