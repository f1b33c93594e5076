"""The list of accounts and the page of one account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.paginator import Paginator
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_tiktok_business import presentation, scopes
from django_tiktok_business.conf import conf
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet, Health

from .base import ConnectPermissionMixin, PageView


@dataclass(frozen=True)
class AccountRow:
    """What both pages show of an account, computed once: its health requires decryption."""

    account: BusinessAccount
    health: Health
    advice: str  # what the health means, and what to do
    picture: SafeString
    # Times as HTML.
    connected: str
    renewed: str
    access_expires: str
    consent_ends: str
    failed: str
    missing_scopes: list[str]  # in words
    is_of_other_app: bool
    is_renewed: bool  # automatically
    needs_reconnect: bool
    may_reconnect: bool
    may_disconnect: bool


def may_disconnect(user: Any, account: BusinessAccount) -> bool:
    is_owner: bool = account.owner_id == user.pk
    return is_owner or bool(user.has_perm("tiktok_business.delete_businessaccount"))


class _AccountPageView(ConnectPermissionMixin, LoginRequiredMixin, PageView):
    """What the list and the account page share: which accounts a user may see."""

    def get_queryset(self) -> BusinessAccountQuerySet:
        """The accounts that this user may see, in the order of the list."""
        accounts = BusinessAccount.objects.select_related("owner")
        if not self.sees_all():
            accounts = accounts.filter(owner=self.request.user.pk)
        return accounts.order_by(F("connected_at").desc(nulls_last=True), "-pk")

    def sees_all(self) -> bool:
        return self.request.user.has_perm("tiktok_business.view_businessaccount")

    def row(self, account: BusinessAccount, time: Callable[[datetime | None], str]) -> AccountRow:
        user = self.request.user
        health = account.health
        is_of_other_app = account.app_id != conf.APP_ID
        needs_reconnect = health.needs_person
        is_mine = account.owner_id in (None, user.pk)
        is_not_refreshed = is_of_other_app and health in (Health.HEALTHY, Health.RETRYING)
        return AccountRow(
            account=account,
            health=health,
            # The advice would say that access is renewed, which is wrong for another app's account.
            advice="" if is_not_refreshed else presentation.advice(account),
            picture=presentation.picture(account),
            connected=time(account.connected_at),
            renewed=time(account.last_refreshed_at),
            access_expires=time(account.access_token_expires_at),
            consent_ends=time(account.refresh_token_expires_at),
            failed=time(account.last_error_at),
            missing_scopes=[]
            if health == Health.REVOKED
            else scopes.describe(account.missing_scopes),
            is_of_other_app=is_of_other_app,
            is_renewed=not (needs_reconnect or is_of_other_app)
            and account.is_access_token_valid_for(timedelta(0)),
            needs_reconnect=needs_reconnect,
            may_reconnect=self.has_connect_permission()
            and (is_mine or user.has_perm("tiktok_business.change_businessaccount")),
            may_disconnect=may_disconnect(user, account) and health != Health.REVOKED,
        )


class AccountListView(_AccountPageView):
    """The user's accounts; with the view permission, all accounts."""

    paginate_by = 50

    def get(self, request: HttpRequest) -> HttpResponse:
        page = Paginator(self.get_queryset(), self.paginate_by).get_page(request.GET.get("page"))
        return self.page(
            "account_list",
            page=page,
            rows=[self.row(account, presentation.time_element) for account in page],
            shows_owners=self.sees_all(),
            may_connect=self.has_connect_permission(),
        )


class AccountView(_AccountPageView):
    """One account: its profile, its health, and what its scopes allow."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        account = get_object_or_404(self.get_queryset(), pk=pk)
        return self.page(
            "account",
            row=self.row(account, presentation.time_in_full),
            figures=[
                (_("Followers"), presentation.format_count(account.followers_count)),
                (_("Following"), presentation.format_count(account.following_count)),
                (_("Likes"), presentation.format_count(account.likes_count)),
                (_("Videos"), presentation.format_count(account.videos_count)),
            ],
            profile_read=presentation.time_element(account.profile_synced_at, unknown=""),
            granted_scopes=scopes.describe(account.granted_scopes),
            shows_owners=self.sees_all(),
            # Reconnecting and disconnecting return here. An error page has no such default.
            next_url=self.url("account", account.pk),
        )
