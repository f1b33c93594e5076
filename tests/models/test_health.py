"""Each state of health, in memory and in the database, which agree about every account."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from django_tiktok_business.encryption.fields import Ciphertext
from django_tiktok_business.models import BusinessAccount, Health
from django_tiktok_business.models.health import health_in_database
from tests.support.account_states import DAY, HOUR, every_state, open_ids, unsaved
from tests.support.factories import make_account
from tests.support.simulator import override_tiktok

Status = BusinessAccount.Status
rows = BusinessAccount.objects
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("values", "health"),
    [
        ({}, Health.HEALTHY),
        ({"refresh_token_expires_at": None}, Health.HEALTHY),
        ({"access_token_expires_at": None}, Health.HEALTHY),
        ({"consecutive_failures": 1}, Health.RETRYING),
        ({"status": Status.REAUTHORIZATION_REQUIRED}, Health.RECONNECT_NEEDED),
        ({"status": Status.REVOKED, "consecutive_failures": 4}, Health.REVOKED),
    ],
)
def test_health_follows_the_state(values: dict[str, Any], health: Health) -> None:
    assert make_account(**values).health == health


@pytest.mark.parametrize(
    ("left", "health"),
    [
        (-DAY, Health.RECONNECT_NEEDED),
        (29 * DAY, Health.EXPIRES_SOON),
        (31 * DAY, Health.HEALTHY),
    ],
)
def test_f18_end_of_the_consent_is_reported_early(left: timedelta, health: Health) -> None:
    account = make_account(refresh_token_expires_at=timezone.now() + left)
    assert account.health == health
    assert rows.in_health(health).get() == account
    assert rows.needs_attention().exists() is (health != Health.HEALTHY)
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=0):
        assert account.health == (
            Health.RECONNECT_NEEDED if left < timedelta(0) else Health.HEALTHY
        )


@pytest.mark.parametrize("column", ["access_token", "refresh_token"])
def test_f22_unreadable_account_says_so(column: str) -> None:
    account = make_account()
    stranger = make_account(open_id="stranger")
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE tiktok_business_businessaccount SET {column} = 'x' WHERE id = %s", [account.pk]
        )
    listed = {row.pk: row.health for row in rows.all()}
    assert listed == {account.pk: Health.UNDECRYPTABLE, stranger.pk: Health.HEALTHY}


@pytest.mark.parametrize("keys", [["models-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"], "no list"])
def test_f22_without_the_key_every_account_says_so(keys: Any) -> None:
    account = make_account()
    make_account(open_id="blank", access_token="", refresh_token="")
    with override_tiktok(ENCRYPTION_KEYS=keys):
        assert [row.health for row in rows.order_by("pk")] == [
            Health.UNDECRYPTABLE,
            Health.HEALTHY,
        ]
        assert not rows.get(pk=account.pk).is_decryptable()


@pytest.mark.parametrize("warning_days", [0, 5, 30, 365])
def test_f22_query_by_health_finds_the_accounts_of_that_health(warning_days: int) -> None:
    accounts = rows.bulk_create(every_state())
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=warning_days):
        for health in Health:
            expected = open_ids(account for account in accounts if account.health == health)
            assert open_ids(rows.in_health(health)) == expected
            assert open_ids(rows.in_health(health.value)) == expected
        found = [account for health in Health for account in rows.in_health(health)]
    assert len(found) == len(accounts) == 144


def test_f22_query_by_health_finds_tokens_under_keys_that_are_not_configured() -> None:
    account, other = make_account(), make_account(open_id="other", refresh_token="")
    make_account(open_id="blank", access_token="", refresh_token="")
    make_account(open_id="gone", status=Status.REVOKED)
    for keys in (["models-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"], "no list"):
        with override_tiktok(ENCRYPTION_KEYS=keys):
            assert set(rows.in_health(Health.UNDECRYPTABLE)) == {account, other}
            assert open_ids(rows.in_health(Health.HEALTHY)) == {"blank"}
            listed = dict(rows.values_list("open_id", health_in_database()))
            assert listed[account.open_id] == listed["other"] == Health.UNDECRYPTABLE
            assert (listed["blank"], listed["gone"]) == (Health.HEALTHY, Health.REVOKED)
    assert not rows.in_health(Health.UNDECRYPTABLE).exists()


@pytest.mark.parametrize("column", ["access_token", "refresh_token"])
def test_f22_query_by_health_goes_by_the_key_and_not_by_what_is_behind_it(column: str) -> None:
    account, damaged = make_account(), make_account(open_id="damaged")
    key_id = account.stored()[column].key_id
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE tiktok_business_businessaccount SET {column} = %s WHERE id = %s",
            [f"ttb1:{key_id}:AAAA", damaged.pk],
        )
    assert set(rows.in_health(Health.HEALTHY)) == {account, damaged}
    assert {row.health for row in rows.without_tokens()} == {Health.HEALTHY}
    assert rows.get(pk=damaged.pk).health is Health.UNDECRYPTABLE
    loaded = rows.without_tokens().get(pk=damaged.pk)
    loaded.refresh_from_db(fields=["access_token", "refresh_token"])
    assert loaded.health is Health.UNDECRYPTABLE


def test_accounts_without_tokens_know_their_health_and_load_no_token() -> None:
    rows.bulk_create(every_state())
    with CaptureQueriesContext(connection) as queries:
        listed = {row.open_id: row.health for row in rows.without_tokens()}
    assert len(queries) == 1
    assert listed == {row.open_id: row.health for row in rows.all()}
    quote = connection.ops.quote_name
    selected = queries[0]["sql"].partition(" FROM ")[0]
    for column in ("access_token", "refresh_token"):
        bare = f"{quote(BusinessAccount._meta.db_table)}.{quote(column)}"
        assert selected.count(bare) == selected.count(f"({bare}, 1, 14)") == 1


def test_health_in_the_database_is_that_of_the_account() -> None:
    rows.bulk_create(every_state())
    found = dict(rows.values_list("open_id", health_in_database()))
    assert found == {row.open_id: row.health for row in rows.all()}


@pytest.mark.parametrize(
    ("values", "is_overdue"),
    [
        ({"access_token_expires_at": timezone.now() - 2 * HOUR}, True),
        ({"access_token_expires_at": timezone.now() - HOUR / 2}, False),
        ({"access_token_expires_at": None}, False),
        ({"next_attempt_at": timezone.now() + HOUR}, False),
        ({"next_attempt_at": timezone.now() - HOUR / 2}, False),
        ({"next_attempt_at": timezone.now() - 2 * HOUR, "consecutive_failures": 7}, True),
        ({"refresh_token_expires_at": timezone.now() - DAY}, False),
        ({"refresh_token_expires_at": None}, True),
        ({"status": Status.REVOKED}, False),
        ({"status": Status.REAUTHORIZATION_REQUIRED}, False),
        ({"app_id": "7000000000000000002"}, False),
    ],
)
def test_overdue_are_accounts_that_a_batch_should_have_refreshed(
    values: dict[str, Any], is_overdue: bool
) -> None:
    make_account(**{"access_token_expires_at": timezone.now() - 2 * HOUR, **values})
    assert rows.overdue().exists() is is_overdue
    with override_tiktok(ENCRYPTION_KEYS=["models-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"]):
        assert not rows.overdue().exists()


def test_query_by_health_refuses_an_unknown_one() -> None:
    with pytest.raises(ValueError, match="poorly"):
        rows.in_health("poorly")


# Token columns: under the configured key, under an unknown one, no ciphertext, empty.
TOKENS = ["act.readable", Ciphertext("ttb1:00000000:gAAAAA", "row"), Ciphertext("act.x", "row"), ""]


def accounts_at_every_boundary(warning: timedelta) -> Iterator[BusinessAccount]:
    """One row for each combination of the facts that decide, close to each limit in time."""
    now, moment = timezone.now(), timedelta(minutes=5)  # more than this test takes
    ends = [None, now - DAY, now - moment, now + moment]
    ends += [now + warning - moment, now + warning + moment, now + warning + DAY]
    combinations = itertools.product(Status, ends, [0, 1, 9], TOKENS, TOKENS)
    for number, (status, ends_at, failures, access, refresh) in enumerate(combinations):
        yield unsaved(
            open_id=f"account {number}",
            status=status,
            refresh_token_expires_at=ends_at,
            consecutive_failures=failures,
            access_token=access,
            refresh_token=refresh,
        )


@pytest.mark.parametrize("warning_days", [0, 30])
def test_f22_python_and_sql_agree_about_every_account(warning_days: int) -> None:
    rows.bulk_create(accounts_at_every_boundary(warning_days * DAY))
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=warning_days):
        in_memory = {row.open_id: row.health for row in rows.all()}
        in_database = dict(rows.values_list("open_id", health_in_database()))
        found = [(row.open_id, health) for health in Health for row in rows.in_health(health)]
    assert len(in_memory) == 3 * 7 * 3 * 16
    assert set(in_memory.values()) == set(Health) - (
        {Health.EXPIRES_SOON} if not warning_days else set()
    )
    assert in_database == in_memory
    assert dict(found) == in_memory
    assert len(found) == len(in_memory), "no account is in two states"


def test_each_state_has_a_label_and_advice_of_its_own() -> None:
    assert len({str(health.label) for health in Health}) == len(Health)
    assert len({health.advice for health in Health}) == len(Health)
    with translation.override("de"):
        assert "This site" not in Health.HEALTHY.advice


def test_only_a_person_can_help_where_an_account_cannot_be_used() -> None:
    needing = {health for health in Health if health.needs_person}
    assert needing == {Health.RECONNECT_NEEDED, Health.UNDECRYPTABLE}


def test_state_is_its_value_and_nothing_more() -> None:
    assert Health("healthy") is Health.HEALTHY
    assert Health.values == [
        *("revoked", "reconnect_needed", "undecryptable", "retrying", "expires_soon", "healthy"),
    ]
    assert [pickle.loads(pickle.dumps(health)) for health in Health] == list(Health)
    assert f"{Health.EXPIRES_SOON}" == "expires_soon"
