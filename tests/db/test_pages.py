"""Pages over many rows: each row once, however the rows change between two pages."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business.db.pages import Pages
from django_tiktok_business.models import BusinessAccount
from tests.support.account_states import HOUR, unsaved
from tests.support.simulator import next_statement

rows = BusinessAccount.objects
START = timezone.now().replace(microsecond=0)

pytestmark = pytest.mark.django_db


def make(*hours: int) -> None:
    """Accounts named by their numbers, whose access tokens end after that many hours."""
    rows.bulk_create(
        unsaved(open_id=f"{number}", access_token_expires_at=START + hour * HOUR)
        for number, hour in enumerate(hours)
    )


def by_key(size: int) -> Pages[BusinessAccount]:
    return Pages(rows.order_by("pk"), size=size)


def by_time(size: int) -> Pages[BusinessAccount]:
    return Pages(rows.order_by("access_token_expires_at", "pk"), size=size)


def next_ids(pages: Pages[BusinessAccount]) -> str:
    return "".join(row.open_id for row in pages.next())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 100])
def test_every_row_comes_once_and_in_order(size: int) -> None:
    make(5, 1, 3, 1, 1, 9, 3)
    assert "".join(row.open_id for row in by_key(size)) == "0123456"
    assert "".join(row.open_id for row in by_time(size)) == "1342605"


def test_page_has_at_most_the_size_and_the_last_one_is_empty() -> None:
    make(1, 2, 3, 4, 5)
    pages = by_key(2)
    assert [next_ids(pages) for _ in range(5)] == ["01", "23", "4", "", ""]


def test_each_page_is_one_query_and_starts_behind_the_last_row() -> None:
    make(1, 1, 1, 1)
    with CaptureQueriesContext(connection) as queries:
        assert "".join(row.open_id for row in by_time(2)) == "0123"
    assert len(queries) == 3, "the last one finds nothing"
    assert not [query for query in queries if "OFFSET" in query["sql"]]


def test_no_rows_are_no_pages() -> None:
    assert list(by_key(2)) == []
    assert list(Pages[BusinessAccount](size=2)) == []


def test_one_queryset_comes_after_the_other_and_pages_are_not_mixed() -> None:
    make(4, 3, 2, 1, 0)
    even, odd = rows.filter(open_id__in="024"), rows.filter(open_id__in="13")
    pages = Pages(
        odd.order_by("pk"),
        rows.none().order_by("pk"),
        even.order_by("access_token_expires_at", "pk"),
        size=2,
    )
    assert [next_ids(pages) for _ in range(4)] == ["13", "42", "0", ""]


def test_row_that_moves_forwards_comes_again_and_hides_no_other() -> None:
    make(1, 2, 3, 4)
    pages = by_time(2)
    assert next_ids(pages) == "01"
    rows.filter(open_id="0").update(access_token_expires_at=START + timedelta(hours=9))
    assert [next_ids(pages), next_ids(pages)] == ["23", "0"]


def test_row_that_moves_backwards_hides_no_other() -> None:
    make(1, 2, 3, 4)
    pages = by_time(2)
    assert next_ids(pages) == "01"
    rows.filter(open_id="3").update(access_token_expires_at=START)
    assert [next_ids(pages), next_ids(pages)] == ["2", ""]


def test_last_row_of_a_page_may_be_deleted_or_changed_before_the_next() -> None:
    make(1, 1, 1, 1, 1, 1)
    pages = by_time(2)
    assert next_ids(pages) == "01"
    rows.filter(open_id="1").delete()
    assert next_ids(pages) == "23"
    rows.filter(open_id="3").update(access_token_expires_at=START + 9 * HOUR)
    assert [next_ids(pages), next_ids(pages)] == ["45", "3"]


def test_rows_that_are_added_behind_the_last_page_are_found() -> None:
    make(1, 2)
    pages = by_time(2)
    assert next_ids(pages) == "01"
    rows.bulk_create(
        unsaved(open_id=name, access_token_expires_at=START + hours * HOUR)
        for name, hours in (("early", 0), ("late", 3))
    )
    assert [next_ids(pages), next_ids(pages)] == ["late", ""]


@pytest.mark.parametrize("finished", [0, 1, 2, 3])
def test_page_can_be_asked_for_again_when_the_database_fails(finished: int) -> None:
    make(1, 1, 2, 2, 3)
    pages = by_time(2)
    found = [next_ids(pages) for _ in range(finished)]
    with next_statement("SELECT", OperationalError("gone")) as fail:
        fail()
        with pytest.raises(OperationalError, match="gone"):
            pages.next()
    found += [next_ids(pages) for _ in range(4 - finished)]
    assert found == ["01", "23", "4", ""]


def test_failure_between_two_querysets_loses_no_row() -> None:
    make(1, 2)
    pages = Pages(
        rows.filter(open_id="0").order_by("pk"), rows.filter(open_id="1").order_by("pk"), size=1
    )
    assert next_ids(pages) == "0"
    with next_statement("SELECT", OperationalError("gone")) as fail:
        fail()
        with pytest.raises(OperationalError, match="gone"):
            pages.next()
    assert [next_ids(pages), next_ids(pages)] == ["1", ""]
