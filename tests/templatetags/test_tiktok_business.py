"""``{% load tiktok_business %}`` on pages of a project."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine, RequestContext, Template
from django.test import Client, RequestFactory, override_settings
from django.urls import include, path

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.presentation import picture
from tests.support.factories import make_account, make_user
from tests.support.simulator import override_tiktok, running_simulator
from tests.support.visits import CONNECT, come_back, log_in, text_of

LOAD = "{% load tiktok_business %}"
LINK = '<a class="button main tiktok-connect" href="/tiktok/connect/">Connect TikTok</a>'


def shop(request: HttpRequest) -> HttpResponse:
    """A page of a project that uses only the template tags."""
    source = LOAD + "{% connect_tiktok label='Connect your shop' next=request.path %}"
    return HttpResponse(Template(source).render(RequestContext(request)))


urlpatterns = [path("", include("tests.urls")), path("shop/", shop)]


def rendered(source: str, context: Context) -> str:
    return Template(LOAD + source).render(context).strip()


def request_of(user: Any) -> HttpRequest:
    request = RequestFactory().get("/shop/")
    request.user = user
    return request


@pytest.fixture
def owner(db: None) -> User:
    return make_user("ada", is_superuser=True, is_staff=True)


# {% connect_tiktok %}


@override_settings(ROOT_URLCONF=__name__)
def test_button_connects_and_returns_to_the_page(db: None) -> None:
    client = Client(enforce_csrf_checks=True)
    log_in(client)
    page = client.get("/shop/")
    assert text_of(page) == "Connect your shop"
    assert '<input type="hidden" name="next" value="/shop/">' in page.content.decode()
    token = client.cookies["csrftoken"].value
    assert client.post(CONNECT, {"next": "/shop/"}).status_code == 403
    with running_simulator() as simulator:
        leaving = client.post(CONNECT, {"next": "/shop/", "csrfmiddlewaretoken": token})
        ended = client.get(come_back(simulator, leaving.headers["Location"]))
    assert ended.headers["Location"] == "/shop/"
    assert BusinessAccount.objects.count() == 1


@override_settings(ROOT_URLCONF=__name__)
def test_anonymous_visitors_get_there_through_the_login(client: Client, owner: User) -> None:
    page = client.get("/shop/").content.decode()
    link = "/tiktok/connect/?next=%2Fshop%2F"
    assert f'href="{link}">Connect your shop</a>' in page
    assert "<form" not in page
    login = client.get(link).headers["Location"]
    response = client.post(login, {"username": "ada", "password": "correct horse"})
    confirm = client.get(response.headers["Location"])
    assert "Continue to TikTok" in text_of(confirm)
    assert '<input type="hidden" name="next" value="/shop/">' in confirm.content.decode()


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize("permission", ["tiktok_business.add_businessaccount", None])
def test_users_who_may_not_connect_get_nothing(
    db: None, client: Client, permission: str | None
) -> None:
    log_in(client, may="view change delete")
    with override_tiktok(CONNECT_PERMISSION=permission):
        assert text_of(client.get("/shop/")) == ("" if permission else "Connect your shop")


def test_label_and_next_have_defaults_and_are_escaped(owner: User) -> None:
    context = RequestContext(request_of(owner), {"text": "<script>"})
    plain = rendered("{% connect_tiktok label=nothing next=nothing %}", context)
    assert '<button class="button main tiktok-connect">Connect TikTok</button>' in plain
    assert 'name="next"' not in plain
    odd = rendered("{% connect_tiktok label=text next=text %}", context)
    assert odd.count("&lt;script&gt;") == 2
    assert "<script" not in odd


def test_context_of_the_page_does_not_change_the_button(owner: User) -> None:
    values = {"about": "A", "next_url": "/elsewhere/", "how": "link", "label": "L"}
    button = rendered("{% connect_tiktok %}", RequestContext(request_of(owner), values))
    assert ">Connect TikTok</button>" in button
    assert "elsewhere" not in button


def test_request_need_not_be_in_the_template(owner: User) -> None:
    engine = Engine(
        libraries={"tiktok_business": "django_tiktok_business.templatetags.tiktok_business"},
        app_dirs=True,
    )
    template = engine.from_string(LOAD + "{{ request }}{% connect_tiktok %}")
    page = template.render(RequestContext(request_of(owner)))
    assert '<form method="post" action="/tiktok/connect/">' in page
    assert 'name="csrfmiddlewaretoken"' in page


@pytest.mark.parametrize(
    "values",
    [{}, {"user": None}, {"request": RequestFactory().get("/")}],
    ids=["nothing", "nobody", "a request"],
)
def test_without_a_user_there_is_a_link_to_the_confirm_page(values: dict[str, Any]) -> None:
    assert rendered("{% connect_tiktok %}", Context(values)) == LINK


def test_without_a_csrf_token_there_is_a_link_for_users_who_may_connect(owner: User) -> None:
    grace = make_user("grace")
    for name, of in (("user", lambda user: user), ("request", request_of)):
        assert rendered("{% connect_tiktok %}", Context({name: of(owner)})) == LINK
        assert rendered("{% connect_tiktok %}", Context({name: of(grace)})) == ""
        assert rendered("{% connect_tiktok %}", Context({name: of(AnonymousUser())})) == LINK


# {% tiktok_avatar %}


def test_avatar_is_the_picture_over_the_initials(db: None) -> None:
    account = make_account(
        display_name="<b>Harbour Bakery", profile_image_url="https://cdn.example/a.jpg"
    )
    shown = rendered("{% tiktok_avatar account %}", Context({"account": account}))
    assert shown == picture(account)
    assert 'aria-hidden="true">BB<img src="https://cdn.example/a.jpg" alt=""' in shown


@pytest.mark.parametrize("values", [{}, {"account": None}, {"account": "<b>"}], ids=str)
def test_avatar_of_no_account_is_nothing(values: dict[str, Any]) -> None:
    assert rendered("{% tiktok_avatar account %}", Context(values)) == ""
