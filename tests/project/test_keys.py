"""docs/keys.rst is true: each of its situations is acted out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.db import connection, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ModelState
from django.test import Client
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_user
from tests.support.newcomer import ROOT, Document
from tests.support.simulator import override_tiktok, running_simulator

DOCUMENT = Document("docs/keys.rst")
OLD = "old-key-old-key-old-key-old-key-0123456789"
NEW = "new-key-new-key-new-key-new-key-0123456789"
Status = BusinessAccount.Status

in_transactions = pytest.mark.django_db(transaction=True)


def keys(*secrets: str) -> Any:
    return override_tiktok(ENCRYPTION_KEYS=list(secrets))


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator:
        yield simulator


def run(*arguments: str) -> tuple[int, str]:
    """Run a command; return its exit status and the last line that it prints."""
    stdout = StringIO()
    status = 0
    try:
        call_command(*arguments, stdout=stdout)
    except CommandError as error:
        status = error.returncode
    return status, stdout.getvalue().splitlines()[-1]


def connect_again(simulator: Simulator, user: User, account: str) -> None:
    browser = Client(headers={"host": "testserver.example"})
    browser.force_login(user)
    leaving = browser.post("/tiktok/connect/", secure=True)
    coming_back = simulator.authorize(leaving["Location"], account=account)
    assert browser.get(coming_back, secure=True).status_code == 302


def test_document_is_valid_linked_and_shipped() -> None:
    assert DOCUMENT.warnings == ""
    assert "docs/keys.rst" in Document("README.rst").section("Encryption keys")
    assert "graft docs" in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()


def test_commands_exist() -> None:
    commands = [command.split() for command, _ in DOCUMENT.commands()]
    assert len(commands) == 4
    for python, manage, name, *options in commands:
        assert (python, manage) == ("python", "manage.py")
        command = load_command_class(get_commands()[name], name)
        command.create_parser("manage.py", name).parse_args(options)


@in_transactions
def test_lost_key_costs_nothing_but_a_new_consent(simulator: Simulator) -> None:
    ada = make_user("ada", is_superuser=True)
    with keys(OLD):
        account = connect(simulator, username="harbour_bakery", owner=ada, bio="kept")
    with keys(NEW):
        status, line = run("rotate_encryption_keys", "--dry-run")
        assert (status, line) == (1, "would_rotate=0 current=0 unreadable=1 busy=0")
        assert "undecryptable=1" in run("refresh_tokens", "--all")[1]
        assert simulator.count("/tt_user/oauth2/refresh_token/") == 0
        connect_again(simulator, ada, "harbour_bakery")
        row = BusinessAccount.objects.get()
        assert (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)
        assert (row.pk, row.owner, row.status) == (account.pk, ada, Status.ACTIVE)
    with keys(NEW, OLD):
        assert run("rotate_encryption_keys")[0] == 0


@in_transactions
def test_leaked_key_opens_nothing_once_it_is_replaced(simulator: Simulator) -> None:
    ada = make_user("ada", is_superuser=True)
    with keys(OLD):
        account = connect(simulator, owner=ada)
        leaked = account.access_token, account.refresh_token
    with keys(NEW, OLD):
        assert run("rotate_encryption_keys")[0] == 0
    with keys(OLD):
        assert not BusinessAccount.objects.get().is_decryptable()
    with keys(NEW):
        status, line = run("refresh_tokens", "--all")
        assert (status, line.split()[0]) == (0, "refreshed=1")
        row = BusinessAccount.objects.get()
        assert row.access_token != leaked[0]
        assert services.disconnect_account(row) is None
        assert simulator.live_tokens(row.open_id) is None
        connect_again(simulator, ada, "harbour_bakery")
        row = BusinessAccount.objects.get()
        assert row.status == Status.ACTIVE
        assert not {row.access_token, row.refresh_token} & set(leaked)


@in_transactions
def test_old_backup_is_taken_up_where_tiktok_allows(simulator: Simulator) -> None:
    with keys(OLD):
        still_good = connect(simulator, "harbour_bakery")
        replaced = connect(simulator, "second_shop")
        backup = list(BusinessAccount.objects.all())
        services.refresh_account(replaced)
        BusinessAccount.objects.all().delete()
        BusinessAccount.objects.bulk_create(backup)
    with keys(NEW, OLD):
        assert run("rotate_encryption_keys") == (
            0,
            "rotated=2 current=0 unreadable=0 busy=0",
        )
    with keys(NEW):
        status, line = run("refresh_tokens", "--all")
        assert status == 1
        assert line.startswith("refreshed=1 retry_later=0 reauthorization_required=1 ")
        row = BusinessAccount.objects.get(status=Status.ACTIVE)
        assert row.open_id == still_good.open_id
        assert (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)


def old_place() -> Any:
    """The apps as a data migration sees them, with the model that held the tokens before."""
    state = MigrationLoader(connection).project_state()
    fields: list[tuple[str, models.Field[Any, Any]]] = [
        ("id", models.BigAutoField(primary_key=True)),
        ("open_id", models.CharField(max_length=255)),
        ("user", models.ForeignKey("auth.User", on_delete=models.CASCADE)),
        ("access_token", models.TextField()),
        ("refresh_token", models.TextField()),
        ("refresh_token_expires_at", models.DateTimeField(null=True)),
    ]
    state.add_model(ModelState("shop", "TikTokToken", fields))
    return state.apps


@in_transactions
@pytest.mark.parametrize("kept_as", ["plain text", "Fernet text"])
def test_tokens_of_another_place_are_brought_over(
    kept_as: str, simulator: Simulator, settings: Any
) -> None:
    fernet_key = Fernet.generate_key()
    settings.OLD_FERNET_KEY = fernet_key.decode()
    migration, readable = DOCUMENT.file("shop/migrations/0002_copy_tokens.py")
    namespace: dict[str, Any] = {}
    exec(compile(migration, "docs/keys.rst", "exec"), namespace)
    if kept_as == "Fernet text":
        exec(compile(readable, "docs/keys.rst", "exec"), namespace)
        assert namespace["readable"]("") == ""

    def kept(token: str) -> str:
        is_plain = kept_as == "plain text"
        return token if is_plain else Fernet(fernet_key).encrypt(token.encode()).decode()

    apps = old_place()
    old_model = apps.get_model("shop", "TikTokToken")
    ada = make_user("ada")
    ends_at = timezone.now() + timedelta(days=200)
    connected = connect(simulator, "harbour_bakery")
    with connection.schema_editor() as editor:
        editor.create_model(old_model)
    try:
        grant = simulator.issue_grant("second_shop")
        for open_id, access, refresh in [
            (grant["open_id"], grant["access_token"], grant["refresh_token"]),
            (connected.open_id, "act.stale", "rft.stale"),
        ]:
            old_model.objects.create(
                open_id=open_id,
                user_id=ada.pk,
                access_token=kept(access),
                refresh_token=kept(refresh),
                refresh_token_expires_at=ends_at,
            )
        for _ in range(2):  # repeated, it changes nothing
            namespace["copy_tokens"](apps, editor)
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(old_model)
    assert BusinessAccount.objects.count() == 2
    row = BusinessAccount.objects.get(open_id=grant["open_id"])
    assert (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)
    assert (row.owner, row.scopes) == (ada, [])
    with connection.cursor() as cursor:
        cursor.execute("SELECT access_token, refresh_token FROM tiktok_business_businessaccount")
        assert all(text.startswith("ttb1:") for texts in cursor.fetchall() for text in texts)
    connected.refresh_from_db()
    assert connected.access_token != "act.stale", "newer, so it stays"

    assert run("refresh_tokens")[1].startswith("refreshed=1 ")
    row.refresh_from_db()
    assert (row.access_token, row.refresh_token) == simulator.live_tokens(row.open_id)
    assert row.scopes
    assert row.access_token_expires_at is not None


def test_migration_depends_on_the_newest_one() -> None:
    (leaf,) = [
        name for app, name in MigrationLoader(None).graph.leaf_nodes() if app == "tiktok_business"
    ]
    assert (
        f'("tiktok_business", "{leaf}")' in DOCUMENT.file("shop/migrations/0002_copy_tokens.py")[0]
    )
