"""Disconnect an account after a confirm page."""

from __future__ import annotations

import logging

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.db import DatabaseError, router
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from django_tiktok_business import presentation, services
from django_tiktok_business.exceptions import TikTokBusinessError
from django_tiktok_business.models import BusinessAccount

from . import results
from .accounts import may_disconnect
from .base import PageView

logger = logging.getLogger("tiktok_business")


class DisconnectView(LoginRequiredMixin, PageView):
    """Revoke the grant at TikTok and erase the tokens; a GET shows a confirm page."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        self.next_url = self.safe_next_url()
        account = self.get_account(pk)
        if account.status == BusinessAccount.Status.REVOKED:
            return self._redirect_already_disconnected(account)
        return self.page(
            "disconnect_confirm", account=account, picture=presentation.picture(account)
        )

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        self.next_url = self.safe_next_url()
        account = self.get_account(pk)
        if account.status == BusinessAccount.Status.REVOKED:
            return self._redirect_already_disconnected(account)
        try:
            error = services.disconnect_account(account)
        except TikTokBusinessError as failure:
            logger.warning("Account %s was not disconnected: %s", account.open_id, failure)
            return self.result(results.NOT_DISCONNECTED)
        except DatabaseError:
            logger.exception("Account %s was not disconnected.", account.open_id)
            return self.result(results.NOT_DISCONNECTED)
        if error is None:
            text = _("%(account)s is disconnected, and TikTok has confirmed it.")
            self.add_message(messages.SUCCESS, text % {"account": account.label})
        else:
            text = _(
                "%(account)s is disconnected here, but TikTok could not be told. To end the access "
                "there too, remove this app in TikTok under Settings and privacy, Security, "
                "Manage app permissions."
            )
            self.add_message(messages.WARNING, text % {"account": account.label})
        return HttpResponseRedirect(self.get_success_url(account))

    def get_account(self, pk: int) -> BusinessAccount:
        """Return the account if this user may disconnect it; otherwise raise Http404."""
        # The primary database: a replica may not know yet that the account was reconnected.
        accounts = BusinessAccount.objects.using(router.db_for_write(BusinessAccount))
        account = get_object_or_404(accounts, pk=pk)
        if not may_disconnect(self.request.user, account):
            raise Http404
        return account

    def _redirect_already_disconnected(self, account: BusinessAccount) -> HttpResponse:
        text = _("%(account)s is disconnected already.") % {"account": account.label}
        self.add_message(messages.INFO, text)
        return HttpResponseRedirect(self.get_success_url(account))
