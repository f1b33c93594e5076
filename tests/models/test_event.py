"""`ConnectionEvent`: how an event reads."""

from __future__ import annotations

from typing import Any

import pytest

from django_tiktok_business.models import ConnectionEvent

Kind = ConnectionEvent.Kind


@pytest.mark.parametrize("kind", Kind)
def test_event_is_called_by_its_kind(kind: ConnectionEvent.Kind) -> None:
    assert str(ConnectionEvent(kind=kind)) == str(kind.label)


@pytest.mark.parametrize(
    ("added", "removed", "expected"),
    [
        ([], [], []),
        (["video.list"], [], ["+video.list"]),
        (["a", "b"], ["c"], ["+a", "+b", "\N{MINUS SIGN}c"]),
        (None, {"a": 1}, []),
        ("video.list", ["c"], ["\N{MINUS SIGN}c"]),
    ],
)
def test_changed_scopes_are_signed_and_other_json_is_left_out(
    added: Any, removed: Any, expected: list[str]
) -> None:
    event = ConnectionEvent(scopes_added=added, scopes_removed=removed)
    assert event.changed_scopes() == expected
