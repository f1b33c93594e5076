"""The filters of the admin's lists, and the refusal of every other lookup."""

from __future__ import annotations

from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters, ModelAdmin
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tiktok_business.exceptions import ConfigurationError
from django_tiktok_business.models import Health

if TYPE_CHECKING:
    _ModelAdmin = ModelAdmin[Any]
else:  # not subscriptable at run time
    _ModelAdmin = admin.ModelAdmin


WORDS_SEARCHED = 50

# The lookups that the filters link to. A regex could keep a process busy, and other lookups raise
# on malformed values.
_LOOKUPS = ("exact", "gte", "isempty", "isnull", "lt")


class FilterLookups(_ModelAdmin):
    """Allow only the lookups that the filters link to, not any lookup on any column."""

    linked_lookups: tuple[str, ...] = ()  # used by links on other pages

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # People write handles with an @; they are stored without. Each word makes the query larger,
        # and databases refuse a query that is too large.
        if len(search_term.split()) > WORDS_SEARCHED:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term.lstrip("@"))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        is_allowed = super().lookup_allowed(lookup, value, request)
        return is_allowed and (
            (self._is_filter_lookup(lookup, request) and "\0" not in value)
            or self._is_popup_lookup(lookup, value)
        )

    def _is_filter_lookup(self, lookup: str, request: HttpRequest) -> bool:
        path, _, kind = lookup.rpartition("__")
        for list_filter in self.get_list_filter(request):
            name = list_filter[0] if isinstance(list_filter, list | tuple) else list_filter
            # Fields without choices are looked up by their bare name, other filters by parameter.
            if lookup in (name, getattr(list_filter, "parameter_name", None)):
                return True
            # A filter by a relation links to "owner__id__exact".
            if kind in _LOOKUPS and name in (path, path.rpartition("__")[0]):
                return True
        is_date_hierarchy = path == self.date_hierarchy and kind in ("year", "month", "day")
        return is_date_hierarchy or lookup in self.linked_lookups

    def _is_popup_lookup(self, lookup: str, value: str) -> bool:
        """Whether a raw id field in the project has it in its ``limit_choices_to``."""
        return any(
            (lookup, value)
            in url_params_from_lookup_dict(limit() if callable(limit) else limit).items()
            for limit in self.opts.related_fkey_lookups
        )


class HealthFilter(admin.SimpleListFilter):
    """Filter by `Health`, as `BusinessAccountQuerySet.in_health` determines it in SQL."""

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
    """Filter for overdue accounts, which ``refresh_tokens`` should have refreshed by now."""

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
        except ConfigurationError as error:  # without an APP_ID nothing can be overdue
            raise IncorrectLookupParameters(value) from error
        return accounts


class RefreshTokenFilter(admin.SimpleListFilter):
    """Filter by when the refresh token, and with it the consent, ends."""

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
    """Filter by owner, unless there are too many owners to list.

    A site where every user connects an account would get a page full of names. There
    ``?owner__id__exact=`` in the URL still works.
    """

    most = 100

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        # One query, which stops at the first owner too many.
        accounts = model_admin.get_queryset(request).order_by().filter(owner=OuterRef("pk"))
        users = field.remote_field.model._default_manager.filter(Exists(accounts))
        owners = [(user.pk, str(user)) for user in users[: self.most + 1]]
        return sorted(owners, key=itemgetter(1)) if len(owners) <= self.most else []

    def has_output(self) -> bool:
        # The admin ignores a filter that has no output.
        return super().has_output() or bool(self.used_parameters)
