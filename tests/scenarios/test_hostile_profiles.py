"""What account holders write about themselves is text on every page, never markup."""

from __future__ import annotations

import socket
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.test import Client, override_settings
from selenium.webdriver.support.ui import WebDriverWait

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from tests.support import servers
from tests.support.browser import Site
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import running_simulator
from tests.support.visits import LIST, log_in

ADMIN = "/admin/tiktok_business/businessaccount/"
TEXTS = {
    "script": "<script>window.hit = 1</script>",
    "handler": "\"'><img src=x onerror='window.hit = 1'>",
    "template": "{{ account.access_token }}{% debug %}${7*7}",
    "comment": "<!--\x00]]>",
    "closed title": "</title></textarea><svg onload=window.hit=1>",
}
URLS = {
    "javascript": "javascript:window.hit=1",
    "odd javascript": "\x01jaVaScript\t:window.hit=1",
    "data": "data:text/html,<script>window.hit=1</script>",
    "data picture": "data:image/svg+xml,<svg onload=window.hit=1>",
    "plain http": "http://www.tiktok.com/@x",
    "file": "file:///etc/passwd",
    "network path": "//evil.example/x",
    "metadata": "http://169.254.169.254/latest/meta-data/",
}
# They reverse the text beside a name, or make two names look alike.
OVERRIDE, ISOLATE, ZERO_WIDTH, MARK = "\u202e", "\u2067", "\u200b\u2060\ufeff", "\u200f\u061c"
JOINERS = "\u200c\u200d"


class Page(HTMLParser):
    """The elements and texts that a browser makes of a page."""

    def __init__(self, response: Any) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        assert response.status_code == 200
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def addresses(self) -> set[str]:
        """Everything the page links to, loads, or submits forms to."""
        return {
            value
            for _, attributes in self.elements
            for name, value in attributes.items()
            if name in ("href", "src", "action", "formaction", "data")
        }

    def shape(self) -> list[tuple[str, list[str]]]:
        """Its elements and the names of their attributes."""
        return [(tag, sorted(attributes)) for tag, attributes in self.elements]


@pytest.fixture
def ada(db: None, client: Client) -> User:
    return log_in(client, is_staff=True, is_superuser=True)


def pages_of(client: Client, account: BusinessAccount) -> dict[str, Page]:
    assert account.owner_id is not None
    LogEntry.objects.log_actions(account.owner_id, [account], CHANGE, single_object=True)
    urls = {
        "list": LIST,
        "account": f"{LIST}{account.pk}/",
        "disconnect": f"{LIST}{account.pk}/disconnect/",
        "admin's start": "/admin/",
        "admin's list": ADMIN,
        **{
            f"admin's {name}": f"{ADMIN}{account.pk}/{name}/"
            for name in ("change", "delete", "history", "disconnect")
        },
    }
    return {name: Page(client.get(url)) for name, url in urls.items()}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_is_text_on_every_page(ada: User, client: Client, text: str) -> None:
    harmless = make_account(owner=ada, display_name="A", username="B", bio="C")
    expected = {name: page.shape() for name, page in pages_of(client, harmless).items()}
    LogEntry.objects.all().delete()
    rows = BusinessAccount.objects.filter(pk=harmless.pk)
    stored = text.replace("\0", "")  # PostgreSQL stores no NUL
    rows.update(display_name=stored, username=stored, bio=stored)
    pages = pages_of(client, rows.get())
    assert {name: page.shape() for name, page in pages.items()} == expected
    theirs = ("admin's list", "admin's change", "admin's delete")
    for name in ("list", "account", "disconnect", *theirs):
        assert any(stored in shown for shown in pages[name].texts), name


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_address_that_is_not_https_is_on_no_page(ada: User, client: Client, url: str) -> None:
    account = make_account(owner=ada, profile_url=url, profile_image_url=url, bio=url)
    for name, page in pages_of(client, account).items():
        schemes = {address.partition(":")[0] for address in page.addresses() if ":" in address}
        assert schemes <= {"https"}, name
        assert url not in page.addresses(), name


@pytest.mark.parametrize("signs", [OVERRIDE, ISOLATE, ZERO_WIDTH, MARK])
def test_invisible_signs_of_a_name_are_left_out(ada: User, client: Client, signs: str) -> None:
    name = f"Bank{signs}ing"
    account = make_account(owner=ada, display_name=name, username=f"b{signs}ank")
    assert (account.label, account.handle) == ("Banking", "@bank")
    for where, page in pages_of(client, account).items():
        # The admin's page also shows, in a block of its own, what TikTok says verbatim.
        texts = [text for text in page.texts if where != "admin's change" or text != name]
        assert not set(signs) & set("".join(texts)), where


def test_joiners_stay_in_a_name() -> None:
    name = f"می{JOINERS[0]}خواهم 👩{JOINERS[1]}💻"
    assert BusinessAccount(display_name=name, open_id="x").label == name


def test_name_is_one_line() -> None:
    account = BusinessAccount(display_name="Bank\r\n\u2028of\tAda\x1b[2J", open_id="x")
    assert account.label == "Bank of Ada[2J"


def test_f34_no_address_of_a_profile_is_fetched_by_the_server(ada: User, client: Client) -> None:
    with running_simulator() as simulator, servers.serving(servers.reset) as elsewhere:
        address = elsewhere.base_url.replace("http://", "https://")
        simulator.set_profile("harbour_bakery", profile_image=address, profile_deep_link=address)
        account = connect(simulator, owner=ada)
        services.sync_profile(account)
        pages = pages_of(client, account)
        assert elsewhere.connections == 0
        parts = urlsplit(address)
        with socket.create_connection((parts.hostname, parts.port)) as visitor:
            visitor.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionError):
                visitor.recv(1)
    assert elsewhere.connections == 1, "or nobody would have noticed"
    # It is shown as a picture only, for the browser to judge; links lead to TikTok only.
    assert [address in page.addresses() for page in pages.values()].count(True) >= 3
    assert ("a", address) not in {
        (tag, attributes.get("href"))
        for page in pages.values()
        for tag, attributes in page.elements
    }


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_hostile_profile_meets_the_strictest_policy(site: Site) -> None:
    owner = make_user("ada", is_staff=True, is_superuser=True)
    text = "".join(TEXTS.values()).replace("\0", "")
    account = make_account(
        owner=owner,
        display_name=text,
        username=text,
        bio=text,
        profile_url=URLS["javascript"],
        profile_image_url=URLS["data picture"],
    )
    policy = {"default-src": ["'self'"], "img-src": ["'self'", "https://*.tiktokcdn.com"]}
    with override_settings(SECURE_CSP=policy):
        site.log_in("ada")
        paths = [LIST, f"{LIST}connect/", f"{LIST}callback/"]
        paths += [f"{LIST}{account.pk}/", f"{LIST}{account.pk}/disconnect/"]
        paths += [ADMIN, f"{ADMIN}{account.pk}/change/", f"{ADMIN}{account.pk}/history/"]
        paths += [f"{ADMIN}{account.pk}/delete/", f"{ADMIN}{account.pk}/disconnect/"]
        for path in paths:
            site.open(path)
            assert "accounts" in site.text
            assert site.driver.execute_script("return window.hit") is None, path
            answers = [entry for entry in site.complaints() if " 400 " not in entry["message"]]
            assert answers == [], path
        site.driver.execute_script(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"hit = 1\">')"
        )
        WebDriverWait(site.driver, 15).until(
            lambda _: any("Content Security Policy" in str(entry) for entry in site.complaints())
        )
        assert site.driver.execute_script("return window.hit") is None
