"""`dumpdata` and `loaddata`: fixtures hold ciphertext and nothing else."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from django.core import serializers
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import models

from django_tiktok_business.exceptions import DecryptionError
from django_tiktok_business.fields import Ciphertext
from tests.support.encrypted_rows import (
    ACCESS,
    ASSIGNED,
    REFRESH,
    TOKENS,
    account_with_tokens,
    committing,
    reloaded,
    rotate,
    rows,
    store,
    stored,
    wrong_key,
)
from tests.support.factories import make_account, make_user

pytestmark = pytest.mark.django_db


FORMATS = ["json", "jsonl", "xml", *(["yaml"] if find_spec("yaml") else [])]


def dumped(format: str, path: Path) -> Path:  # noqa: A002 -- the option's name
    file = path / f"accounts.{format}"
    call_command("dumpdata", "tiktok_business", format=format, output=str(file))
    return file


def load(file: Path) -> None:
    call_command("loaddata", str(file), verbosity=0)


each_format = pytest.mark.parametrize("format", FORMATS)


@each_format
def test_f31_dump_holds_ciphertext_and_loads_into_an_empty_table(
    format: str,  # noqa: A002
    tmp_path: Path,
) -> None:
    account = account_with_tokens(owner=make_user())
    make_account(open_id="blank", access_token="", refresh_token="")
    before = stored(account), stored(account, "refresh_token")
    file = dumped(format, tmp_path)
    text = file.read_text()
    assert before[0] in text
    assert not [token for token in TOKENS if token in text]
    assert not {"claim_id", "claim_expires_at", "credentials_version"} & set(text.split('"'))
    rows.all().delete()
    with wrong_key():
        load(file)
    assert (stored(account), stored(account, "refresh_token")) == before
    assert reloaded(account).access_token == ACCESS
    assert reloaded(account).refresh_token == REFRESH
    assert rows.get(open_id="blank").access_token == ""
    # A dump truncates times to milliseconds, and omits the milliseconds of a full second.
    again = dumped(format, tmp_path).read_text()
    assert again.replace(".000Z", "Z") == text.replace(".000Z", "Z")


@each_format
def test_f31_dump_loads_over_existing_rows(format: str, tmp_path: Path) -> None:  # noqa: A002
    account = account_with_tokens()
    file = dumped(format, tmp_path)
    rotate(account)
    load(file)
    assert reloaded(account).access_token == ACCESS
    assert rows.count() == 1


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "xml"])
def test_f31_dump_takes_no_key(format: str, tmp_path: Path) -> None:  # noqa: A002
    account = account_with_tokens()
    store(account, "refresh_token", "nonsense")
    with wrong_key():
        text = dumped(format, tmp_path).read_text()
    assert stored(account) in text
    assert "nonsense" in text


def test_dump_to_xml_reads_the_attribute_and_so_takes_the_key() -> None:
    # Only Django's XML serializer checks whether the value is None.
    account_with_tokens()
    with wrong_key(), pytest.raises(DecryptionError):
        serializers.serialize("xml", rows.all())


@each_format
def test_f31_serializing_an_assigned_token_encrypts_it(format: str) -> None:  # noqa: A002
    account = account_with_tokens()
    account.access_token = ASSIGNED
    text = serializers.serialize(format, [account])
    assert ASSIGNED not in text
    deserialized(text, format).save()
    assert reloaded(account).access_token == ASSIGNED


@pytest.mark.parametrize("text", ["", None])
def test_f27_dump_tells_empty_text_from_none(note: type[models.Model], text: str | None) -> None:
    instance = note(text=text, pk=1)
    (written,) = json.loads(serializers.serialize("json", [instance]))
    assert written["fields"]["text"] == text
    xml = serializers.serialize("xml", [instance])
    assert ("<None></None>" in xml) == (text is None)
    field: Any = instance._meta.get_field("text")
    assert field.value_to_string(instance) == ""


def deserialized(text: str, format: str = "json") -> Any:  # noqa: A002
    (loaded,) = serializers.deserialize(format, text)
    return loaded


def test_deserialized_instance_can_be_saved_as_any_other() -> None:
    account = account_with_tokens()
    before = stored(account)
    fixture = serializers.serialize("json", [account])
    rows.all().delete()
    loaded = deserialized(fixture)
    assert isinstance(loaded.object.access_token, Ciphertext)
    assert "act." not in repr(vars(loaded.object))
    loaded.object.full_clean()
    loaded.object.save()
    assert stored(account) == before
    assert loaded.object.access_token == ACCESS


@committing
def test_deserialized_instance_saved_over_its_row_reads_back() -> None:
    account = account_with_tokens()
    fixture = serializers.serialize("json", [account])
    rotate(account)
    loaded = deserialized(fixture)
    loaded.object._state.adding = False
    loaded.object.save()
    assert reloaded(account).access_token == ACCESS
    assert loaded.object.access_token == ACCESS


@each_format
def test_fixture_with_a_plain_token_is_refused(
    format: str,  # noqa: A002
    tmp_path: Path,
) -> None:
    account = account_with_tokens()
    file = dumped(format, tmp_path)
    file.write_text(file.read_text().replace(stored(account), ASSIGNED))
    rows.all().delete()
    with pytest.raises(FieldError) as caught:
        load(file)
    assert "A fixture holds what dumpdata has written" in str(caught.value)
    assert ASSIGNED not in str(caught.value)
    assert not rows.exists()


def test_load_from_another_site_is_unreadable_and_not_lost() -> None:
    account = account_with_tokens()
    with wrong_key():
        foreign = serializers.serialize("json", [account_with_tokens(open_id="foreign")])
    rows.filter(open_id="foreign").delete()
    for loaded in serializers.deserialize("json", foreign):
        loaded.save()
    row = rows.get(open_id="foreign")
    with pytest.raises(DecryptionError):
        _ = row.access_token
    row.save()
    with wrong_key():
        assert rows.get(open_id="foreign").access_token == ACCESS
    assert reloaded(account).access_token == ACCESS
