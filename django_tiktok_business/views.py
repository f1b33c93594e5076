"""Connect, callback, disconnect and the list of accounts: HTTP in, HTTP out.

To change who may connect, which redirect URL is used or where a visitor ends, override the
``get_*`` and ``has_*`` hooks in subclasses and route these under the same names, in a URLconf with
``app_name = "tiktok_business"``. `ConnectPermissionMixin` serves three views: put an override of
its hooks into a mixin of your own.

In ``next`` the path may hold ``__pk__``, which becomes the primary key of the account.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.paginator import Paginator
from django.db import DatabaseError, transaction
from django.db.models import F
from django.http import Http404, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render, resolve_url
from django.urls import NoReverseMatch, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.generic import View

from . import attempts, conf, outcomes, presentation, scopes, services
from .attempts import Answer
from .exceptions import APIError, ConfigurationError, TikTokBusinessError
from .models import BusinessAccount, Health
from .outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase
    from django.utils.safestring import SafeString

    from .attempts import Attempt
    from .models import BusinessAccountQuerySet

__all__ = [
    "AccountListView",
    "CallbackView",
    "ConnectPermissionMixin",
    "ConnectView",
    "DisconnectView",
]

logger = logging.getLogger("tiktok_business")

# What `next` may hold for the key of an account that is not known before it is connected.
PK_PLACEHOLDER = "__pk__"
# Characters of `next`: five of them fit, with the rest of an attempt, into a session in a cookie,
# and one into a redirect when each character becomes twelve.
LONGEST_NEXT_URL = 1000


class _PageView(View):
    """What all pages share: never cached, no URL in the Referer, no crash on a bad setting.

    No request runs in a transaction: a rollback must not take with it what TikTok has done.
    """

    # Where to go afterwards, "" for the default; a safe local URL.
    next_url = ""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        return transaction.non_atomic_requests(never_cache(super().as_view(**initkwargs)))

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = super().dispatch(request, *args, **kwargs)
        except ConfigurationError as error:
            logger.error("A page cannot be shown: %s", error)  # noqa: TRY400 -- says it all
            is_staff = getattr(request.user, "is_staff", False)
            response = self.result(outcomes.MISCONFIGURED, detail=str(error) if is_staff else "")
        # The host alone, without path and query. "no-referrer" would make browsers send forms with
        # `Origin: null`, which CsrfViewMiddleware refuses.
        response.headers["Referrer-Policy"] = "strict-origin"
        return response

    def page(self, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
        context = {"user": self.request.user, "next_url": self.next_url, **context}
        return render(self.request, f"tiktok_business/{template}.html", context, status=status)

    def result(self, outcome: Outcome, **context: Any) -> HttpResponse:
        """A page that says how it ended and what to do next."""
        return self.page(
            "connect_result",
            status=outcome.status,
            outcome=outcome,
            # That page cannot be named before the account is there.
            back_url="" if PK_PLACEHOLDER in self.next_url else self.next_url,
            **context,
        )

    def failure(self, error: TikTokBusinessError) -> HttpResponse:
        """The page for an error; of TikTok's own words only the code and the request id."""
        return self.result(
            outcomes.of(error), api_error=error if isinstance(error, APIError) else None
        )

    def url(self, name: str) -> str:
        match = self.request.resolver_match
        return reverse(f"tiktok_business:{name}", current_app=match.namespace if match else None)

    def safe_next_url(self) -> str:
        """``next`` from the form or the query when it leads to this site, otherwise ""."""
        wanted = self.request.POST.get("next") or self.request.GET.get("next") or ""
        # Not printable: nothing that a URL may hold as it is, but lone surrogates and controls.
        if len(wanted) > LONGEST_NEXT_URL or not wanted.isprintable():
            return ""
        # Also with the key in it: the underscores alone may keep "x__pk__:" from being a scheme.
        is_safe = all(
            url_has_allowed_host_and_scheme(
                url, allowed_hosts={self.request.get_host()}, require_https=self.request.is_secure()
            )
            for url in (wanted, wanted.replace(PK_PLACEHOLDER, "1"))
        )
        return wanted if is_safe else ""

    def get_success_url(self, account: BusinessAccount) -> str:
        """Where connecting or disconnecting ``account`` ends."""
        if self.next_url:
            parts = urlsplit(self.next_url)
            return parts._replace(path=parts.path.replace(PK_PLACEHOLDER, str(account.pk))).geturl()
        if configured := conf.CONNECT_REDIRECT_URL:
            try:
                return resolve_url(configured)
            except NoReverseMatch:  # too late to fail: the account is (dis)connected
                logger.error(  # noqa: TRY400 -- a traceback would not say more
                    "TIKTOK_BUSINESS['CONNECT_REDIRECT_URL'] is no URL, path or name of a URL "
                    "pattern: %r",
                    configured,
                )
        return self.url("account_list")

    def say(self, level: int, text: str) -> None:
        """Leave a message for the next page, if the project uses messages."""
        messages.add_message(self.request, level, text, fail_silently=True)


