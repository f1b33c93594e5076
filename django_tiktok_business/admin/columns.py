"""The columns and fields of an account in the admin.

Tokens, claims and versions are never shown, put into a form, searched or filtered by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.db.models import F
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.presentation import (
    format_count,
    health_badge,
    picture,
    time_element,
    time_in_full,
)

from .filters import (
    FilterLookups,
    HealthFilter,
    OwnerFilter,
    RefreshFilter,
    RefreshTokenFilter,
)


@dataclass(frozen=True)
class _AccountColumn:
    """Picture, name and handle in one cell of the list.

    It makes its own links: the admin would wrap the whole cell in one link and leave no room for
    the link to TikTok. ``filters`` lead back to the same filtered list. Instances compare by value,
    because the admin asks for the columns twice.
    """

    model_admin: AccountColumns
    filters: str
    short_description = gettext_lazy("account")
    admin_order_field = "display_name"
    __name__ = "account"

    @cached_property
    def _url(self) -> tuple[str, str]:
        """The URL before and after the primary key; reversing it for each row would be slow."""
        opts = self.model_admin.opts
        page = reverse(
            f"admin:{opts.app_label}_{opts.model_name}_change",
            args=["__pk__"],
            current_app=self.model_admin.admin_site.name,
        )
        url = add_preserved_filters({"opts": opts, "preserved_filters": self.filters}, page)
        before, _pk, after = url.partition("__pk__")
        return before, after

    def __call__(self, account: BusinessAccount) -> str:
        before, after = self._url
        return format_html(
            '<span class="tiktok-account">{}<span><a href="{}{}{}"><bdi>{}</bdi></a>{}</span>'
            "</span>",
            picture(account),
            before,
            account.pk,
            after,
            account.label,
            _handle(account),
        )


def _handle(account: BusinessAccount) -> str:
    """A link to TikTok named by the handle, or "profile" without one; "" without a link."""
    if not account.profile_link:
        return ""
    return format_html(
        '<a class="tiktok-handle" href="{}" target="_blank" rel="noopener noreferrer">'
        "<bdi>{}</bdi></a>",
        account.profile_link,
        account.handle or _("profile"),
    )


def _column(
    field: str, show: Callable[[Any], str], description: Any = None
) -> Callable[[Any, BusinessAccount], str]:
    """A column that shows the model's ``field``, with its name and its order."""
    name = BusinessAccount._meta.get_field(field).verbose_name  # type: ignore[union-attr]

    @admin.display(description=description or name, ordering=field)
    def column(self: Any, account: BusinessAccount) -> str:
        return show(getattr(account, field))

    return column


def _expiry_column(
    field: str, show: Callable[..., str], description: Any = None
) -> Callable[[Any, BusinessAccount], str]:
    """A column for an expiry time, which a disconnected account does not have."""
    name = BusinessAccount._meta.get_field(field).verbose_name  # type: ignore[union-attr]

    @admin.display(description=description or name, ordering=field)
    def column(self: Any, account: BusinessAccount) -> str:
        is_revoked = account.status == account.Status.REVOKED
        return show(getattr(account, field), unknown="-" if is_revoked else None)

    return column


def _time_or_never(instant: Any) -> str:
    return time_element(instant, unknown=_("never"))


def _text(value: Any) -> str:
    # Not localized: codes and ids are not quantities.
    return "-" if value in (None, "") else str(value)


class AccountColumns(FilterLookups):
    """What the admin of `BusinessAccount` shows."""

    list_display = (
        "account",
        "state",
        "followers",
        "access_token_expiry",
        "refresh_token_expiry",
        "owner",
        "last_sync",
    )
    list_filter: ClassVar[Any] = (
        HealthFilter,
        RefreshFilter,
        RefreshTokenFilter,
        ("owner", OwnerFilter),
    )
    list_select_related = ("owner",)
    ordering = (F("connected_at").desc(nulls_last=True), "-pk")
    search_fields = ("username", "display_name", "open_id")
    search_help_text = gettext_lazy("Search by name, handle or open id")
    raw_id_fields = ("owner",)
    readonly_fields = (
        "is_verified",
        "is_business_account",
        "last_sync",
        "connected",
        "last_refresh",
        "last_error_message",
        "error_code",
        "error_request_id",
        "error_time",
        "consecutive_failures",
        "open_id",
        "app_id",
    )

    def get_fieldsets(
        self, request: HttpRequest, obj: BusinessAccount | None = None
    ) -> list[tuple[Any, Any]]:
        error = (
            "last_error_message",
            ("error_code", "error_request_id"),
            ("error_time", "consecutive_failures"),
        )
        dates = (("connected", "last_refresh", "last_sync"),)
        identity = (("open_id", "app_id"), ("is_verified", "is_business_account"))
        sections: list[tuple[str | None, Any]] = [
            (None, ("owner",)),
            (_("Last error"), error if obj is not None and obj.last_error_at else ()),
            (_("Dates"), dates),
            (_("Identity at TikTok"), identity),
        ]
        return [(title, {"fields": fields}) for title, fields in sections if fields]

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        if IS_POPUP_VAR in request.GET:
            return list(self.list_display)
        filters = self.get_preserved_filters(request)
        return [_AccountColumn(self, filters), *self.list_display[1:]]

    def get_list_display_links(self, request: HttpRequest, list_display: Sequence[Any]) -> Any:
        # In a popup the admin's own link passes the choice to the form that opened it.
        return list_display[:1] if IS_POPUP_VAR in request.GET else None

    @admin.display(description=gettext_lazy("account"), ordering="display_name")
    def account(self, account: BusinessAccount) -> str:
        return format_html(
            '<span class="tiktok-account">{}<span>{}</span></span>',
            picture(account),
            account.label,
        )

    @admin.display(description=gettext_lazy("health"))
    def state(self, account: BusinessAccount) -> str:
        badge = health_badge(account)
        if not account.is_of_another_app:
            return badge
        other = _("other app: not refreshed")
        return format_html('{} <span class="tiktok-badge">{}</span>', badge, other)

    followers = _column("followers_count", format_count)
    access_token_expiry = _expiry_column(
        "access_token_expires_at", time_element, gettext_lazy("access token expires")
    )
    refresh_token_expiry = _expiry_column(
        "refresh_token_expires_at", time_element, gettext_lazy("refresh token expires")
    )
    last_sync = _column("profile_synced_at", _time_or_never, gettext_lazy("last sync"))
    connected = _column("connected_at", time_in_full)
    last_refresh = _column("last_refreshed_at", _time_or_never)
    error_time = _column("last_error_at", time_in_full)
    error_code = _column("last_error_code", _text)
    error_request_id = _column("last_error_request_id", _text)
