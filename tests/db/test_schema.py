"""Column types that behave alike on every database, and bookkeeping that `save()` leaves alone."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.db import connection

from django_tiktok_business.fields import (
    CaseSensitiveCharField,
    UpdateOnlyBigIntegerField,
)
from django_tiktok_business.models import BusinessAccount
from tests.support.encrypted_rows import (
    account_with_tokens,
    committing,
    reloaded,
    rows,
)

pytestmark = pytest.mark.django_db


def test_bookkeeping_columns_are_plain_fields_to_migrations() -> None:
    paths = {
        name: BusinessAccount._meta.get_field(name).deconstruct()[1]  # type: ignore[union-attr]
        for name in ("claim_id", "claim_expires_at", "credentials_version")
    }
    assert paths == {
        "claim_id": "django.db.models.CharField",
        "claim_expires_at": "django.db.models.DateTimeField",
        "credentials_version": "django.db.models.BigIntegerField",
    }
    assert UpdateOnlyBigIntegerField().clone().__class__ is UpdateOnlyBigIntegerField


def test_f11_full_save_does_not_bring_an_old_claim_back() -> None:
    account = account_with_tokens()
    stale = reloaded(account)
    rows.update(claim_id="ours", credentials_version=7)
    for instance in (account, stale):
        instance.claim_id = "forged"
        instance.save()
        row = reloaded(account)
        assert (row.claim_id, row.credentials_version) == ("ours", 7)


def test_claim_columns_are_written_on_creation() -> None:
    account = account_with_tokens(claim_id="import", credentials_version=3)
    assert (reloaded(account).claim_id, reloaded(account).credentials_version) == ("import", 3)


def test_case_sensitive_field_names_a_collation_on_mysql_alone() -> None:
    parameters = CaseSensitiveCharField(max_length=9).db_parameters(connection)
    expected = "utf8mb4_bin" if connection.vendor == "mysql" else None
    assert parameters.get("collation") == expected


@committing
def test_migration_sql_names_the_collation_on_mysql_alone() -> None:
    out = io.StringIO()
    call_command("sqlmigrate", "tiktok_business", "0001", stdout=out)
    assert ("utf8mb4_bin" in out.getvalue()) == (connection.vendor == "mysql")
