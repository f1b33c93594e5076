"""The bulk actions of the account list, and disconnecting and deleting accounts.

Every change goes through `django_tiktok_business.services`; messages report the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.apps import apps
from django.contrib import admin, messages
from django.contrib.admin import AdminSite, helpers
from django.contrib.admin import actions as site_actions
from django.contrib.admin.options import TO_FIELD_VAR
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import get_deleted_objects, unquote
from django.core.exceptions import PermissionDenied
from django.db import router
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_tiktok_business.exceptions import ConfigurationError
from django_tiktok_business.models import BusinessAccount, ConnectionEvent, DailyMetrics, Notice
from django_tiktok_business.presentation import explanation

from . import lazy
from .columns import AccountColumns
from .messages import describe_failure, describe_report, describe_untried

ACCOUNTS_PER_ACTION = 200  # more would exceed the request time-out of common web servers
REASONS_SHOWN = 5  # failures of a bulk action that get a message of their own

# Models whose rows are deleted together with an account.
_RECORDS: tuple[type[Model], ...] = (ConnectionEvent, DailyMetrics, Notice)
_UNCONFIRMED = gettext_lazy(
    "%(account)s is disconnected here, but TikTok did not confirm it: %(reason)s To be sure, its "
    "holder can remove the access in the TikTok app, under “Settings and privacy”."
)


class AccountActions(AccountColumns):
    """Bulk actions, disconnecting and deleting."""

    actions = ("refresh_selected", "sync_selected", "disconnect_selected", "delete_selected")

    def get_queryset(self, request: HttpRequest) -> QuerySet[BusinessAccount]:
        """Read from the primary database for anything that changes rows: a replica may lag."""
        accounts = super().get_queryset(request)
        if request.method in ("GET", "HEAD"):
            return accounts
        return accounts.using(router.db_for_write(self.model))

    def _url(self, page: str, *args: Any) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def _to_account(self, request: HttpRequest, account: BusinessAccount) -> HttpResponse:
        filters = self.get_preserved_filters(request)
        url = add_preserved_filters(
            {"opts": self.opts, "preserved_filters": filters}, self._url("change", account.pk)
        )
        return HttpResponseRedirect(url)

    def _get_permitted(
        self,
        request: HttpRequest,
        object_id: str,
        has_permission: Callable[[HttpRequest, BusinessAccount | None], bool],
    ) -> BusinessAccount:
        account: BusinessAccount | None = self.get_object(request, unquote(object_id))
        if not has_permission(request, account):
            raise PermissionDenied
        if account is None:
            raise Http404
        return account

    def _disconnect_page(
        self,
        request: HttpRequest,
        accounts: Sequence[BusinessAccount],
        hidden_fields: dict[str, str],
        cancel_url: str,
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": _("Disconnect"),
            "opts": self.opts,
            "media": self.media,
            "accounts": accounts,
            "hidden_fields": hidden_fields,
            "checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "cancel_url": cancel_url,
        }
        template = "admin/tiktok_business/businessaccount/disconnect_confirmation.html"
        return TemplateResponse(request, template, context)

    # Bulk actions

    @admin.action(
        description=gettext_lazy("Refresh the tokens of selected accounts"), permissions=["change"]
    )
    def refresh_selected(self, request: HttpRequest, queryset: QuerySet[BusinessAccount]) -> None:
        accounts = self._selected(request, queryset, self.has_change_permission)
        try:
            report = lazy.bulk.refresh_tokens(accounts)
        except ConfigurationError as error:
            self.message_user(request, explanation(error), messages.ERROR)
            return
        for level, text in describe_report(report, len(accounts)):
            self.message_user(request, text, level)
        failures = [describe_failure(failure) for failure in report.failures]
        self._add_messages(request, messages.WARNING, failures)

    @admin.action(
        description=gettext_lazy("Sync the profiles of selected accounts"), permissions=["change"]
    )
    def sync_selected(self, request: HttpRequest, queryset: QuerySet[BusinessAccount]) -> None:
        accounts = self._selected(request, queryset, self.has_change_permission)
        try:
            attempts = lazy.bulk.sync_profiles(accounts)
        except ConfigurationError as error:
            self.message_user(request, explanation(error), messages.ERROR)
            return
        done = sum(error is None for _account, error in attempts)
        if done:
            text = ngettext(
                "%(count)d profile is up to date.", "%(count)d profiles are up to date.", done
            )
            self.message_user(request, text % {"count": done}, messages.SUCCESS)
        failures = [
            _("%(account)s: the profile is not synced. %(reason)s")
            % {"account": account, "reason": explanation(error)}
            for account, error in attempts
            if error is not None
        ]
        self._add_messages(request, messages.ERROR, failures)
        for level, text in describe_untried(len(accounts) - len(attempts)):
            self.message_user(request, text, level)

    @admin.action(description=gettext_lazy("Disconnect selected accounts"), permissions=["delete"])
    def disconnect_selected(
        self, request: HttpRequest, queryset: QuerySet[BusinessAccount]
    ) -> HttpResponse | None:
        accounts = self._selected(request, queryset, self.has_delete_permission)
        if request.POST.get("post"):
            self._report_already_disconnected(request, accounts)
            self._disconnect(request, accounts)
            return None
        if not accounts:
            return None
        hidden_fields = {"action": "disconnect_selected", "post": "yes"}
        return self._disconnect_page(request, accounts, hidden_fields, request.get_full_path())

    @admin.action(
        description=gettext_lazy("Delete selected %(verbose_name_plural)s"), permissions=["delete"]
    )
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[BusinessAccount]
    ) -> HttpResponse | None:
        accounts = self._selected(request, queryset, self.has_delete_permission)
        if request.POST.get("post") and self._is_deletable(request, accounts):
            accounts = self._disconnect(request, accounts)
        chosen = queryset.filter(pk__in=[account.pk for account in accounts])
        return site_actions.delete_selected(self, request, chosen) if accounts else None

    def _selected(
        self,
        request: HttpRequest,
        queryset: QuerySet[BusinessAccount],
        has_permission: Callable[[HttpRequest, BusinessAccount], bool],
    ) -> list[BusinessAccount]:
        """The accounts to act on; none, with a message, when there are too many for one request."""
        accounts = list(queryset[: ACCOUNTS_PER_ACTION + 1])
        if not all(has_permission(request, account) for account in accounts):
            raise PermissionDenied
        if len(accounts) <= ACCOUNTS_PER_ACTION:
            return accounts
        text = _(
            "Nothing was done: select at most %(count)d accounts at a time, or refresh all of them "
            "with “manage.py refresh_tokens --all”."
        )
        self.message_user(request, text % {"count": ACCOUNTS_PER_ACTION}, messages.ERROR)
        return []

    # Disconnecting and deleting

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # Not in delete_model(): it runs in a transaction, which would stay open during the call to
        # TikTok and, on SQLite, block every other writer.
        if request.POST and TO_FIELD_VAR not in {**request.GET.dict(), **request.POST.dict()}:
            account = self._get_permitted(request, object_id, self.has_delete_permission)
            if self._is_deletable(request, [account]) and not self._disconnect(request, [account]):
                return self._to_account(request, account)
        return super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: BusinessAccount) -> None:
        _revoke_before_delete([obj])
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[BusinessAccount]) -> None:
        _revoke_before_delete(queryset)
        super().delete_queryset(request, queryset)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Leave out metrics, events and notices: hundreds of rows that need no permission."""
        site: Any = _WithoutRecords(self.admin_site)
        to_delete, *rest = get_deleted_objects(objs, request, site)
        # The lines are text, so match them by model name, unless the project has a model of the
        # same name.
        others = {str(m._meta.verbose_name) for m in apps.get_models() if m not in _RECORDS}
        names = {str(model._meta.verbose_name) for model in _RECORDS} - others
        return (_without(to_delete, tuple(f"{capfirst(name)}: " for name in names)), *rest)

    def _is_deletable(self, request: HttpRequest, accounts: Sequence[BusinessAccount]) -> bool:
        *_rest, perms_needed, protected = self.get_deleted_objects(accounts, request)
        return not perms_needed and not protected

    def _disconnect(
        self, request: HttpRequest, accounts: Sequence[BusinessAccount]
    ) -> list[BusinessAccount]:
        """Disconnect accounts, report TikTok's answers, and return the disconnected accounts."""
        revoked = BusinessAccount.Status.REVOKED
        connected = [account for account in accounts if account.status != revoked]
        attempts = lazy.bulk.one_by_one(connected, lazy.services.disconnect_account)
        confirmed: list[BusinessAccount] = []
        unconfirmed: list[str] = []
        failed: list[str] = []
        for account, error in attempts:
            names = {"account": account, "reason": error and explanation(error)}
            if error is None:
                confirmed.append(account)
            elif account.status == revoked:
                unconfirmed.append(_UNCONFIRMED % names)
            else:
                failed.append(_("%(account)s is still connected. %(reason)s") % names)
            if account.status == revoked:
                self.log_change(request, account, _("Disconnected."))
        if len(confirmed) == 1:
            text = _("%(account)s is disconnected, and TikTok has confirmed it.")
            self.message_user(request, text % {"account": confirmed[0]}, messages.SUCCESS)
        elif confirmed:
            text = ngettext(
                "%(count)d account is disconnected, and TikTok has confirmed it.",
                "%(count)d accounts are disconnected, and TikTok has confirmed it.",
                len(confirmed),
            )
            self.message_user(request, text % {"count": len(confirmed)}, messages.SUCCESS)
        self._add_messages(request, messages.WARNING, unconfirmed)
        self._add_messages(request, messages.ERROR, failed)
        for level, text in describe_untried(len(connected) - len(attempts)):
            self.message_user(request, text, level)
        return [account for account in accounts if account.status == revoked]

    def _report_already_disconnected(
        self, request: HttpRequest, accounts: Sequence[BusinessAccount]
    ) -> None:
        count = sum(account.status == account.Status.REVOKED for account in accounts)
        if count:
            text = ngettext(
                "%(count)d account was disconnected already.",
                "%(count)d accounts were disconnected already.",
                count,
            )
            self.message_user(request, text % {"count": count}, messages.INFO)

    def _add_messages(self, request: HttpRequest, level: int, texts: Sequence[str]) -> None:
        """Add a message per text, up to REASONS_SHOWN, and count the rest."""
        for text in texts[:REASONS_SHOWN]:
            self.message_user(request, text, level)
        if (more := len(texts) - REASONS_SHOWN) > 0:
            text = ngettext("... and %(count)d more.", "... and %(count)d more.", more)
            self.message_user(request, text % {"count": more}, level)


class _WithoutRecords:
    """The admin site as if `_RECORDS` were not registered, so they need no delete permission."""

    def __init__(self, site: AdminSite) -> None:
        self._site = site

    def is_registered(self, model: type[Model]) -> bool:
        return model not in _RECORDS and self._site.is_registered(model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)


def _without(lines: list[Any], prefixes: tuple[str, ...]) -> list[Any]:
    """The nested list of a delete page without the lines that begin with a prefix."""
    kept = [
        _without(line, prefixes) if isinstance(line, list) else line
        for line in lines
        if isinstance(line, list) or not str(line).startswith(prefixes)
    ]
    return [line for line in kept if line != []]


def _revoke_before_delete(accounts: Iterable[BusinessAccount]) -> None:
    """Disconnect what is still connected: our own pages have done so, other code may not."""
    for account in accounts:
        if account.status != account.Status.REVOKED:
            lazy.services.disconnect_account(account)
