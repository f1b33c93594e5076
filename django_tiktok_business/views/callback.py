"""Finish connecting an account when TikTok redirects back: check the state, exchange the code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext as _

from django_tiktok_business import services
from django_tiktok_business.exceptions import AccountOwnedByAnotherUserError, TikTokBusinessError
from django_tiktok_business.models import BusinessAccount

from . import results, state
from .base import ConnectPermissionMixin, PageView
from .state import AuthorizationRequest, AuthorizationResponse

logger = logging.getLogger("tiktok_business")


class CallbackView(ConnectPermissionMixin, PageView):
    """Check the state of TikTok's response, connect the account, and redirect.

    Each response is used only once, even when it fails.
    """

    # No HEAD: a link checker must not use up the code.
    http_method_names = ["get"]

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        # LoginRequiredMiddleware would copy the code into the `next` of the login page's URL.
        return login_not_required(super().as_view(**initkwargs))

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        self._response = AuthorizationResponse(request)

    def get(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return self.result(results.LOGGED_OUT)
        if not self.has_connect_permission():
            return self.result(results.NOT_ALLOWED)
        auth_request = state.find(request, self._response.state)
        # Counted apart: forged responses, from links on another site, must not block the real ones.
        if not state.allow(request, "stray_response" if auth_request is None else "response"):
            return self.result(results.TOO_MANY_RESPONSES)
        if self._response.is_ambiguous:
            return self.result(results.AMBIGUOUS)
        if auth_request is None:
            return self.result(results.UNKNOWN_STATE)
        if auth_request["user"] != str(request.user.pk):
            return self.result(results.OTHER_USER)
        self.next_url = auth_request["next_url"]
        if auth_request["ended_at"]:
            return self.result(results.ALREADY_CONNECTED, ended_at=auth_request["ended_at"])
        if auth_request["is_answered"]:
            return self.result(results.ALREADY_USED)
        if state.is_expired(auth_request):
            return self.result(results.EXPIRED)
        if state.has_too_many_owner_conflicts(request):
            return self.result(results.TOO_MANY_RESPONSES)
        return self._redeem(auth_request)

    def _redeem(self, auth_request: AuthorizationRequest) -> HttpResponse:
        auth_request["is_answered"] = True
        if not state.save(self.request, auth_request):
            has_session = self.request.session.session_key
            return self.result(results.NOT_STORED if has_session else results.LOGGED_OUT)
        if not state.claim(auth_request):
            return self.result(results.ALREADY_USED)
        if self._response.is_denial:
            logger.info("TikTok did not grant access: %s.", self._response.reason)
            return self.result(results.DENIED)
        if not self._response.code:
            return self.result(results.NO_CODE)
        return self._connect(auth_request)

    def _connect(self, auth_request: AuthorizationRequest) -> HttpResponse:
        try:
            account = services.connect_account(
                self.request.user,
                code=self._response.code,
                redirect_uri=auth_request["redirect_uri"],
            )
        except TikTokBusinessError as error:
            logger.warning("An account was not connected: %s", error)
            if isinstance(error, AccountOwnedByAnotherUserError):
                state.record_owner_conflict(self.request)
            return self.failure(error)
        except DatabaseError:
            logger.exception("An account was not connected: it could not be stored.")
            return self.result(results.NOT_STORED)
        url = str(self.get_success_url(account))  # a lazy string could not be saved as JSON
        auth_request["ended_at"] = url
        state.save(self.request, auth_request)  # before the slow profile sync
        self._add_messages(account, is_synced=_sync_profile(account))
        return HttpResponseRedirect(url)

    def _add_messages(self, account: BusinessAccount, *, is_synced: bool) -> None:
        if account.owner_id == self.request.user.pk:
            text = _("%(account)s is connected.")
        else:
            text = _("%(account)s is connected again. It still belongs to another user.")
        self.add_message(messages.SUCCESS, text % {"account": account.label})
        if not is_synced:
            self.add_message(messages.WARNING, _("Its profile could not be read yet."))
        if missing := account.missing_scopes:
            self.add_message(
                messages.WARNING,
                _("Not granted: %(scopes)s. What needs them will not work.")
                % {"scopes": ", ".join(missing)},
            )


def _sync_profile(account: BusinessAccount) -> bool:
    """Sync the profile unless it was synced within a minute; False when that failed."""
    try:
        if not _has_fresh_profile(account) and state.allow_profile_sync(account.pk):
            services.sync_profile(account)
    except (TikTokBusinessError, DatabaseError) as error:
        logger.warning("The profile of %s was not synced: %s", account.open_id, error)
        return False
    return True


def _has_fresh_profile(account: BusinessAccount) -> bool:
    """Whether it was synced just now: connecting again and again must not use up the rate limit."""
    synced_at = account.profile_synced_at
    return synced_at is not None and timezone.now() - synced_at < timedelta(minutes=1)
