"""The admin of `BusinessAccount`: its URLs, the context of its pages, and the account's buttons.

Data from TikTok is read-only, and there is no add form: connecting an account adds it. Every
change except that of the owner goes through `django_tiktok_business.services`. Messages and history
entries never contain a token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from django_tiktok_business.conf import conf
from django_tiktok_business.exceptions import ConfigurationError, TikTokBusinessError
from django_tiktok_business.models import BusinessAccount, ConnectionEvent
from django_tiktok_business.presentation import advice, explanation, picture

from . import lazy
from .actions import AccountActions

if TYPE_CHECKING:
    from .overview import AccountChangeList


# What a service raises and an administrator can act on.
_FAILURES = (ConfigurationError, TikTokBusinessError)


if TYPE_CHECKING:
    _Paginator = Paginator[BusinessAccount]
else:  # not subscriptable at run time
    _Paginator = Paginator


class AccountPaginator(_Paginator):
    """Take the count from the overview where it has counted these rows already."""

    @cached_property
    def count(self) -> int:
        known: int | None = getattr(self.object_list, "known_count", None)
        return super().count if known is None else known


@admin.register(BusinessAccount)
class BusinessAccountAdmin(AccountActions):
    paginator = AccountPaginator
    show_full_result_count = False  # the overview has it without another query

    class Media:
        css = {"all": ("tiktok_business/admin.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def save_model(
        self, request: HttpRequest, obj: BusinessAccount, form: ModelForm[Any], change: bool
    ) -> None:
        # Write only the edited fields: tokens may have been refreshed while the form was open.
        if form.changed_data:
            obj.save(update_fields=[*form.changed_data, "updated_at"])

    # Pages

    def get_urls(self) -> list[URLPattern]:
        views: dict[str, Callable[..., HttpResponse]] = {
            "refresh": self.refresh_view,
            "sync": self.sync_view,
            "disconnect": self.disconnect_view,
        }
        urls = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
            )
            for name, view in views.items()
        ]
        return [*urls, *super().get_urls()]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[AccountChangeList]:
        return lazy.overview.AccountChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            **self._connect_context(request),
            "redirect_uri": _redirect_uri(request),
            "may_see_settings": self.has_change_permission(request),
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        account: BusinessAccount = context["original"]
        is_connected = account.status != account.Status.REVOKED
        connect = self._connect_context(request)
        page_url = self._url("change", account.pk)
        context.update(
            connect,
            reconnect_url=f"{connect['connect_url']}?{urlencode({'next': page_url})}",
            account_page=lazy.account_page.AccountPage(account),
            events_url=self._events_url(request, account),
            advice=advice(account),
            picture=picture(account),
            state=self.state(account),
            is_connected=is_connected,
            is_refreshable=is_connected and not account.is_of_another_app,
        )
        return super().render_change_form(request, context, *args, **kwargs)

    def _connect_context(self, request: HttpRequest) -> dict[str, Any]:
        """The template context for a button that connects an account."""
        try:
            permission = conf.CONNECT_PERMISSION
            may_connect = permission is None or request.user.has_perm(permission)
        except ConfigurationError:  # the system checks report it
            may_connect = False
        try:
            connect_url = reverse("tiktok_business:connect")
        except NoReverseMatch:
            connect_url = ""
        return {
            "may_connect": may_connect,
            "connect_url": connect_url,
            # The callback view replaces the placeholder with the connected account's key.
            "connect_next": self._url("change", "__pk__"),
        }

    def _events_url(self, request: HttpRequest, account: BusinessAccount) -> str:
        """The URL of the account's events; "" for users who may not view events."""
        events = self.admin_site._registry.get(ConnectionEvent)
        if events is None or not events.has_view_permission(request):
            return ""
        url = reverse(
            f"admin:{self.opts.app_label}_connectionevent_changelist",
            current_app=self.admin_site.name,
        )
        return f"{url}?account__id__exact={account.pk}"

    # Buttons on the account page

    @method_decorator(require_POST)
    def refresh_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._get_permitted(request, object_id, self.has_change_permission)
        try:
            lazy.services.refresh_account(account)
        except _FAILURES as error:
            text = _("The tokens are not refreshed. %(reason)s") % {"reason": explanation(error)}
            self.message_user(request, text, messages.ERROR)
        else:
            self.message_user(request, _("The tokens are refreshed."), messages.SUCCESS)
        return self._to_account(request, account)

    @method_decorator(require_POST)
    def sync_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._get_permitted(request, object_id, self.has_change_permission)
        try:
            lazy.services.sync_profile(account)
        except _FAILURES as error:
            text = _("The profile is not synced. %(reason)s") % {"reason": explanation(error)}
            self.message_user(request, text, messages.ERROR)
        else:
            self.message_user(request, _("The profile is up to date."), messages.SUCCESS)
        return self._to_account(request, account)

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def disconnect_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._get_permitted(request, object_id, self.has_delete_permission)
        if request.method == "POST":
            self._report_already_disconnected(request, [account])
            self._disconnect(request, [account])
            return self._to_account(request, account)
        return self._disconnect_page(request, [account], {}, self._url("change", account.pk))


def _redirect_uri(request: HttpRequest) -> str:
    """The redirect URL to register with TikTok; "" while it is unknown.

    That is while the project does not include our URLs or REDIRECT_URI is invalid.
    """
    try:
        return conf.REDIRECT_URI or request.build_absolute_uri(reverse("tiktok_business:callback"))
    except (ConfigurationError, NoReverseMatch):
        return ""
