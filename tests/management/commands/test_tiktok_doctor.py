"""``manage.py tiktok_doctor``: its output, options and exit status."""

from __future__ import annotations

import json
from io import BytesIO, TextIOWrapper

import pytest
from django.core.management import CommandError, call_command

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.doctor import WELL, examine
from tests.support.factories import connect

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("examined")]


def test_healthy_set_up_exits_0_and_changes_nothing(examined: Simulator) -> None:
    connect(examined)
    before = BusinessAccount.objects.values().get()
    assert examine() == (0, WELL)
    assert BusinessAccount.objects.values().get() == before


def test_json_has_the_same_findings(examined: Simulator) -> None:
    connect(examined, consecutive_failures=2)
    status, (line,) = examine("--json")
    answer = json.loads(line)
    assert status == answer["status"] == 1
    assert [f"✓ {each['message']}" for each in answer["findings"]][:-1] == WELL
    assert answer["findings"][-1] == {
        "check": "accounts",
        "level": "warning",
        "message": "1 active accounts could not be refreshed the last time.",
        "hint": "The admin shows why; they are tried again.",
    }


def test_open_id_that_is_not_printable_is_refused() -> None:
    with pytest.raises(CommandError, match="an open id is printable text"):
        call_command("tiktok_doctor", "--account", "\udcff")


def test_terminal_that_cannot_show_the_marks_gets_words() -> None:
    raw = BytesIO()
    stdout = TextIOWrapper(raw, encoding="ascii", write_through=True)
    call_command("tiktok_doctor", stdout=stdout)
    assert raw.getvalue().startswith(b"ok TIKTOK_BUSINESS is complete and well-formed.\n")
