"""What all pages share: headers, redirects, error pages, and who may connect accounts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import DisallowedRedirect
from django.db import transaction
from django.http import HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.urls import NoReverseMatch, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.generic import View

from django_tiktok_business import cache
from django_tiktok_business.conf import conf
from django_tiktok_business.exceptions import APIError, ConfigurationError

from . import results

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from django_tiktok_business.exceptions import TikTokBusinessError
    from django_tiktok_business.models import BusinessAccount

    from .results import Result


__all__ = ["ConnectPermissionMixin", "PageView"]

logger = logging.getLogger("tiktok_business")

# What `next` may hold for the key of an account that is not known before it is connected.
PK_PLACEHOLDER = "__pk__"

# Characters of `next`: five of them fit, with the rest of an attempt, into a session in a cookie,
# and one into a redirect when each character becomes twelve.
LONGEST_NEXT_URL = 1000


class PageView(View):
    """What all pages share: never cached, no URL in the Referer, no crash on a bad setting.

    No request runs in a transaction: a rollback must not take with it what TikTok has done.
    """

    # Where to go afterwards, "" for the default; a safe local URL.
    next_url = ""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        # Also without CsrfViewMiddleware: no other site is to press our buttons.
        view = csrf_protect(super().as_view(**initkwargs))
        return transaction.non_atomic_requests(never_cache(view))

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = super().dispatch(request, *args, **kwargs)
        except ConfigurationError as error:
            logger.error("A page cannot be shown: %s", error)  # noqa: TRY400 -- says it all
            is_staff = getattr(request.user, "is_staff", False)
            response = self.result(results.MISCONFIGURED, detail=str(error) if is_staff else "")
        # The host alone, without path and query. "no-referrer" would make browsers send forms with
        # `Origin: null`, which CsrfViewMiddleware refuses.
        response.headers["Referrer-Policy"] = "strict-origin"
        # Also without XFrameOptionsMiddleware: nobody is to press a hidden "Disconnect".
        response.headers.setdefault("X-Frame-Options", settings.X_FRAME_OPTIONS)
        if response.status_code == 429:
            response.headers["Retry-After"] = str(cache.LIMIT_SECONDS)
        return response

    def page(self, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
        context = {"user": self.request.user, "next_url": self.next_url, **context}
        return render(self.request, f"tiktok_business/{template}.html", context, status=status)

    def result(
        self,
        outcome: Result,
        *,
        detail: str = "",
        api_error: APIError | None = None,
        ended_at: str = "",
    ) -> HttpResponse:
        """A page that says how it ended and what to do next."""
        return self.page(
            "connect_result",
            status=outcome.status,
            outcome=outcome,
            detail=detail,
            api_error=api_error,
            ended_at=ended_at,
            # That page cannot be named before the account is there.
            back_url="" if PK_PLACEHOLDER in self.next_url else self.next_url,
        )

    def failure(self, error: TikTokBusinessError) -> HttpResponse:
        """The page for an error; of TikTok's own words only the code and the request id."""
        return self.result(
            results.of(error), api_error=error if isinstance(error, APIError) else None
        )

    def url(self, name: str, *args: Any) -> str:
        match = self.request.resolver_match
        current_app = match.namespace if match else None
        return reverse(f"tiktok_business:{name}", args=args, current_app=current_app)

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
        # "//" and its like are nowhere: a redirect to them would have no address.
        return wanted if is_safe and urlsplit(wanted).geturl() else ""

    def get_success_url(self, account: BusinessAccount) -> str:
        """Where connecting or disconnecting ``account`` ends."""
        if self.next_url:
            parts = urlsplit(self.next_url)
            return parts._replace(path=parts.path.replace(PK_PLACEHOLDER, str(account.pk))).geturl()
        if configured := conf.CONNECT_REDIRECT_URL:
            try:
                url: str = resolve_url(configured)
                HttpResponseRedirect(url)  # which does not take every URL
            except (NoReverseMatch, ValueError, DisallowedRedirect):
                # Too late to fail: the account is (dis)connected.
                logger.error(  # noqa: TRY400 -- a traceback would not say more
                    "TIKTOK_BUSINESS['CONNECT_REDIRECT_URL'] is no URL, path or name of a URL "
                    "pattern: %r",
                    configured,
                )
            else:
                return url
        return self.url("account_list")

    def add_message(self, level: int, text: str) -> None:
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
