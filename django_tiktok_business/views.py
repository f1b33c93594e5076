"""Connect, callback and disconnect, and by name all other pages: HTTP in, HTTP out.

To change who may connect, which redirect URL is used, which accounts are shown or where a visitor
ends, override the ``get_*`` and ``has_*`` hooks in subclasses and route these under the same names,
in a URLconf with ``app_name = "tiktok_business"``. The hooks of `ConnectPermissionMixin` serve four
views, and ``get_queryset`` two: put an override of them into a mixin of your own.

In ``next`` the path may hold ``__pk__``, which becomes the primary key of the account.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.db import DatabaseError, router
from django.http import Http404, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext as _

from . import attempts, conf, outcomes, presentation, scopes, services
from .account_pages import AccountListView, AccountView, may_disconnect
from .attempts import Answer
from .exceptions import AccountOwnedByAnotherUserError, TikTokBusinessError
from .models import BusinessAccount
from .pages import ConnectPermissionMixin, PageView

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from .attempts import Attempt

__all__ = [
    "AccountListView",
    "AccountView",
    "CallbackView",
    "ConnectPermissionMixin",
    "ConnectView",
    "DisconnectView",
]

logger = logging.getLogger("tiktok_business")


class ConnectView(ConnectPermissionMixin, LoginRequiredMixin, PageView):
    """Send the user to TikTok's consent page; a GET only asks whether to."""

    def get(self, request: HttpRequest) -> HttpResponse:
        self.next_url = self.safe_next_url()
        if not self.has_connect_permission():
            return self.result(outcomes.NOT_ALLOWED)
        return self.page("connect_confirm", scopes=scopes.in_words(self._asked_scopes()))

    def post(self, request: HttpRequest) -> HttpResponse:
        self.next_url = self.safe_next_url()
        if not self.has_connect_permission():
            return self.result(outcomes.NOT_ALLOWED)
        if attempts.is_too_often(request, "start"):
            return self.result(outcomes.TOO_MANY_STARTS)
        redirect_uri = self.get_redirect_uri()
        state = attempts.start(request, next_url=self.next_url, redirect_uri=redirect_uri)
        return HttpResponseRedirect(self._authorization_url(state, redirect_uri))

    def get_redirect_uri(self) -> str:
        """Where TikTok sends the browser back; used as it is when the code is exchanged.

        With an authorization URL from TikTok's portal it is the one in there.
        """
        return (
            _portal_parameter("redirect_uri")
            or conf.REDIRECT_URI
            or self.request.build_absolute_uri(self.url("callback"))
        )

    @staticmethod
    def _asked_scopes() -> list[str]:
        asked = _portal_parameter("scope")
        return asked.split(",") if asked else conf.SCOPES

    @staticmethod
    def _authorization_url(state: str, redirect_uri: str) -> str:
        parts = urlsplit(conf.AUTHORIZATION_URL)
        own = {"state": state}
        if conf.DISABLE_AUTO_AUTH:
            own["disable_auto_auth"] = "1"
        if parts.query:
            # What the portal issued stays as it is, to the letter.
            kept = [
                parameter
                for parameter in parts.query.split("&")
                if parameter.partition("=")[0] not in own
            ]
        else:
            kept = []
            own = {
                "client_key": conf.APP_ID,
                "scope": ",".join(conf.SCOPES),
                "response_type": "code",
                "redirect_uri": redirect_uri,
                **own,
            }
        return parts._replace(query="&".join([*kept, urlencode(own)])).geturl()


