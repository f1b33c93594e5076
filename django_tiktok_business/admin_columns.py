"""What the admin shows of an account, and what the list can be narrowed by; changes nothing.

No token, claim or version is shown, loaded into a form, searched or filtered by.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IS_POPUP_VAR, IncorrectLookupParameters
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.db.models import Exists, F, OuterRef
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .exceptions import ConfigurationError
from .models import BusinessAccount, Health
from .presentation import figure, health_badge, picture, time_element, time_in_full

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.contrib.admin.options import ModelAdmin
    from django.db.models import QuerySet
    from django.http import HttpRequest

    _ModelAdmin = ModelAdmin[Any]
else:  # not subscriptable at run time
    _ModelAdmin = admin.ModelAdmin

__all__ = [
    "AccountColumns",
    "FilterLookups",
    "HealthFilter",
    "OwnerFilter",
    "RefreshFilter",
    "RefreshTokenFilter",
]

WORDS_SEARCHED = 50

# How the filters' links end; a regex would keep a process busy, and others fail on odd values.
_LOOKUPS = ("exact", "gte", "isempty", "isnull", "lt")


class FilterLookups(_ModelAdmin):
    """Its list is narrowed by what its filters' links say, not by any lookup of any column."""

    linked_lookups: tuple[str, ...] = ()  # that other pages have links with

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # Handles are written with an @ and stored without. Each word makes the query larger, and
        # databases refuse one that is too large.
        if len(search_term.split()) > WORDS_SEARCHED:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term.lstrip("@"))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        is_allowed = super().lookup_allowed(lookup, value, request)
        return is_allowed and (
            (self._is_of_a_filter(lookup, request) and "\0" not in value)
            or self._is_of_a_popup(lookup, value)
        )

    def _is_of_a_filter(self, lookup: str, request: HttpRequest) -> bool:
        path, _, kind = lookup.rpartition("__")
        for each in self.get_list_filter(request):
            name = each[0] if isinstance(each, list | tuple) else each
            # What is no choice is filtered by its bare name, what is no field by a parameter.
            if lookup in (name, getattr(each, "parameter_name", None)):
                return True
            # A filter by a relation says "owner__id__exact".
            if kind in _LOOKUPS and name in (path, path.rpartition("__")[0]):
                return True
        is_of_hierarchy = path == self.date_hierarchy and kind in ("year", "month", "day")
        return is_of_hierarchy or lookup in self.linked_lookups

    def _is_of_a_popup(self, lookup: str, value: str) -> bool:
        """Whether a raw id field of the project's, with ``limit_choices_to``, asks for it."""
        choices = self.opts.related_fkey_lookups
        return any(
            (lookup, value)
            in url_params_from_lookup_dict(each() if callable(each) else each).items()
            for each in choices
        )


class HealthFilter(admin.SimpleListFilter):
    """By `Health`, as far as the database can tell: see `BusinessAccountQuerySet.in_health`."""

    title = gettext_lazy("health")
    parameter_name = "health"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(health.value, str(health.label)) for health in Health]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if value not in Health.values:
            raise IncorrectLookupParameters(value)
        accounts: QuerySet[Any] = queryset.in_health(value)  # type: ignore[attr-defined]
        return accounts


