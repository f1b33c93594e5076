"""Send the user to TikTok's authorization page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpResponseRedirect

from django_tiktok_business import scopes
from django_tiktok_business.conf import conf

from . import results
from . import state as state_module
from .base import ConnectPermissionMixin, PageView

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


__all__ = ["ConnectView"]


class ConnectView(ConnectPermissionMixin, LoginRequiredMixin, PageView):
    """Send the user to TikTok's consent page; a GET only asks whether to."""

    def get(self, request: HttpRequest) -> HttpResponse:
        self.next_url = self.safe_next_url()
        if not self.has_connect_permission():
            return self.result(results.NOT_ALLOWED)
        return self.page("connect_confirm", scopes=scopes.describe(self._asked_scopes()))

    def post(self, request: HttpRequest) -> HttpResponse:
        self.next_url = self.safe_next_url()
        if not self.has_connect_permission():
            return self.result(results.NOT_ALLOWED)
        if state_module.is_too_often(request, "start"):
            return self.result(results.TOO_MANY_STARTS)
        redirect_uri = self.get_redirect_uri()
        state = state_module.start(request, next_url=self.next_url, redirect_uri=redirect_uri)
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