def _portal_parameter(name: str) -> str:
    """A parameter of AUTHORIZATION_URL, "" when it has none: then it is the bare URL."""
    return parse_qs(urlsplit(conf.AUTHORIZATION_URL).query).get(name, [""])[0]


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
        self._answer = Answer(request)

    def get(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return self.result(outcomes.LOGGED_OUT)
        if not self.has_connect_permission():
            return self.result(outcomes.NOT_ALLOWED)
        attempt = attempts.find(request, self._answer.state)
        # Apart: no flood of made-up answers, from links on another site, keeps TikTok's own out.
        if attempts.is_too_often(request, "stray_answer" if attempt is None else "answer"):
            return self.result(outcomes.TOO_MANY_ANSWERS)
        if self._answer.is_ambiguous:
            return self.result(outcomes.AMBIGUOUS)
        if attempt is None:
            return self.result(outcomes.UNKNOWN_STATE)
        if attempt["user"] != str(request.user.pk):
            return self.result(outcomes.OTHER_USER)
        self.next_url = attempt["next_url"]
        if attempt["ended_at"]:
            return self.result(outcomes.ALREADY_CONNECTED, ended_at=attempt["ended_at"])
        if attempt["is_answered"]:
            return self.result(outcomes.ALREADY_ANSWERED)
        if attempts.is_expired(attempt):
            return self.result(outcomes.EXPIRED)
        if attempts.is_refused_too_often(request):
            return self.result(outcomes.TOO_MANY_ANSWERS)
        return self._use(attempt)

    def _use(self, attempt: Attempt) -> HttpResponse:
        attempt["is_answered"] = True
        if not attempts.save(self.request, attempt):
            is_there = self.request.session.session_key
            return self.result(outcomes.NOT_STORED if is_there else outcomes.LOGGED_OUT)
        if not attempts.is_first(attempt):
            return self.result(outcomes.ALREADY_ANSWERED)
        if self._answer.is_refusal:
            logger.info("TikTok did not give access: %s.", self._answer.reason)
            return self.result(outcomes.DENIED)
        if not self._answer.code:
            return self.result(outcomes.NO_CODE)
        return self._connect(attempt)

    def _connect(self, attempt: Attempt) -> HttpResponse:
        try:
            account = services.connect_account(
                self.request.user, code=self._answer.code, redirect_uri=attempt["redirect_uri"]
            )
        except TikTokBusinessError as error:
            logger.warning("An account was not connected: %s", error)
            if isinstance(error, AccountOwnedByAnotherUserError):
                attempts.note_refusal(self.request)
            return self.failure(error)
        except DatabaseError:
            logger.exception("An account was not connected: it could not be stored.")
            return self.result(outcomes.NOT_STORED)
        url = attempt["ended_at"] = str(self.get_success_url(account))  # or it is no JSON
        attempts.save(self.request, attempt)  # before the profile, which takes time
        self._tell(account)
        return HttpResponseRedirect(url)

    def _tell(self, account: BusinessAccount) -> None:
        """Ask for the profile, then say what has become of it all."""
        has_profile = True
        try:
            if not _has_fresh_profile(account) and attempts.is_first_profile(account.pk):
                services.sync_profile(account)
        except (TikTokBusinessError, DatabaseError) as error:
            logger.warning("The profile of %s was not synced: %s", account.open_id, error)
            has_profile = False
        if account.owner_id == self.request.user.pk:
            text = _("%(account)s is connected.")
        else:
            text = _("%(account)s is connected again. It still belongs to another user.")
        self.say(messages.SUCCESS, text % {"account": account.label})
        if not has_profile:
            self.say(messages.WARNING, _("Its profile could not be read yet."))
        if missing := account.missing_scopes:
            self.say(
                messages.WARNING,
                _("Not granted: %(scopes)s. What needs them will not work.")
                % {"scopes": ", ".join(missing)},
            )


def _has_fresh_profile(account: BusinessAccount) -> bool:
    """Whether it was read just now: whoever connects again and again uses up nobody's calls."""
    synced_at = account.profile_synced_at
    return synced_at is not None and timezone.now() - synced_at < timedelta(minutes=1)


class DisconnectView(LoginRequiredMixin, PageView):
    """End TikTok's grant and forget the tokens; a GET only asks whether to."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        self.next_url = self.safe_next_url()
        account = self.get_account(pk)
        if account.status == BusinessAccount.Status.REVOKED:
            return self._already(account)
        return self.page(
            "disconnect_confirm", account=account, picture=presentation.picture(account)
        )

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        self.next_url = self.safe_next_url()
        account = self.get_account(pk)
        if account.status == BusinessAccount.Status.REVOKED:
            return self._already(account)
        try:
            error = services.disconnect_account(account)
        except TikTokBusinessError as failure:
            logger.warning("Account %s was not disconnected: %s", account.open_id, failure)
            return self.result(outcomes.NOT_DISCONNECTED)
        except DatabaseError:
            logger.exception("Account %s was not disconnected.", account.open_id)
            return self.result(outcomes.NOT_DISCONNECTED)
        if error is None:
            text = _("%(account)s is disconnected, and TikTok has confirmed it.")
            self.say(messages.SUCCESS, text % {"account": account.label})
        else:
            text = _(
                "%(account)s is disconnected here, but TikTok could not be told. To end the access "
                "there too, remove this app in TikTok under Settings and privacy, Security, "
                "Manage app permissions."
            )
            self.say(messages.WARNING, text % {"account": account.label})
        return HttpResponseRedirect(self.get_success_url(account))

    def get_account(self, pk: int) -> BusinessAccount:
        """The account, when this user may disconnect it; raises Http404."""
        # Where it is written: a replica may not know that it was connected again.
        accounts = BusinessAccount.objects.using(router.db_for_write(BusinessAccount))
        account = get_object_or_404(accounts, pk=pk)
        if not may_disconnect(self.request.user, account):
            raise Http404
        return account

    def _already(self, account: BusinessAccount) -> HttpResponse:
        text = _("%(account)s is disconnected already.") % {"account": account.label}
        self.say(messages.INFO, text)
        return HttpResponseRedirect(self.get_success_url(account))
