"""What the admin's lists can be filtered by, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tiktok_business.exceptions import ConfigurationError
from django_tiktok_business.models import Health

if TYPE_CHECKING:
    from django.contrib.admin.options import ModelAdmin
    from django.db.models import QuerySet
    from django.http import HttpRequest


__all__ = ["FilterLookups", "HealthFilter", "OwnerFilter", "RefreshFilter", "RefreshTokenFilter"]

if TYPE_CHECKING:
    _ModelAdmin = ModelAdmin[Any]
else:  # not subscriptable at run time
    _ModelAdmin = admin.ModelAdmin


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
