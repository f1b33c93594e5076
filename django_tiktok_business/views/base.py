"""What all pages share: headers, redirects, error pages and the permission to connect."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import DisallowedRedirect
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.urls import NoReverseMatch, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.generic import View

from django_tiktok_business import cache
from django_tiktok_business.conf import conf
from django_tiktok_business.exceptions import APIError, ConfigurationError, TikTokBusinessError
from django_tiktok_business.models import BusinessAccount

from . import results
from .results import Result

logger = logging.getLogger("tiktok_business")

# Stands in `next` for the primary key of an account that is not connected yet.
PK_PLACEHOLDER = "__pk__"

# In characters. Five authorization requests with a `next` of this length fit into a session cookie,
# and one fits into a redirect even when encoding turns each character into twelve.
LONGEST_NEXT_URL = 1000


class PageView(View):
    """A page that is never cached, leaks no URL in the Referer and survives a wrong setting.

    No request runs in a transaction: a rollback must not undo what TikTok has already done.
    """

    # Where to go afterwards: a safe local URL, "" for the default.
    next_url = ""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        # Also without CsrfViewMiddleware: no other site may press our buttons.
        view = csrf_protect(super().as_view(**initkwargs))
        return transaction.non_atomic_requests(never_cache(view))

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = super().dispatch(request, *args, **kwargs)
        except ConfigurationError as error:
            logger.error("A page cannot be shown: %s", error)  # noqa: TRY400 -- a traceback would not add anything
            is_staff = getattr(request.user, "is_staff", False)
            response = self.result(results.MISCONFIGURED, detail=str(error) if is_staff else "")
        # Only the origin, without path and query. "no-referrer" would make browsers send forms with
        # `Origin: null`, which CsrfViewMiddleware rejects.
        response.headers["Referrer-Policy"] = "strict-origin"
        # Also without XFrameOptionsMiddleware: a hidden frame could trick users into "Disconnect".
        response.headers.setdefault("X-Frame-Options", settings.X_FRAME_OPTIONS)
        if response.status_code == 429:
            response.headers["Retry-After"] = str(cache.LIMIT_SECONDS)
        return response

    def page(self, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
        context = {"user": self.request.user, "next_url": self.next_url, **context}
        return render(self.request, f"tiktok_business/{template}.html", context, status=status)

    def result(
        self,
        result: Result,
        *,
        detail: str = "",
        api_error: APIError | None = None,
        ended_at: str = "",
    ) -> HttpResponse:
        """A page that shows a result and what to do next."""
        return self.page(
            "connect_result",
            status=result.status,
            outcome=result,
            detail=detail,
            api_error=api_error,
            ended_at=ended_at,
            # Without an account the placeholder cannot be replaced.
            back_url="" if PK_PLACEHOLDER in self.next_url else self.next_url,
        )

    def failure(self, error: TikTokBusinessError) -> HttpResponse:
        """The page for an error; it shows TikTok's code and request id, but not its message."""
        return self.result(
            results.from_error(error), api_error=error if isinstance(error, APIError) else None
        )

    def url(self, name: str, *args: Any) -> str:
        match = self.request.resolver_match
        current_app = match.namespace if match else None
        return reverse(f"tiktok_business:{name}", args=args, current_app=current_app)

    def safe_next_url(self) -> str:
        """``next`` from the form or the query if it leads to this site, otherwise ""."""
        next_url = self.request.POST.get("next") or self.request.GET.get("next") or ""
        # Unprintable characters, such as lone surrogates and controls, are not valid in a URL.
        if len(next_url) > LONGEST_NEXT_URL or not next_url.isprintable():
            return ""
        # Check it with the key as well: "x__pk__:" is not a scheme, but "x1:" is.
        is_safe = all(
            url_has_allowed_host_and_scheme(
                url, allowed_hosts={self.request.get_host()}, require_https=self.request.is_secure()
            )
            for url in (next_url, next_url.replace(PK_PLACEHOLDER, "1"))
        )
        # A redirect to "//" and the like would have an empty Location.
        return next_url if is_safe and urlsplit(next_url).geturl() else ""

    def get_success_url(self, account: BusinessAccount) -> str:
        """Where to go after connecting or disconnecting ``account``."""
        if self.next_url:
            parts = urlsplit(self.next_url)
            return parts._replace(path=parts.path.replace(PK_PLACEHOLDER, str(account.pk))).geturl()
        if configured := conf.CONNECT_REDIRECT_URL:
            try:
                url: str = resolve_url(configured)
                HttpResponseRedirect(url)  # raises for a URL that it does not accept
            except (NoReverseMatch, ValueError, DisallowedRedirect):
                # Too late to fail: the account is already (dis)connected.
                logger.error(  # noqa: TRY400 -- a traceback would not add anything
                    "TIKTOK_BUSINESS['CONNECT_REDIRECT_URL'] is not a URL, a path or the name of a "
                    "URL pattern: %r",
                    configured,
                )
            else:
                return url
        return self.url("account_list")

    def add_message(self, level: int, text: str) -> None:
        """Add a message for the next page, if the project uses the messages framework."""
        messages.add_message(self.request, level, text, fail_silently=True)


class ConnectPermissionMixin(View):
    """The permission to connect accounts."""

    def get_connect_permission(self) -> str | None:
        """The required permission; None to allow every logged-in user."""
        return conf.CONNECT_PERMISSION

    def has_connect_permission(self) -> bool:
        permission = self.get_connect_permission()
        return permission is None or self.request.user.has_perm(permission)
