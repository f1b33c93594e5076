"""Groups of columns that change together: each names columns that exist."""

from __future__ import annotations

import pytest

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.models.columns import CREDENTIAL_COLUMNS, NO_CLAIM, NO_FAILURE
from tests.support.factories import make_account

COLUMNS = {field.name for field in BusinessAccount._meta.concrete_fields}


def test_groups_name_columns_of_the_model() -> None:
    assert set(CREDENTIAL_COLUMNS) <= COLUMNS
    assert len(set(CREDENTIAL_COLUMNS)) == len(CREDENTIAL_COLUMNS)
    assert set(NO_CLAIM) | set(NO_FAILURE) <= set(CREDENTIAL_COLUMNS)


def test_new_account_has_neither_claim_nor_failure() -> None:
    account = BusinessAccount()
    for name, value in {**NO_CLAIM, **NO_FAILURE}.items():
        assert getattr(account, name) == value


@pytest.mark.django_db
def test_copied_credentials_are_those_columns_and_no_others() -> None:
    row = make_account(username="new", scopes=["video.list"], consecutive_failures=3)
    account = BusinessAccount(app_id=row.app_id, open_id=row.open_id, username="own")
    account.copy_credentials(row)
    assert account.access_token == row.access_token
    for name in COLUMNS - {"id", "created_at", "connected_at", "metrics_synced_at"}:
        is_copied = getattr(account, name) == getattr(row, name)
        assert is_copied is (name != "username"), name
