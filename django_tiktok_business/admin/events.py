"""The admin of `ConnectionEvent`: browse, filter and export as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.translation import gettext_lazy

from django_tiktok_business.models import ConnectionEvent

from .filters import FilterLookups

# The only columns of the account that are loaded: tokens stay in the database.
_ACCOUNT_FIELDS = ("open_id", "app_id", "username", "display_name")
_HEADINGS = (
    *("account", "username", "what", "first_at", "last_at", "times", "code", "message"),
    *("request_id", "scopes"),
)


@admin.register(ConnectionEvent)
class ConnectionEventAdmin(FilterLookups):
    actions = ("export_csv",)
    list_display = ("last_at", "kind", "label", "count", "code", "message", "request_id")
    list_filter = ("kind", "last_at")
    linked_lookups = ("account__id__exact",)
    list_select_related = ("account",)
    list_per_page = 50
    ordering = ("-last_at", "-pk")
    search_fields = ("account__username", "account__display_name", "account__open_id", "request_id")
    search_help_text = gettext_lazy("Search by name, handle, open id or request id")
    show_full_result_count = False  # there may be millions
    date_hierarchy = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConnectionEvent]:
        fields = [field.name for field in ConnectionEvent._meta.concrete_fields]
        account_fields = [f"account__{name}" for name in _ACCOUNT_FIELDS]
        return super().get_queryset(request).only(*fields, *account_fields)

    @admin.display(description=gettext_lazy("account"), ordering="account")
    def label(self, event: ConnectionEvent) -> str:
        return event.account.label

    @admin.action(description=gettext_lazy("Export selected events as CSV"), permissions=["view"])
    def export_csv(
        self, request: HttpRequest, queryset: QuerySet[ConnectionEvent]
    ) -> StreamingHttpResponse:
        events = queryset.select_related("account").iterator(chunk_size=500)
        return StreamingHttpResponse(
            _lines(events),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="tiktok-events.csv"'},
        )


def _lines(events: Iterable[ConnectionEvent]) -> Iterator[str]:
    yield _line(_HEADINGS)
    for event in events:
        yield _line(
            (
                event.account.open_id,
                event.account.username,
                event.kind,
                event.at.isoformat(),
                event.last_at.isoformat(),
                event.count,
                "" if event.code is None else event.code,
                event.message,
                event.request_id,
                " ".join(event.changed_scopes()),
            )
        )


def _line(values: Iterable[Any]) -> str:
    """A line of CSV with every cell quoted (RFC 4180)."""
    cells = (_cell(value).replace('"', '""') for value in values)
    return ",".join(f'"{cell}"' for cell in cells) + "\r\n"


# Spreadsheets take a cell that begins like this for a formula, some also with the full-width
# characters. In a locale where ";" or a tab separates cells, a cell may begin after each of them.
_FORMULA = re.compile(
    r"(?:^|(?<=[;\t\r\n]))"
    r"""(?=(?:[^\S\t\r\n]|["'])*[=+\-@\uff1d\uff0b\uff0d\uff20])"""
)


def _cell(value: Any) -> str:
    """The value as text that no spreadsheet takes for a formula."""
    return _FORMULA.sub("'", str(value))
