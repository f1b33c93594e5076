"""Store the grant of a new consent, whatever happens to the account at the same time."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core import mail
from django.db import DataError, OperationalError, connections, transaction
from django.db.models.signals import post_save
from django.test import override_settings
from django.utils import timezone

from django_tiktok_business import cache, services, signals
from django_tiktok_business.api.oauth import TokenGrant
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import (
    AccountBusyError,
    AccountOwnedByAnotherUserError,
    ConfigurationError,
)
from django_tiktok_business.masking import Secret
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.tokens import connect as token_connect
from tests.support.accounts import Listener, connect_account, consent, pair, stored
from tests.support.factories import connect, make_user
from tests.support.simulator import (
    meanwhile,
    next_statement,
    override_tiktok,
    running_simulator,
    wait_for_savers,
)

REFRESH = "/tt_user/oauth2/refresh_token/"
TOKEN = "/tt_user/oauth2/token/"
Status = BusinessAccount.Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_new_consent_of_unknown_length_does_not_keep_the_old_end(simulator: Simulator) -> None:
    user = make_user()
    account = connect_account(user, consent(simulator))
    simulator.fail_next("missing_field", field="refresh_token_expires_in", path=TOKEN)
    connect_account(user, consent(simulator))
    assert stored(account).refresh_token_expires_at is None


def test_f02_connecting_sends_no_post_save_whose_receiver_could_undo_it(
    simulator: Simulator,
) -> None:
    heard: list[Any] = []
    receiver = lambda **arguments: heard.append(arguments)  # noqa: E731 -- a line, and never run
    post_save.connect(receiver, sender=BusinessAccount)
    try:
        account = connect_account(make_user("ada"), consent(simulator))
    finally:
        post_save.disconnect(receiver, sender=BusinessAccount)
    assert heard == []
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def test_f17_expiry_counts_from_the_time_of_the_database(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine whose clock is known to be days ahead."""
    monkeypatch.setattr(clock, "instant", lambda: timezone.now() - timedelta(days=3))
    account = connect_account(make_user("ada"), consent(simulator))
    assert account.access_token_expires_at is not None
    ahead = account.access_token_expires_at - timezone.now()
    assert timedelta(days=-2, minutes=-1) < ahead < timedelta(days=-2, minutes=1)


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.parametrize("refusals", [1, 10**6])
def test_f02_consent_is_stored_when_no_second_connection_can_be_had(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    """In the caller's transaction the pair is stored on a second connection, or later."""
    ada = make_user("ada")
    code = consent(simulator)
    database = type(connections["default"])
    new_connection = database.get_new_connection
    refused: list[str] = []

    def refuse(self: Any, parameters: Any) -> Any:
        thread = threading.current_thread().name
        if len(refused) < refusals and thread.startswith("ThreadPool"):
            refused.append(thread)
            raise OperationalError("sorry, too many clients already")
        return new_connection(self, parameters)

    monkeypatch.setattr(database, "get_new_connection", refuse)
    with suppress(OperationalError), transaction.atomic():
        connect_account(ada, code)
    wait_for_savers()
    assert refused
    row = BusinessAccount.objects.get()
    assert pair(row) == simulator.live_tokens(row.open_id)


def test_f02_consent_whose_row_cannot_be_read_is_stored_later(simulator: Simulator) -> None:
    ada = make_user("ada")
    code = consent(simulator)
    with next_statement("SELECT", DataError("a fault of this moment")) as fail:
        meanwhile(fail)
        with pytest.raises(DataError):
            connect_account(ada, code)
    wait_for_savers()
    row = BusinessAccount.objects.get()
    assert pair(row) == simulator.live_tokens(row.open_id)


def test_f45_answer_that_is_stored_late_does_not_replace_a_newer_one(
    simulator: Simulator,
) -> None:
    """One process could not reach the database while another one connected the account again."""
    ada = make_user("ada")
    connect_account(ada, consent(simulator))
    issued = simulator.issue_grant("harbour_bakery")
    ends_at = timezone.now() + timedelta(days=1)
    grant = TokenGrant(
        Secret(issued["access_token"]),
        Secret(issued["refresh_token"]),
        ends_at,
        ends_at,
        issued["open_id"],
        ["user.info.basic"],
    )
    older = token_connect._NewGrant(ada, grant, "default", sent_at=timezone.now())
    connect_account(ada, consent(simulator))
    older.store_after_all()
    row = BusinessAccount.objects.get()
    assert pair(row) == simulator.live_tokens(row.open_id)


def test_f45_reconnect_of_a_user_who_is_deleted_meanwhile_is_stored(simulator: Simulator) -> None:
    ada = make_user("ada")
    connect_account(ada, consent(simulator))
    meanwhile(lambda: get_user_model().objects.filter(pk=ada.pk).delete())
    account = connect_account(ada, consent(simulator))
    assert stored(account).owner is None
    assert pair(stored(account)) == simulator.live_tokens(account.open_id)


def refuse(simulator: Simulator) -> None:
    """Let another user return with a consent of the same account holder."""
    with pytest.raises(AccountOwnedByAnotherUserError):
        connect_account(make_user("bob"), consent(simulator))


@pytest.mark.parametrize("old_access_valid", ["yes", "no"])
@pytest.mark.parametrize("old_refresh_valid", ["yes", "no", "until_successor_used"])
def test_f45_refused_consent_leaves_the_owner_a_living_pair_whatever_it_ends_at_tiktok(
    simulator: Simulator, old_access_valid: str, old_refresh_valid: str
) -> None:
    simulator.configure(old_access_valid=old_access_valid, old_refresh_valid=old_refresh_valid)
    owner = make_user("ada")
    connect_account(owner, consent(simulator))
    refuse(simulator)
    row = BusinessAccount.objects.get()
    assert (row.owner, row.status) == (owner, Status.ACTIVE)
    services.refresh_account(row)
    assert pair(row) == simulator.live_tokens(row.open_id)


def test_f45_refused_consent_that_ended_the_owners_tokens_renews_them_for_the_owner(
    simulator: Simulator,
) -> None:
    owner = make_user("ada")
    account = connect_account(owner, consent(simulator))
    refuse(simulator)
    row = stored(account)
    assert pair(row) == simulator.live_tokens(row.open_id) != pair(account)
    assert (row.owner, row.status) == (owner, Status.ACTIVE)


def test_f45_refused_consent_leaves_tokens_alone_whose_access_token_has_merely_ended() -> None:
    with running_simulator() as simulator, override_tiktok(MAX_ATTEMPTS=1):
        account = connect(simulator, owner=make_user("ada"))
        BusinessAccount.objects.update(access_token_expires_at=timezone.now())
        simulator.move_clock(advance_seconds=2 * 86_400)
        refuse(simulator)
        row = stored(account)
        assert row.refresh_token == account.refresh_token
        assert pair(row) == simulator.live_tokens(row.open_id)
        assert simulator.count(REFRESH) == 1


def test_f45_refused_consent_renews_tokens_that_cannot_be_refreshed_any_more(
    simulator: Simulator,
) -> None:
    owner = make_user("ada")
    account = connect_account(owner, consent(simulator))
    BusinessAccount.objects.update(access_token_expires_at=timezone.now())
    refuse(simulator)
    row = stored(account)
    assert pair(row) == simulator.live_tokens(row.open_id)
    assert (row.owner, row.status) == (owner, Status.ACTIVE)


def test_f45_refused_consent_is_dropped_when_the_owner_disconnects(
    simulator: Simulator,
) -> None:
    account = connect_account(make_user("ada"), consent(simulator))

    def disconnect() -> None:
        services.disconnect_account(stored(account))

    meanwhile(lambda: meanwhile(disconnect))  # during the refresh that proves the owner's tokens
    refuse(simulator)
    row = stored(account)
    assert (row.status, row.access_token, row.refresh_token) == (Status.REVOKED, "", "")


def test_f45_refused_consents_ask_tiktok_a_bounded_number_of_times(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LIMIT_SECONDS", 10**10)
    monkeypatch.setattr(token_connect, "CHECKS_PER_MINUTE", 2)
    simulator.configure(old_access_valid="yes", old_refresh_valid="yes")
    connect_account(make_user("ada"), consent(simulator))
    bob = make_user("bob")
    for _ in range(4):
        with pytest.raises(AccountOwnedByAnotherUserError):
            connect_account(bob, consent(simulator))
    assert simulator.count(REFRESH) == 2


@pytest.mark.parametrize("is_first_stored_last", [True, False])
@pytest.mark.parametrize("old_access_valid", ["yes", "no"])
def test_f45_of_two_consents_that_cross_the_valid_one_is_kept(
    simulator: Simulator, old_access_valid: str, *, is_first_stored_last: bool
) -> None:
    simulator.configure(old_access_valid=old_access_valid)
    ada = make_user("ada")
    connect_account(ada, consent(simulator))

    def cross() -> None:
        connect_account(ada, consent(simulator))
        if not is_first_stored_last:  # a third one ends what the second has stored
            services.refresh_account(BusinessAccount.objects.get())

    with override_tiktok(NOTIFY=["ops@example.com"]):
        meanwhile(cross)
        account = connect_account(ada, consent(simulator))
    assert pair(stored(account)) == pair(account) == simulator.live_tokens(account.open_id)
    assert stored(account).status == Status.ACTIVE
    assert mail.outbox == []


def test_f45_consent_that_was_issued_after_the_one_that_was_stored_replaces_it(
    simulator: Simulator,
) -> None:
    ada = make_user("ada")
    first = connect_account(ada, consent(simulator))
    answer = pair(first)

    def store_an_older_answer() -> None:
        access, refresh = answer
        row = stored(first)
        row.access_token, row.refresh_token = Secret(access), Secret(refresh)
        row.last_refreshed_at = timezone.now()
        row.credentials_version += 1
        row.save()

    with override_tiktok(NOTIFY=["ops@example.com"]):
        meanwhile(store_an_older_answer)
        account = connect_account(ada, consent(simulator))
    assert pair(stored(account)) == simulator.live_tokens(account.open_id) != answer
    assert stored(account).status == Status.ACTIVE
    assert mail.outbox == []  # no notice about a pair that was replaced at once


def test_f45_consent_is_stored_where_the_other_pair_is_not_proved(
    simulator: Simulator,
) -> None:
    ada = make_user("ada")
    connect_account(ada, consent(simulator))
    with next_statement("UPDATE", DataError("a fault of this moment")) as fail:

        def cross() -> None:
            connect_account(ada, consent(simulator))
            fail()  # the next statement is the claim

        meanwhile(cross)
        account = connect_account(ada, consent(simulator))
    assert simulator.count(REFRESH) == 0
    assert stored(account).credentials_version == 3


def test_f45_consent_is_stored_where_tiktok_does_not_say_which_pair_is_valid(
    simulator: Simulator,
) -> None:
    ada = make_user("ada")
    connect_account(ada, consent(simulator))

    def cross() -> None:
        connect_account(ada, consent(simulator))
        simulator.fail_next(code=50000, path=REFRESH)

    meanwhile(cross)
    account = connect_account(ada, consent(simulator))
    assert stored(account).credentials_version == 3


@pytest.mark.parametrize("status", ["revoked", "reauthorization_required"])
def test_f45_refused_consent_does_not_bring_an_account_back(
    simulator: Simulator, status: str
) -> None:
    connect_account(make_user("ada"), consent(simulator))
    BusinessAccount.objects.update(status=status)
    before = BusinessAccount.objects.values().get()
    refuse(simulator)
    assert BusinessAccount.objects.values().get() == before


def test_f45_refused_consent_changes_no_token_while_tiktok_is_silent(simulator: Simulator) -> None:
    account = connect_account(make_user("ada"), consent(simulator))
    simulator.fail_next(code=50000, path=REFRESH)
    refuse(simulator)
    row = stored(account)
    assert pair(row) == pair(account)
    assert (row.owner, row.status) == (account.owner, Status.ACTIVE)


def test_f45_user_who_may_change_accounts_renews_it_for_its_owner(simulator: Simulator) -> None:
    account = connect_account(make_user("ada"), consent(simulator))
    manager = make_user("bob")
    manager.user_permissions.add(Permission.objects.get(codename="change_businessaccount"))
    connect_account(manager, consent(simulator))
    row = stored(account)
    assert row.owner is not None
    assert row.owner.username == "ada"
    assert pair(row) == simulator.live_tokens(row.open_id) != pair(account)


def test_account_without_an_owner_becomes_the_connecting_users(simulator: Simulator) -> None:
    account = connect(simulator, owner=None)
    user = make_user()
    connect_account(user, consent(simulator))
    assert stored(account).owner == user


def test_f45_second_request_at_the_same_moment_renews_the_first_ones_row(
    simulator: Simulator,
) -> None:
    user = make_user()
    first_code, second_code = consent(simulator), consent(simulator)
    meanwhile(lambda: connect_account(user, second_code))  # between the exchange and the insert
    account = connect_account(user, first_code)
    row = BusinessAccount.objects.get()
    assert row.pk == account.pk
    assert row.access_token == account.access_token


@pytest.mark.parametrize(
    "keys", ["not a list", ["not UTF-8 in the environment: \udcff, 0123456789"]]
)
def test_missing_or_unusable_key_shows_before_the_code_is_used_up(
    simulator: Simulator, keys: Any
) -> None:
    user, code = make_user(), consent(simulator)
    with override_tiktok(ENCRYPTION_KEYS=keys), pytest.raises(ConfigurationError):
        connect_account(user, code)
    assert simulator.count(TOKEN) == 0
    connect_account(user, code)
    assert BusinessAccount.objects.count() == 1


@pytest.mark.parametrize("known", [False, True])
def test_f15_new_connection_survives_the_rollback_of_the_caller(
    simulator: Simulator, known: bool
) -> None:
    user = make_user()
    if known:
        connect_account(user, consent(simulator))
    code = consent(simulator)
    with Listener(signals.account_connected) as heard:
        with transaction.atomic():
            account = connect_account(user, code)
            transaction.set_rollback(True)
        wait_for_savers()
    row = BusinessAccount.objects.get()
    assert (row.open_id, row.owner) == (account.open_id, user)
    assert pair(row) == pair(account) == simulator.live_tokens(row.open_id)
    assert [event["created"] for event in heard] == [not known]


def test_f15_new_connection_is_stored_once_when_the_caller_commits(simulator: Simulator) -> None:
    user = make_user()
    with transaction.atomic():
        account = connect_account(user, consent(simulator))
    wait_for_savers()
    row = BusinessAccount.objects.get()
    assert (row.pk, row.credentials_version) == (account.pk, 1)
    assert pair(row) == simulator.live_tokens(row.open_id)


@pytest.mark.databases("sqlite")
def test_connection_of_a_user_who_is_rolled_back_is_given_up_and_logged(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    with transaction.atomic():
        connect_account(make_user(), consent(simulator))
        transaction.set_rollback(True)
    wait_for_savers()
    assert not BusinessAccount.objects.exists()
    assert "could not be stored: The account is being connected" in caplog.text


@pytest.mark.databases("postgresql", "mysql")
def test_new_consent_for_a_row_that_the_caller_has_locked_is_stored_later(
    simulator: Simulator,
) -> None:
    user = make_user()
    account = connect_account(user, consent(simulator))
    code = consent(simulator)
    with transaction.atomic():
        BusinessAccount.objects.filter(pk=account.pk).update(bio="locked")
        with pytest.raises(AccountBusyError, match="locked the account"):
            connect_account(user, code)
    wait_for_savers()
    assert pair(stored(account)) == simulator.live_tokens(account.open_id) != pair(account)


def test_new_connection_survives_an_interrupted_save(simulator: Simulator) -> None:
    user, code = make_user(), consent(simulator)
    with next_statement("INSERT", KeyboardInterrupt()) as interrupt:
        meanwhile(interrupt)
        with pytest.raises(KeyboardInterrupt):
            connect_account(user, code)
    wait_for_savers()
    row = BusinessAccount.objects.get()
    assert row.owner == user
    assert pair(row) == simulator.live_tokens(row.open_id)


class NoRelations:
    """A router that, as by default, allows no relations between two databases."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


@override_settings(DATABASE_ROUTERS=["tests.tokens.test_connect.NoRelations"])
def test_user_who_was_read_from_a_replica_can_connect(simulator: Simulator) -> None:
    user = make_user()
    user._state.db = "replica"
    account = connect_account(user, consent(simulator))
    assert stored(account).owner_id == user.pk


def test_user_who_is_deleted_while_at_tiktok_gets_a_typed_error(simulator: Simulator) -> None:
    user, code = make_user(), consent(simulator)
    meanwhile(lambda: get_user_model().objects.all().delete())
    with pytest.raises(AccountBusyError, match="somebody else"):
        connect_account(user, code)
    assert not BusinessAccount.objects.exists()


class Newcomer:
    """A user who may change accounts; during the permission check the owner changes."""

    pk = 0

    def has_perm(self, permission: str) -> bool:
        assert permission == "tiktok_business.change_businessaccount"
        other = get_user_model().objects.get(username="bob")
        BusinessAccount.objects.update(owner=other)
        return True


def test_f45_owner_that_changes_at_the_same_moment_is_kept(simulator: Simulator) -> None:
    ada, bob = make_user("ada"), make_user("bob")
    account = connect(simulator, owner=ada)
    connect_account(Newcomer(), consent(simulator))
    row = stored(account)
    assert row.owner == bob
    assert pair(row) == simulator.live_tokens(row.open_id)
