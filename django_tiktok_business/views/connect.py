"""Start connecting an account: the confirm page and the redirect to TikTok."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from django_tiktok_business import scopes
from django_tiktok_business.conf import conf

from . import results, state
from .base import ConnectPermissionMixin, PageView


class ConnectView(ConnectPermissionMixin, LoginRequiredMixin, PageView):
    """Redirect the user to TikTok's consent page; a GET shows a confirm page."""

    def get(self, request: HttpRequest) -> HttpResponse:
        self.next_url = self.safe_next_url()
        if not self.has_connect_permission():
            return self.result(results.NOT_ALLOWED)
        return self.page("connect_confirm", scopes=scopes.describe(self._requested_scopes()))

    def post(self, request: HttpRequest) -> HttpResponse:
        self.next_url = self.safe_next_url()
        if not self.has_connect_permission():
            return self.result(results.NOT_ALLOWED)
        if not state.allow(request, "start"):
            return self.result(results.TOO_MANY_STARTS)
        redirect_uri = self.get_redirect_uri()
        state_value = state.start(request, next_url=self.next_url, redirect_uri=redirect_uri)
        return HttpResponseRedirect(self._authorization_url(state_value, redirect_uri))

    def get_redirect_uri(self) -> str:
        """The URL that TikTok redirects back to, sent again when the code is exchanged.

        An authorization URL from TikTok's portal already contains it.
        """
        return (
            _portal_parameter("redirect_uri")
            or conf.REDIRECT_URI
            or self.request.build_absolute_uri(self.url("callback"))
        )

    @staticmethod
    def _requested_scopes() -> list[str]:
        from_portal = _portal_parameter("scope")
        return from_portal.split(",") if from_portal else conf.SCOPES

    @staticmethod
    def _authorization_url(state_value: str, redirect_uri: str) -> str:
        parts = urlsplit(conf.AUTHORIZATION_URL)
        added = {"state": state_value}
        if conf.DISABLE_AUTO_AUTH:
            added["disable_auto_auth"] = "1"
        if parts.query:
            # Keep the portal's own parameters exactly as issued.
            kept = [
                parameter
                for parameter in parts.query.split("&")
                if parameter.partition("=")[0] not in added
            ]
        else:
            kept = []
            added = {
                "client_key": conf.APP_ID,
                "scope": ",".join(conf.SCOPES),
                "response_type": "code",
                "redirect_uri": redirect_uri,
                **added,
            }
        return parts._replace(query="&".join([*kept, urlencode(added)])).geturl()


def _portal_parameter(name: str) -> str:
    """A parameter in AUTHORIZATION_URL; "" when it is the bare URL, without parameters."""
    return parse_qs(urlsplit(conf.AUTHORIZATION_URL).query).get(name, [""])[0]