class ConnectPermissionMixin(View):
    """Who may connect accounts."""

    def get_connect_permission(self) -> str | None:
        """The permission it takes; None: to be logged in."""
        return conf.CONNECT_PERMISSION

    def has_connect_permission(self) -> bool:
        permission = self.get_connect_permission()
        return permission is None or self.request.user.has_perm(permission)


class ConnectView(ConnectPermissionMixin, LoginRequiredMixin, _PageView):
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


class CallbackView(ConnectPermissionMixin, _PageView):
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
        if self._answer.is_ambiguous:
            return self.result(outcomes.AMBIGUOUS)
        attempt = attempts.find(request, self._answer.state)
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


class DisconnectView(LoginRequiredMixin, _PageView):
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
        account = get_object_or_404(BusinessAccount, pk=pk)
        if not _may_disconnect(self.request.user, account):
            raise Http404
        return account

    def _already(self, account: BusinessAccount) -> HttpResponse:
        text = _("%(account)s is disconnected already.") % {"account": account.label}
        self.say(messages.INFO, text)
        return HttpResponseRedirect(self.get_success_url(account))


def _may_disconnect(user: Any, account: BusinessAccount) -> bool:
    is_owner: bool = account.owner_id == user.pk
    return is_owner or bool(user.has_perm("tiktok_business.delete_businessaccount"))


@dataclass(frozen=True)
class _Row:
    """What the list shows of an account, worked out once: its health takes decrypting."""

    account: BusinessAccount
    health: Health
    picture: SafeString
    access_expires: str
    consent_ends: str
    failed: str
    missing_scopes: list[str]
    is_of_other_app: bool
    is_renewed: bool  # without anybody's help
    needs_reconnect: bool
    may_reconnect: bool
    may_disconnect: bool


class AccountListView(ConnectPermissionMixin, LoginRequiredMixin, _PageView):
    """The user's accounts; all accounts for who has the view permission."""

    paginate_by = 50

    def get(self, request: HttpRequest) -> HttpResponse:
        page = Paginator(self.get_queryset(), self.paginate_by).get_page(request.GET.get("page"))
        return self.page(
            "account_list",
            page=page,
            rows=[self._row(account) for account in page],
            shows_owners=self._sees_all(),
            may_connect=self.has_connect_permission(),
        )

    def get_queryset(self) -> BusinessAccountQuerySet:
        accounts = BusinessAccount.objects.select_related("owner")
        if not self._sees_all():
            accounts = accounts.filter(owner=self.request.user.pk)
        return accounts.order_by(F("connected_at").desc(nulls_last=True), "-pk")

    def _sees_all(self) -> bool:
        return self.request.user.has_perm("tiktok_business.view_businessaccount")

    def _row(self, account: BusinessAccount) -> _Row:
        user = self.request.user
        health = account.health
        is_of_other_app = account.app_id != conf.APP_ID
        needs_reconnect = health in (Health.RECONNECT_NEEDED, Health.UNDECRYPTABLE)
        is_mine = account.owner_id in (None, user.pk)
        return _Row(
            account=account,
            health=health,
            picture=presentation.picture(account),
            access_expires=presentation.time_element(account.access_token_expires_at),
            consent_ends=presentation.time_element(account.refresh_token_expires_at),
            failed=presentation.time_element(account.last_error_at),
            missing_scopes=[]
            if health == Health.REVOKED
            else scopes.in_words(account.missing_scopes),
            is_of_other_app=is_of_other_app,
            is_renewed=not (needs_reconnect or is_of_other_app)
            and account.is_access_token_valid_for(timedelta(0)),
            needs_reconnect=needs_reconnect,
            may_reconnect=self.has_connect_permission()
            and (is_mine or user.has_perm("tiktok_business.change_businessaccount")),
            may_disconnect=_may_disconnect(user, account) and health != Health.REVOKED,
        )
