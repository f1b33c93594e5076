"""README's "Adapt the pages": its tables are true, its templates work, and one base frames all."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.test import Client, override_settings
from django.urls import include, path
from selenium.webdriver.common.by import By

import django_tiktok_business
from django_tiktok_business import views
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.views.accounts import AccountRow
from django_tiktok_business.views.results import Result
from tests.support.browser import Site
from tests.support.factories import make_account, make_user
from tests.support.newcomer import Document
from tests.support.simulator import override_tiktok
from tests.support.visits import CALLBACK, CONNECT, LIST, log_in, text_of

PACKAGE = Path(django_tiktok_business.__file__).parent
FOLDER = PACKAGE / "templates" / "tiktok_business"
README = Document("README.rst")
TABLE = {
    name: (re.findall(r"\w+", context), re.findall(r"\w+", blocks))
    for name, context, blocks, _ in README.table("Template")
}
# Django and its context processors put these beside ours; `user` is both.
DJANGOS = {
    "True",
    "False",
    "None",
    "csrf_token",
    "request",
    "perms",
    "messages",
    "DEFAULT_MESSAGE_LEVELS",
}
EVERY_PAGE = {"user", "next_url"}
SHOP = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{% block title %}Shop{% endblock %}</title>
<meta name="viewport" content="width=device-width"><style>{{ css }}</style>
{% block head %}{% endblock %}</head>
<body id="shop"><header>My shop</header><main>{% block main %}{% endblock %}</main></body></html>
"""


def template(name: str) -> str:
    start = f"{{# templates/{name} #}}\n"
    (text,) = [text for text in README.blocks("django") if text.startswith(start)]
    return text


def shop_settings(request: HttpRequest) -> HttpResponse:
    css = "".join(README.blocks("css"))
    return render(request, "shop/settings.html", {"css": css})


urlpatterns = [path("", include("tests.urls")), path("shop/", shop_settings)]


@pytest.fixture
def project(tmp_path: Path) -> Any:
    """A project with its own design that has done what README says."""
    for name, text in {
        "base.html": SHOP,
        "tiktok_business/base.html": template("tiktok_business/base.html"),
        "shop/settings.html": '{% extends "base.html" %}{% block main %}'
        f"{template('shop/settings.html')}{{% endblock %}}",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    with override_settings(
        ROOT_URLCONF=__name__, TEMPLATES=[{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    ):
        yield


@pytest.fixture
def account(db: None, client: Client) -> BusinessAccount:
    owner = log_in(client, is_staff=True)
    return make_account(owner=owner, display_name="Harbour Bakery", scopes=["user.info.basic"])


def pages_of(client: Client, account: BusinessAccount) -> dict[str, Any]:
    """A response of every page, by the name of its template."""
    return {
        "account_list.html": client.get(LIST),
        "account.html": client.get(f"{LIST}{account.pk}/"),
        "connect_confirm.html": client.get(CONNECT),
        "connect_result.html": client.get(CALLBACK),
        "disconnect_confirm.html": client.get(f"{LIST}{account.pk}/disconnect/"),
    }


# The tables


def test_table_names_every_template() -> None:
    assert set(TABLE) == {file.name for file in FOLDER.glob("*.html")}


@pytest.mark.parametrize("name", TABLE)
def test_table_names_the_blocks_of_each_template(name: str) -> None:
    source = (FOLDER / name).read_text(encoding="utf-8")
    assert re.findall(r"{% block (\w+) %}", source) == TABLE[name][1]


def test_table_names_the_context_of_each_template(
    client: Client, account: BusinessAccount, project: None
) -> None:
    pages = pages_of(client, account)
    seen: dict[str, set[str]] = {}
    for response in (*pages.values(), client.get("/shop/")):
        for rendered, context in zip(response.templates, response.context, strict=True):
            name = rendered.name.rpartition("/")[2]
            seen.setdefault(name, set()).update(context.flatten())
    for name, (documented, _) in TABLE.items():
        assert set(documented) <= seen[name], name
    for name, response in pages.items():
        own = set(response.context[0].flatten()) - DJANGOS - EVERY_PAGE
        assert own == set(TABLE[name][0]), name
        assert set(response.context[0].flatten()) >= EVERY_PAGE


def test_table_names_what_both_pages_show_of_an_account() -> None:
    names = [name for row in README.table("Attribute of row") for name in row[0].split(", ")]
    assert names == [field.name for field in dataclasses.fields(AccountRow)]


def test_results_and_hooks_are_as_the_tables_say() -> None:
    for field in dataclasses.fields(Result):
        assert f"``{field.name}``" in README.text
    for view, hooks in {
        views.AccountListView: ["get_queryset", "paginate_by", "has_connect_permission"],
        views.AccountView: ["get_queryset", "get_connect_permission"],
        views.DisconnectView: ["get_account", "get_success_url"],
        views.ConnectView: ["get_redirect_uri"],
    }.items():
        assert all(hasattr(view, hook) and f"``{hook}``" in README.text for hook in hooks)


# A project with its own design


def test_one_base_template_frames_every_page(
    client: Client, account: BusinessAccount, project: None
) -> None:
    pages = pages_of(client, account)
    with override_tiktok(CONNECT_PERMISSION=5):
        pages["error"] = client.get(LIST)
    client.force_login(make_user("grace"))
    pages["nobody's list"] = client.get(LIST)
    pages["not allowed"] = client.get(CONNECT)
    for name, response in pages.items():
        page = response.content.decode()
        assert '<body id="shop">' in page, name
        assert page.count("/static/tiktok_business/pages.css") == 1
        assert page.count("<h1") == 1
        assert "Logged in as" not in page
    assert pages["error"].status_code == 503
    assert "<title>Harbour Bakery</title>" in pages["account.html"].content.decode()
    assert "<title>Shop</title>" in pages["account_list.html"].content.decode()


def test_messages_are_inside_the_frame(
    client: Client, account: BusinessAccount, project: None
) -> None:
    BusinessAccount.objects.update(status="revoked")
    page = client.get(f"{LIST}{account.pk}/disconnect/", follow=True)
    assert "Harbour Bakery is disconnected already." in text_of(page)


def test_tags_work_on_a_page_of_the_project(
    client: Client, account: BusinessAccount, project: None
) -> None:
    text = text_of(client.get("/shop/"))
    assert "My shop HB Harbour Bakery Connect your shop" in text
    client.logout()
    assert text_of(client.get("/shop/")).endswith("My shop Connect your shop")


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_tags_and_pages_fit_into_a_design_of_its_own(site: Site, project: None) -> None:
    owner = make_user("ada", is_staff=True, is_superuser=True)
    site.log_in("ada")
    site.open("/shop/")
    site.press("Connect your shop")
    site.press("Approve")
    assert site.path == "/shop/"
    account = BusinessAccount.objects.get(owner=owner)
    picture = site.driver.find_element(By.CSS_SELECTOR, f"img[src='{account.picture_url}']")
    assert (picture.size["width"], picture.size["height"]) == (48, 48)
    site.look("own-shop")
    site.press(account.label)
    site.look("own-account")
    site.open(LIST)
    site.look("own-list")
    assert site.complaints() == []
