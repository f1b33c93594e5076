"""The columns that an answer of TikTok changes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from django_tiktok_business.api.oauth import TokenGrant
from django_tiktok_business.exceptions import APIError, RetryableError
from django_tiktok_business.masking import Secret
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.tokens import rows
from tests.support.accounts import pair, stored
from tests.support.factories import make_account

pytestmark = pytest.mark.django_db


def update(account: BusinessAccount, changes: dict[str, object]) -> BusinessAccount:
    assert rows.store_update(
        lambda: BusinessAccount.objects.filter(pk=account.pk).update(**changes), "default"
    )
    return stored(account)


def test_grant_changes_the_pair_and_ends_the_record_of_failures() -> None:
    account = make_account(consecutive_failures=3, status="reauthorization_required")
    expires_at = timezone.now() + timedelta(days=1)
    grant = TokenGrant(
        Secret("act.new"), Secret("rft.new"), expires_at, expires_at, None, ["video.list"]
    )
    row = update(account, rows.credential_changes(account, grant))
    assert pair(row) == ("act.new", "rft.new")
    assert (row.access_token_expires_at, row.refresh_token_expires_at) == (expires_at, expires_at)
    assert (row.scopes, row.status, row.consecutive_failures) == (["video.list"], "active", 0)
    assert row.credentials_version == account.credentials_version + 1


def test_grant_without_optional_fields_keeps_what_is_stored() -> None:
    account = make_account(scopes=["video.list"])
    grant = TokenGrant(Secret("act.new"), None, None, None, None, None)
    row = update(account, rows.credential_changes(account, grant))
    assert pair(row) == ("act.new", account.refresh_token)
    assert row.refresh_token_expires_at == account.refresh_token_expires_at
    assert row.scopes == ["video.list"]
    assert row.access_token_expires_at is None, "the old expiry says nothing about the new token"


@pytest.mark.parametrize(
    ("error", "code", "request_id"),
    [
        (APIError("Not today.", code=50000, request_id="2026"), 50000, "2026"),
        (RetryableError("Not today."), None, ""),
    ],
)
def test_failure_is_recorded_and_counted(
    error: APIError | RetryableError, code: int | None, request_id: str
) -> None:
    row = update(make_account(consecutive_failures=1), rows.failure_changes(error))
    assert (row.consecutive_failures, row.last_error_message) == (2, "Not today.")
    assert (row.last_error_code, row.last_error_request_id) == (code, request_id)
    assert row.last_error_at is not None


def test_deleted_row_cannot_be_reloaded() -> None:
    account = make_account()
    BusinessAccount.objects.filter(pk=account.pk).update(bio="new")
    assert rows.reload(account, "default")
    assert account.bio == "new"
    BusinessAccount.objects.all().delete()
    assert not rows.reload(account, "default")
