"""`django_tiktok_business.fields`: the paths that migrations, pickles and projects name."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from django.db import models
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.utils.module_loading import import_string

from django_tiktok_business import fields, migrations
from django_tiktok_business.models import BusinessAccount

NAMES = [
    *("CaseSensitiveCharField", "Ciphertext", "EncryptedModel", "EncryptedTextField"),
    *("NewestFirstIndex", "SealedModel", "UpdateOnlyBigIntegerField", "UpdateOnlyCharField"),
    "UpdateOnlyDateTimeField",
]


def migration_files() -> list[str]:
    folder = Path(migrations.__path__[0])
    return sorted(path.stem for path in folder.glob("[0-9]*.py"))


def named_paths(migration: type[Migration]) -> Iterator[str]:
    """The dotted path of each field and index that the migration makes."""
    for operation in migration.operations:
        for value in vars(operation).values():
            parts = [part for _, part in value] if isinstance(value, list) else [value]
            for part in parts:
                if isinstance(part, models.Field):
                    yield part.deconstruct()[1]
                elif isinstance(part, models.Index):
                    yield part.deconstruct()[0]


def test_names_are_those_that_are_documented() -> None:
    assert sorted(fields.__all__) == NAMES
    assert all(hasattr(fields, name) for name in NAMES)


@pytest.mark.parametrize("name", migration_files())
def test_paths_that_migrations_name_resolve(name: str) -> None:
    migration = import_module(f"django_tiktok_business.migrations.{name}").Migration
    for path in named_paths(migration):
        assert isinstance(import_string(path), type)
        is_ours = path.startswith("django_tiktok_business.")
        assert not is_ours or path.startswith("django_tiktok_business.fields."), path


def test_migrations_of_the_package_name_its_own_fields() -> None:
    loader = MigrationLoader(None)
    paths = {
        path
        for (app, _), migration in loader.disk_migrations.items()
        if app == "tiktok_business"
        for path in named_paths(type(migration))
    }
    assert {path for path in paths if path.startswith("django_tiktok_business.")} == {
        f"django_tiktok_business.fields.{name}"
        for name in ("CaseSensitiveCharField", "EncryptedTextField", "NewestFirstIndex")
    }


def test_names_of_earlier_versions_still_work() -> None:
    assert fields.SealedModel is fields.EncryptedModel
    account = BusinessAccount(app_id="7", open_id="o")
    ciphertext = account.seal("access_token", "act.x")
    field = account._meta.get_field("access_token")
    assert isinstance(field, fields.EncryptedTextField)
    assert field.unseal(ciphertext, account) == "act.x"
    assert field.unseal(field.seal("act.y", account), account) == "act.y"


# As version 0.1.0.dev0 pickled it, whose name for "encrypted" was "sealed".
PICKLED = (
    b"\x80\x04\x95j\x00\x00\x00\x00\x00\x00\x00\x8c\x1ddjango_tiktok_business.fields\x94\x8c\n"
    b"Ciphertext\x94\x93\x94)\x81\x94N}\x94(\x8c\x06origin\x94\x8c\x06sealed\x94\x8c\x04text\x94\x8c"
    b"\x13ttb1:88cdd793:gAAAA\x94u\x86\x94b."
)


def test_ciphertext_that_an_earlier_version_pickled_is_read() -> None:
    """A cached account outlives an upgrade, and names the module that its class was in."""
    ciphertext = pickle.loads(PICKLED)
    assert isinstance(ciphertext, fields.Ciphertext)
    assert (ciphertext.text, ciphertext.origin) == ("ttb1:88cdd793:gAAAA", "sealed")
    account = BusinessAccount(app_id="7", open_id="o")
    account.access_token = pickle.loads(PICKLED)
    assert account.has_assigned_values()
    assert account.stored() == {"access_token": ciphertext}
