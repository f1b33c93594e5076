"""Where TikTok sends the browser back: check the state, connect the account, move on."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import HttpResponseRedirect
from django.utils import timezone
from django.utils.translation import gettext as _

from django_tiktok_business import services
from django_tiktok_business.exceptions import AccountOwnedByAnotherUserError, TikTokBusinessError

from . import results
from . import state as state_module
from .base import ConnectPermissionMixin, PageView
from .state import AuthorizationResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from django_tiktok_business.models import BusinessAccount

    from .state import AuthorizationRequest


__all__ = ["CallbackView"]

logger = logging.getLogger("tiktok_business")


class CallbackView(ConnectPermissionMixin, PageView):
    """Where TikTok sends the browser back: check the state, connect the account, move on.

    Each answer is used once, whatever comes of it.
    """

    # No HEAD: who only looks must not use up the code.
    http_method_names = ["get"]

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        # LoginRequiredMiddleware would hand the code on, in the `next` of the login page's URL.
        return login_not_required(super().as_view(**initkwargs))

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        self._answer = AuthorizationResponse(request)

    def get(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return self.result(results.LOGGED_OUT)
        if not self.has_connect_permission():
            return self.result(results.NOT_ALLOWED)
        attempt = state_module.find(request, self._answer.state)
        # Apart: no flood of made-up answers, from links on another site, keeps TikTok's own out.
        if state_module.is_too_often(request, "stray_answer" if attempt is None else "answer"):
            return self.result(results.TOO_MANY_ANSWERS)
        if self._answer.is_ambiguous:
            return self.result(results.AMBIGUOUS)
        if attempt is None:
            return self.result(results.UNKNOWN_STATE)
        if attempt["user"] != str(request.user.pk):
            return self.result(results.OTHER_USER)
        self.next_url = attempt["next_url"]
        if attempt["ended_at"]:
            return self.result(results.ALREADY_CONNECTED, ended_at=attempt["ended_at"])
        if attempt["is_answered"]:
            return self.result(results.ALREADY_ANSWERED)
        if state_module.is_expired(attempt):
            return self.result(results.EXPIRED)
        if state_module.is_refused_too_often(request):
            return self.result(results.TOO_MANY_ANSWERS)
        return self._use(attempt)

    def _use(self, attempt: AuthorizationRequest) -> HttpResponse:
        attempt["is_answered"] = True
        if not state_module.save(self.request, attempt):
            is_there = self.request.session.session_key
            return self.result(results.NOT_STORED if is_there else results.LOGGED_OUT)
        if not state_module.is_first(attempt):
            return self.result(results.ALREADY_ANSWERED)
        if self._answer.is_refusal:
            logger.info("TikTok did not give access: %s.", self._answer.reason)
            return self.result(results.DENIED)
        if not self._answer.code:
            return self.result(results.NO_CODE)
        return self._connect(attempt)

    def _connect(self, attempt: AuthorizationRequest) -> HttpResponse:
        try:
            account = services.connect_account(
                self.request.user, code=self._answer.code, redirect_uri=attempt["redirect_uri"]
            )
        except TikTokBusinessError as error:
            logger.warning("An account was not connected: %s", error)
            if isinstance(error, AccountOwnedByAnotherUserError):
                state_module.note_refusal(self.request)
            return self.failure(error)
        except DatabaseError:
            logger.exception("An account was not connected: it could not be stored.")
            return self.result(results.NOT_STORED)
        url = attempt["ended_at"] = str(self.get_success_url(account))  # or it is no JSON
        state_module.save(self.request, attempt)  # before the profile, which takes time
        self._tell(account)
        return HttpResponseRedirect(url)

    def _tell(self, account: BusinessAccount) -> None:
        """Ask for the profile, then say what has become of it all."""
        has_profile = True
        try:
            if not _has_fresh_profile(account) and state_module.is_first_profile(account.pk):
                services.sync_profile(account)
        except (TikTokBusinessError, DatabaseError) as error:
            logger.warning("The profile of %s was not synced: %s", account.open_id, error)
            has_profile = False
        if account.owner_id == self.request.user.pk:
            text = _("%(account)s is connected.")
        else:
            text = _("%(account)s is connected again. It still belongs to another user.")
        self.add_message(messages.SUCCESS, text % {"account": account.label})
        if not has_profile:
            self.add_message(messages.WARNING, _("Its profile could not be read yet."))
        if missing := account.missing_scopes:
            self.add_message(
                messages.WARNING,
                _("Not granted: %(scopes)s. What needs them will not work.")
                % {"scopes": ", ".join(missing)},
            )


def _has_fresh_profile(account: BusinessAccount) -> bool:
    """Whether it was read just now: whoever connects again and again uses up nobody's calls."""
    synced_at = account.profile_synced_at
    return synced_at is not None and timezone.now() - synced_at < timedelta(minutes=1)
