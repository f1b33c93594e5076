"""The confirm page and the redirect to TikTok."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import include, path, reverse_lazy

from django_tiktok_business import views
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.simulator import override_tiktok, running_simulator
from tests.support.visits import (
    CONNECT,
    come_back,
    leave,
    log_in,
    rendered,
    stored_requests,
    text_of,
    value_in,
    visit,
)

PORTAL_URL = (
    "https://www.tiktok.com/v2/auth/authorize?client_key=7000000000000000001"
    "&scope=user.info.basic%2Cvideo.publish&response_type=code"
    "&redirect_uri=https%3a%2F%2Fportal.example%2Fback%2F"
)


class OwnConnectView(views.ConnectView):
    def get_connect_permission(self) -> None:
        return None

    def get_redirect_uri(self) -> str:
        return "https://own.example/back/"


class OwnCallbackView(views.CallbackView):
    def has_connect_permission(self) -> bool:
        return True

    def get_success_url(self, account: BusinessAccount) -> str:
        return reverse_lazy("tiktok_business:account_list", query={"new": account.pk})  # type: ignore[return-value]


_own_patterns = [
    path("", views.AccountListView.as_view(), name="account_list"),
    path("connect/", OwnConnectView.as_view(), name="connect"),
    path("back/", OwnCallbackView.as_view(), name="callback"),
    path("<int:pk>/disconnect/", views.DisconnectView.as_view(), name="disconnect"),
]
urlpatterns = [path("own/", include((_own_patterns, "tiktok_business")))]


def test_f41_get_does_not_start_the_flow(client: Client, ada: User) -> None:
    response = client.get(CONNECT)
    assert response.status_code == 200
    assert stored_requests(client) == []
    assert "tiktok.com" not in rendered(response)


def test_f41_head_does_not_start_the_flow(client: Client, ada: User) -> None:
    assert client.head(CONNECT).status_code == 200
    assert stored_requests(client) == []


def test_f41_post_without_the_csrf_token_is_refused(ada: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    assert client.post(CONNECT).status_code == 403
    assert stored_requests(client) == []


def test_f41_post_with_the_token_of_the_page_starts(ada: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    client.get(CONNECT)
    token = client.cookies["csrftoken"].value
    assert client.post(CONNECT, {"csrfmiddlewaretoken": token}).status_code == 302
    assert len(stored_requests(client)) == 1


@pytest.mark.parametrize("method", ["get", "post"])
def test_anonymous_visitor_is_sent_to_log_in(db: None, client: Client, method: str) -> None:
    response = getattr(client, method)(f"{CONNECT}?next=/settings/")
    assert response.status_code == 302
    location = "/admin/login/?next=/tiktok/connect/%3Fnext%3D/settings/"
    assert response.headers["Location"] == location
    assert stored_requests(client) == []


@pytest.mark.parametrize("method", ["get", "post"])
def test_user_without_the_permission_gets_an_explanation(
    db: None, client: Client, method: str
) -> None:
    log_in(client, may="view change delete")
    response = getattr(client, method)(CONNECT)
    assert response.status_code == 403
    assert "You may not connect TikTok accounts" in text_of(response)
    assert "<form" not in response.content.decode()
    assert stored_requests(client) == []


def test_no_permission_is_needed_when_the_setting_says_so(db: None, client: Client) -> None:
    log_in(client, may="")
    with override_tiktok(CONNECT_PERMISSION=None):
        assert client.get(CONNECT).status_code == 200
        assert client.post(CONNECT).status_code == 302


def test_confirm_page_shows_the_owner_and_the_scopes_in_words(client: Client, ada: User) -> None:
    with override_tiktok(SCOPES=["user.info.basic", "video.publish", "new.scope"]):
        text = text_of(client.get(CONNECT))
    assert "will belong to you, ada ." in text
    assert "See your display name and profile picture" in text
    assert "Publish videos and photos for you" in text
    assert "new.scope" in text


def test_confirm_page_shows_the_scopes_of_the_portals_url(client: Client, ada: User) -> None:
    with override_tiktok(AUTHORIZATION_URL=PORTAL_URL):
        text = text_of(client.get(CONNECT))
    assert "Publish videos and photos for you" in text
    assert "See your public videos" not in text


def test_start_requests_the_configured_scopes(client: Client, ada: User) -> None:
    with override_tiktok(SCOPES=["user.info.basic", "video.list"]):
        url = leave(client)
    parts = urlsplit(url)
    assert parts._replace(query="").geturl() == "https://www.tiktok.com/v2/auth/authorize"
    asked = parse_qsl(parts.query, strict_parsing=True)
    assert asked[:-1] == [
        ("client_key", "7000000000000000001"),
        ("scope", "user.info.basic,video.list"),
        ("response_type", "code"),
        ("redirect_uri", "https://testserver.example/tiktok/callback/"),
    ]
    assert asked[-1][0] == "state"


def test_f49_consent_page_can_be_asked_for_each_time(client: Client, ada: User) -> None:
    assert "disable_auto_auth" not in leave(client)
    with override_tiktok(DISABLE_AUTO_AUTH=True):
        assert value_in(leave(client), "disable_auto_auth") == "1"


def test_url_of_the_portal_is_kept_unchanged(client: Client, ada: User) -> None:
    with override_tiktok(AUTHORIZATION_URL=PORTAL_URL):
        url = leave(client)
    assert url == f"{PORTAL_URL}&state={value_in(url, 'state')}"


def test_state_and_option_in_the_url_of_the_portal_are_replaced(client: Client, ada: User) -> None:
    given = PORTAL_URL.replace("?", "?state=abc&disable_auto_auth=0&")
    with override_tiktok(AUTHORIZATION_URL=given, DISABLE_AUTO_AUTH=True):
        url = leave(client)
    assert url == f"{PORTAL_URL}&state={value_in(url, 'state')}&disable_auto_auth=1"
    with override_tiktok(AUTHORIZATION_URL=given):
        assert value_in(leave(client), "disable_auto_auth") == "0"


def test_f47_redirect_uri_of_the_portals_url_is_the_one_exchanged(
    client: Client, ada: User
) -> None:
    uris = ["https://testserver.example/tiktok/callback/", "https://portal.example/back/"]
    with (
        running_simulator(redirect_uris=uris) as simulator,
        override_tiktok(AUTHORIZATION_URL=PORTAL_URL),
    ):
        back = come_back(simulator, leave(client))
        response = client.get(back.replace("/back/", "/tiktok/callback/"))
    assert response.status_code == 302
    assert BusinessAccount.objects.count() == 1


def test_f47_setting_wins_over_the_host_header(client: Client, ada: User) -> None:
    response = client.post(CONNECT, headers={"host": "testserver.example"})
    expected = "https://testserver.example/tiktok/callback/"
    assert value_in(response.headers["Location"], "redirect_uri") == expected


@pytest.mark.parametrize("secure", [True, False])
def test_f47_without_the_setting_the_redirect_uri_comes_from_the_request(
    client: Client, ada: User, secure: bool
) -> None:
    with override_tiktok(REDIRECT_URI=None):
        response = client.post(CONNECT, secure=secure, headers={"host": "testserver.example"})
    scheme = "https" if secure else "http"
    expected = f"{scheme}://testserver.example/tiktok/callback/"
    assert value_in(response.headers["Location"], "redirect_uri") == expected


def test_f47_redirect_uri_of_the_start_is_exchanged_even_if_the_setting_has_changed(
    client: Client, ada: User, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    with override_tiktok(REDIRECT_URI="https://testserver.example/moved/"):
        assert client.get(back).status_code == 302
    assert BusinessAccount.objects.count() == 1


@pytest.mark.urls("tests.views.test_connect")
def test_subclasses_can_override_the_hooks(db: None, client: Client) -> None:
    log_in(client, may="")
    uris = ["https://own.example/back/"]
    with running_simulator(redirect_uris=uris) as simulator:
        url = client.post("/own/connect/").headers["Location"]
        assert value_in(url, "redirect_uri") == uris[0]
        response = client.get(f"/own{come_back(simulator, url)}")
    account = BusinessAccount.objects.get()
    assert response.headers["Location"] == f"/own/?new={account.pk}"
