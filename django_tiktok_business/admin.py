"""The accounts in Django's admin: buttons and actions that refresh, sync, connect and end them.

What TikTok decides is read-only, and there is no add form: an account is added by connecting it.
Every change but that of the owner goes through `django_tiktok_business.services`. No message and
no line of the history holds a token. See `admin_columns` for what is shown.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin import actions as site_actions
from django.contrib.admin import helpers
from django.contrib.admin.options import TO_FIELD_VAR
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods, require_POST

from . import conf, services
from .admin_columns import AccountColumns
from .exceptions import (
    AppConfigurationError,
    ConfigurationError,
    ConnectionFailedError,
    RateLimitError,
    ServerError,
    TikTokBusinessError,
)
from .models import BusinessAccount
from .presentation import explanation, failure_in_words, report_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.models import QuerySet
    from django.forms import ModelForm
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

__all__ = ["BusinessAccountAdmin"]

ACCOUNTS_PER_ACTION = 200  # more would outlast what web servers grant to one request
OUTAGE_THRESHOLD = 3  # failures of TikTok itself, one after the other, that end a bulk action
REASONS_SHOWN = 5  # how many failures of a bulk action are told one by one

_EVER = timedelta(days=36_500)
_TROUBLE = (TikTokBusinessError, ConfigurationError)
_OUTAGE = (ConnectionFailedError, RateLimitError, ServerError)
_MISCONFIGURATION = (AppConfigurationError, ConfigurationError)

_UNCONFIRMED = gettext_lazy(
    "%(account)s is disconnected here, but TikTok did not confirm it: %(reason)s To be sure, its "
    "holder can remove the access in the TikTok app, under “Settings and privacy”."
)


@admin.register(BusinessAccount)
class BusinessAccountAdmin(AccountColumns):
    actions = ("refresh_selected", "sync_selected", "disconnect_selected", "delete_selected")

    class Media:
        css = {"all": ("tiktok_business/admin.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def save_model(
        self, request: HttpRequest, obj: BusinessAccount, form: ModelForm[Any], change: bool
    ) -> None:
        # The rest of the row may have been renewed while the form was open.
        if form.changed_data:
            obj.save(update_fields=[*form.changed_data, "updated_at"])

    # Pages

    def get_urls(self) -> list[URLPattern]:
        views: dict[str, Callable[..., HttpResponse]] = {
            "refresh": self.refresh_view,
            "sync": self.sync_view,
            "disconnect": self.disconnect_view,
        }
        own = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
            )
            for name, view in views.items()
        ]
        return [*own, *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {**self._connecting(request), **(extra_context or {})}
        return super().changelist_view(request, context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        account: BusinessAccount = context["original"]
        is_connected = account.status != account.Status.REVOKED
        context.update(
            self._connecting(request),
            original_url=self._url("change", account.pk),
            is_connected=is_connected,
            is_refreshable=is_connected and account.app_id == conf.APP_ID,
        )
        return super().render_change_form(request, context, *args, **kwargs)

    def _connecting(self, request: HttpRequest) -> dict[str, Any]:
        """What the templates need for a button that connects."""
        permission = conf.CONNECT_PERMISSION
        try:
            connect_url = reverse("tiktok_business:connect")
        except NoReverseMatch:
            connect_url = ""
        return {
            "may_connect": permission is None or request.user.has_perm(permission),
            "connect_url": connect_url,
            # The callback view puts the primary key of the connected account in.
            "connect_next": self._url("change", "__pk__"),
        }

    def _url(self, page: str, *args: Any) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def _to_account(self, request: HttpRequest, account: BusinessAccount) -> HttpResponse:
        filters = self.get_preserved_filters(request)
        url = add_preserved_filters(
            {"opts": self.opts, "preserved_filters": filters}, self._url("change", account.pk)
        )
        return HttpResponseRedirect(url)

    # Buttons of one account

    @method_decorator(require_POST)
    def refresh_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._permitted(request, object_id, self.has_change_permission)
        try:
            services.refresh_account(account)
        except _TROUBLE as error:
            text = _("The tokens are not refreshed. %(reason)s") % {"reason": explanation(error)}
            self.message_user(request, text, messages.ERROR)
        else:
            self.message_user(request, _("The tokens are refreshed."), messages.SUCCESS)
        return self._to_account(request, account)

    @method_decorator(require_POST)
    def sync_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._permitted(request, object_id, self.has_change_permission)
        try:
            services.sync_profile(account)
        except _TROUBLE as error:
            text = _("The profile is not synced. %(reason)s") % {"reason": explanation(error)}
            self.message_user(request, text, messages.ERROR)
        else:
            self.message_user(request, _("The profile is up to date."), messages.SUCCESS)
        return self._to_account(request, account)

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def disconnect_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._permitted(request, object_id, self.has_delete_permission)
        if request.method == "POST":
            self._disconnect_or_say(request, [account])
            return self._to_account(request, account)
        return self._disconnect_page(request, [account], {}, self._url("change", account.pk))

    def _permitted(
        self,
        request: HttpRequest,
        object_id: str,
        has_permission: Callable[[HttpRequest, BusinessAccount | None], bool],
    ) -> BusinessAccount:
        account = self.get_object(request, unquote(object_id))
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
        accounts = self._selected(request, queryset)
        try:
            report = services.refresh_due_accounts(accounts=accounts, within=_EVER)
        except ConfigurationError as error:
            self.message_user(request, explanation(error), messages.ERROR)
            return
        for level, text in report_in_words(report, len(accounts)):
            self.message_user(request, text, level)
        failures = [failure_in_words(failure) for failure in report.failures]
        self._tell(request, messages.WARNING, failures)

    @admin.action(
        description=gettext_lazy("Sync the profiles of selected accounts"), permissions=["change"]
    )
    def sync_selected(self, request: HttpRequest, queryset: QuerySet[BusinessAccount]) -> None:
        accounts = self._selected(request, queryset)
        attempts = _attempts(accounts, _sync)
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
        self._tell(request, messages.ERROR, failures)
        self._tell_left(request, len(accounts) - len(attempts))

    @admin.action(description=gettext_lazy("Disconnect selected accounts"), permissions=["delete"])
    def disconnect_selected(
        self, request: HttpRequest, queryset: QuerySet[BusinessAccount]
    ) -> HttpResponse | None:
        accounts = self._selected(request, queryset)
        if request.POST.get("post"):
            self._disconnect_or_say(request, accounts)
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
        accounts = self._selected(request, queryset)
        if request.POST.get("post") and self._is_deletable(request, accounts):
            accounts = self._disconnect(request, accounts)
        chosen = queryset.filter(pk__in=[account.pk for account in accounts])
        return site_actions.delete_selected(self, request, chosen) if accounts else None

    def _selected(
        self, request: HttpRequest, queryset: QuerySet[BusinessAccount]
    ) -> list[BusinessAccount]:
        """The accounts to act on; none, and a message, when they are too many for one request."""
        accounts = list(queryset[: ACCOUNTS_PER_ACTION + 1])
        if len(accounts) <= ACCOUNTS_PER_ACTION:
            return accounts
        text = _(
            "Nothing was done: select at most %(count)d accounts at a time, or refresh all of them "
            "with “manage.py refresh_tokens --all”."
        )
        self.message_user(request, text % {"count": ACCOUNTS_PER_ACTION}, messages.ERROR)
        return []

    # Ending connections

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # Here and not in delete_model(): that runs in a transaction, which would stay open, and on
        # SQLite keep all others from writing, while TikTok is asked.
        if request.POST and TO_FIELD_VAR not in {**request.GET.dict(), **request.POST.dict()}:
            account = self._permitted(request, object_id, self.has_delete_permission)
            if self._is_deletable(request, [account]) and not self._disconnect(request, [account]):
                return self._to_account(request, account)
        return super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: BusinessAccount) -> None:
        _revoke_before_delete([obj])
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[BusinessAccount]) -> None:
        _revoke_before_delete(queryset)
        super().delete_queryset(request, queryset)

    def _is_deletable(self, request: HttpRequest, accounts: Sequence[BusinessAccount]) -> bool:
        *_rest, perms_needed, protected = self.get_deleted_objects(accounts, request)
        return not perms_needed and not protected

    def _disconnect(
        self, request: HttpRequest, accounts: Sequence[BusinessAccount]
    ) -> list[BusinessAccount]:
        """End the connections, say what TikTok said to it, and return the accounts without one."""
        revoked = BusinessAccount.Status.REVOKED
        connected = [account for account in accounts if account.status != revoked]
        attempts = _attempts(connected, services.disconnect_account)
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
        if confirmed:
            text = ngettext(
                "%(account)s is disconnected, and TikTok has confirmed it.",
                "%(count)d accounts are disconnected, and TikTok has confirmed it.",
                len(confirmed),
            )
            text %= {"account": confirmed[0], "count": len(confirmed)}
            self.message_user(request, text, messages.SUCCESS)
        self._tell(request, messages.WARNING, unconfirmed)
        self._tell(request, messages.ERROR, failed)
        self._tell_left(request, len(connected) - len(attempts))
        return [account for account in accounts if account.status == revoked]

    def _disconnect_or_say(self, request: HttpRequest, accounts: Sequence[BusinessAccount]) -> None:
        is_revoked = [account.status == account.Status.REVOKED for account in accounts]
        if any(is_revoked):
            text = ngettext(
                "%(count)d account was disconnected already.",
                "%(count)d accounts were disconnected already.",
                sum(is_revoked),
            )
            self.message_user(request, text % {"count": sum(is_revoked)}, messages.INFO)
        self._disconnect(request, accounts)

    def _tell(self, request: HttpRequest, level: int, texts: Sequence[str]) -> None:
        for text in texts[:REASONS_SHOWN]:
            self.message_user(request, text, level)
        if (more := len(texts) - REASONS_SHOWN) > 0:
            text = ngettext("... and %(count)d more.", "... and %(count)d more.", more)
            self.message_user(request, text % {"count": more}, level)

    def _tell_left(self, request: HttpRequest, count: int) -> None:
        if count:
            text = ngettext(
                "%(count)d more account was left as it is, because it would fare no better.",
                "%(count)d more accounts were left as they are: they would fare no better.",
                count,
            )
            self.message_user(request, text % {"count": count}, messages.WARNING)


def _attempts(
    accounts: Iterable[BusinessAccount],
    act: Callable[[BusinessAccount], Exception | None],
) -> list[tuple[BusinessAccount, Exception | None]]:
    """Act on one after the other, until it is evident that the rest would fare no better."""
    attempts: list[tuple[BusinessAccount, Exception | None]] = []
    streak = 0
    for account in accounts:
        try:
            error = act(account)
        except _TROUBLE as raised:
            error = raised
        attempts.append((account, error))
        streak = streak + 1 if isinstance(error, _OUTAGE) else 0
        if streak == OUTAGE_THRESHOLD or isinstance(error, _MISCONFIGURATION):
            break
    return attempts


def _sync(account: BusinessAccount) -> None:
    services.sync_profile(account)


def _revoke_before_delete(accounts: Iterable[BusinessAccount]) -> None:
    """For callers other than our pages, which have done and told it already."""
    for account in accounts:
        if account.status != account.Status.REVOKED:
            services.disconnect_account(account)
