"""The list of all events in the admin: to look at, filter and export, and nothing else."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tiktok_business import events
from django_tiktok_business.exceptions import ServerError
from django_tiktok_business.models import ConnectionEvent
from tests.support.administrators import EVENTS, cells, html, page_of
from tests.support.factories import make_account, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def noted() -> list[ConnectionEvent]:
    """A connection, and a failure of another account, whose handle is a formula."""
    events.record(make_account(username="harbour"), events.Kind.CONNECTED, "default")
    other = make_account(open_id="other", username="=1+1", display_name="Other")
    error = ServerError('Busy, "really"\nso', code=50000, request_id="20261122AB")
    events.record(other, events.Kind.FAILED, "default", error=error)
    other.scopes = ["video.list"]
    events.record(other, None, "default", scopes_before=[])
    return list(ConnectionEvent.objects.order_by("pk"))


def exported(response: Any) -> list[list[str]]:
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    text = b"".join(response.streaming_content).decode()
    return list(csv.reader(StringIO(text, newline="")))


def export(client: Client, chosen: list[ConnectionEvent]) -> Any:
    form = {"action": "export_csv", "_selected_action": [event.pk for event in chosen]}
    return client.post(EVENTS, form)


def test_newest_event_stands_first(root: Client, noted: list[ConnectionEvent]) -> None:
    page = root.get(EVENTS)
    assert cells(page, "kind") == ["permissions changed", "refresh failed", "connected"]
    assert cells(page, "code") == ["-", "50000", "-"]
    assert cells(page, "label")[2] == "@harbour"


def test_events_are_filtered_by_kind_account_and_words(
    root: Client, noted: list[ConnectionEvent]
) -> None:
    pk = noted[0].account_id
    for query, expected in (
        ("kind__exact=connected", ["connected"]),
        (f"account__id__exact={pk}", ["connected"]),
        ("q=20261122AB", ["refresh failed"]),
        ("q=harbour", ["connected"]),
    ):
        assert cells(root.get(f"{EVENTS}?{query}"), "kind") == expected, query


def test_events_cannot_be_changed(root: Client, noted: list[ConnectionEvent]) -> None:
    url = f"{EVENTS}{noted[0].pk}/"
    assert root.get(f"{EVENTS}add/").status_code == 403
    assert root.post(f"{url}change/", {"kind": "failed"}).status_code == 403
    assert root.post(f"{url}delete/", {"post": "yes"}).status_code == 403
    assert "connected" in html(root.get(f"{url}change/"))
    assert ConnectionEvent.objects.count() == 3


def test_export_is_csv_that_no_spreadsheet_runs(root: Client, noted: list[ConnectionEvent]) -> None:
    headings, *rows = exported(export(root, noted))
    assert headings == [
        *("account", "username", "what", "first_at", "last_at", "times", "code", "message"),
        *("request_id", "scopes"),
    ]
    scopes, failed, connected = (dict(zip(headings, row, strict=True)) for row in rows)
    assert connected["account"] == "_000TestOpenId0001"
    assert (failed["username"], failed["code"], failed["times"]) == ("'=1+1", "50000", "1")
    assert failed["message"] == 'Busy, "really"\nso'
    assert failed["request_id"] == "20261122AB"
    assert scopes["scopes"] == "'+video.list"
    assert scopes["first_at"] == noted[2].at.isoformat()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "message",
    ["=1", "\n=1+1", " @SUM(1)", "\uff1d1+1", "\t-1", "a;=1", 'a; "=1', "a\t\n +1", "a\r=1;;-1"],
)
def test_no_cell_is_a_formula_with_any_separator(
    root: Client, message: str, separator: str
) -> None:
    events.record(make_account(), events.Kind.FAILED, "default", error=ServerError(message))
    response = export(root, list(ConnectionEvent.objects.all()))
    text = b"".join(response.streaming_content).decode()
    assert message[-1] in text
    lines = csv.reader(StringIO(text, newline=""), delimiter=separator)
    cells = [piece for line in lines for cell in line for piece in cell.splitlines()]
    assert [cell for cell in cells if cell.strip(' \t"')[:1] in {*"=+-@\uff1d"}] == []


def test_event_that_others_have_written_breaks_no_page(root: Client) -> None:
    account = make_account()
    event = ConnectionEvent.objects.create(
        account=account, kind="odd", scopes_added=5, scopes_removed=["x"]
    )
    assert cells(root.get(EVENTS), "kind") == ["-"]
    assert root.get(f"{EVENTS}{event.pk}/change/").status_code == 200
    assert "odd" in html(root.get(page_of(account)))
    assert exported(export(root, [event]))[1][2] == "odd"


def test_export_takes_the_view_permission_and_no_more(
    client: Client, noted: list[ConnectionEvent]
) -> None:
    user = make_user("staff", is_staff=True)
    client.force_login(user)
    assert client.get(EVENTS).status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="view_connectionevent"))
    assert len(exported(export(client, noted))) == 4


def test_f36_no_token_is_loaded(root: Client, noted: list[ConnectionEvent]) -> None:
    with CaptureQueriesContext(connection) as queries:
        root.get(EVENTS)
        list(export(root, noted).streaming_content)
    assert any("connectionevent" in query["sql"] for query in queries)
    assert not any("_token" in query["sql"] for query in queries)


def test_list_takes_the_same_number_of_queries_for_many_events(root: Client) -> None:
    counts = []
    for number in range(2):
        for code in range(20 * number + 1):
            account = make_account(open_id=f"account_{number}_{code}")
            events.record(account, events.Kind.CONNECTED, "default")
        with CaptureQueriesContext(connection) as queries:
            root.get(EVENTS)
        counts.append(len(queries))
    assert counts[0] == counts[1]