class RefreshFilter(admin.SimpleListFilter):
    """Accounts that no run of ``refresh_tokens`` has refreshed although their time has come."""

    title = gettext_lazy("refresh")
    parameter_name = "refresh"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("overdue", _("overdue"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if value != "overdue":
            raise IncorrectLookupParameters(value)
        try:
            accounts: QuerySet[Any] = queryset.overdue()  # type: ignore[attr-defined]
        except ConfigurationError as error:  # it is not known of which app
            raise IncorrectLookupParameters(value) from error
        return accounts


class RefreshTokenFilter(admin.SimpleListFilter):
    """By the time at which the refresh token, and with it the consent, ends."""

    title = gettext_lazy("refresh token")
    parameter_name = "refresh_token_ends"
    periods = ("7", "30", "90")  # days

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        within = [(days, _("ends within %(days)s days") % {"days": days}) for days in self.periods]
        return [*within, ("ended", _("has ended"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value, now = self.value(), timezone.now()
        if value is None:
            return queryset
        if value == "ended":
            return queryset.filter(refresh_token_expires_at__lte=now)
        if value not in self.periods:
            raise IncorrectLookupParameters(value)
        until = now + timedelta(days=int(value))
        return queryset.filter(
            refresh_token_expires_at__gt=now, refresh_token_expires_at__lte=until
        )


class OwnerFilter(admin.RelatedOnlyFieldListFilter):
    """By owner, offering only those who own an account; not offered when they are too many.

    A site where every user connects an account would have a page of nothing but names. There
    ``?owner__id__exact=`` in the URL still works.
    """

    most = 100

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        # One query, which ends at the first owner too many.
        theirs = model_admin.get_queryset(request).order_by().filter(owner=OuterRef("pk"))
        users = field.remote_field.model._default_manager.filter(Exists(theirs))
        owners = [(user.pk, str(user)) for user in users[: self.most + 1]]
        return sorted(owners, key=itemgetter(1)) if len(owners) <= self.most else []

    def has_output(self) -> bool:
        # The admin does not apply a filter that it does not show.
        return super().has_output() or bool(self.used_parameters)


@dataclass(frozen=True)
class _AccountColumn:
    """Picture, name and handle in one cell of the list.

    With links of its own, because the one that the admin puts around a whole cell leaves no room
    for the link to TikTok. ``filters`` lead back to the same choice of accounts. Compared by
    value: the list asks for its columns twice.
    """

    model_admin: AccountColumns
    filters: str
    short_description = gettext_lazy("account")
    admin_order_field = "display_name"
    __name__ = "account"

    @cached_property
    def _url(self) -> tuple[str, str]:
        """What stands before and behind the primary key: to find it for each row takes long."""
        opts = self.model_admin.opts
        page = reverse(
            f"admin:{opts.app_label}_{opts.model_name}_change",
            args=["__pk__"],
            current_app=self.model_admin.admin_site.name,
        )
        url = add_preserved_filters({"opts": opts, "preserved_filters": self.filters}, page)
        before, _pk, behind = url.partition("__pk__")
        return before, behind

    def __call__(self, account: BusinessAccount) -> str:
        before, behind = self._url
        return format_html(
            '<span class="tiktok-account">{}<span><a href="{}{}{}"><bdi>{}</bdi></a>{}</span>'
            "</span>",
            picture(account),
            before,
            account.pk,
            behind,
            account.label,
            _handle(account),
        )


def _handle(account: BusinessAccount) -> str:
    """The handle, or just "profile", as a link to TikTok; "" when there is nothing to link to."""
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
    """A column for the model's ``field``, named and sorted as the field is."""
    name = BusinessAccount._meta.get_field(field).verbose_name  # type: ignore[union-attr]

    @admin.display(description=description or name, ordering=field)
    def column(self: Any, account: BusinessAccount) -> str:
        return show(getattr(account, field))

    return column


def _expiry_column(
    field: str, show: Callable[..., str], description: Any = None
) -> Callable[[Any, BusinessAccount], str]:
    name = BusinessAccount._meta.get_field(field).verbose_name  # type: ignore[union-attr]

    @admin.display(description=description or name, ordering=field)
    def column(self: Any, account: BusinessAccount) -> str:
        is_revoked = account.status == account.Status.REVOKED
        return show(getattr(account, field), unknown="-" if is_revoked else None)

    return column


def _time_or_never(instant: Any) -> str:
    return time_element(instant, unknown=_("never"))


def _text(value: Any) -> str:
    # Not localized: codes and ids are no quantities.
    return "-" if value in (None, "") else str(value)


class AccountColumns(FilterLookups):
    """The read-only side of the admin of `BusinessAccount`."""

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
        # In a popup the admin's own link is what hands the choice to the form behind it.
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

    followers = _column("followers_count", figure)
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
