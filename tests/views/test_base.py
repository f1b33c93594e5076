"""What all pages share: structure, headers, `next` and where they redirect to."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import Client, override_settings
from django.utils import timezone, translation

import django_tiktok_business
from django_tiktok_business import views
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import make_account
from tests.support.simulator import override_tiktok
from tests.support.visits import (
    CALLBACK,
    CONNECT,
    LIST,
    disconnect_url,
    log_in,
    page_of,
    rendered,
    stored_requests,
    text_of,
    visit,
)

PACKAGE = Path(django_tiktok_business.__file__).parent


TEMPLATES = sorted((PACKAGE / "templates" / "tiktok_business").glob("*.html"))


STYLE_SHEET = PACKAGE / "static" / "tiktok_business" / "pages.css"
FLOW = {"html", "body", "main", "article", "section", "header", "nav", "ul", "dl", "p", "div"}
CANNOT_CLOSE = {"meta", "link", "input", "img", "br"}


class Outline(HTMLParser):
    """The structure of a page; also asserts that elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.labelled_by: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [str(attributes["id"])] if "id" in attributes else []
        self.labelled_by += str(attributes.get("aria-labelledby", "")).split()
        parent = self.open[-1] if self.open else ""
        if tag in ("dt", "dd"):
            assert self.open[-2:] == ["dl", "div"]
        assert tag != "li" or parent in ("ul", "ol")
        assert parent not in ("ul", "ol") or tag == "li"
        assert tag not in FLOW or "p" not in self.open
        assert tag != "img" or "alt" in attributes
        assert tag not in ("nav", "article") or any(
            name.startswith("aria-label") for name in attributes
        )
        if tag in ("a", "button"):
            assert not {"a", "button"} & set(self.open)
        if tag in ("a", "button", "h1", "h2", "h3", "dt", "dd"):
            self.texts.setdefault(tag, []).append("")
        if tag not in CANNOT_CLOSE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.texts.keys() & set(self.open):
            self.texts[tag][-1] += data.strip()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_template_has_no_script_inline_style_or_external_url(template: Path) -> None:
    source = template.read_text(encoding="utf-8")
    assert not re.search(r"<script|<style|\sstyle=|\son[a-z]+=|https?://|javascript:", source)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_word_of_a_template_is_translatable(template: Path) -> None:
    source = template.read_text(encoding="utf-8")
    source = re.sub(r"{% blocktranslate.*?{% endblocktranslate %}", "", source, flags=re.DOTALL)
    source = re.sub(r"{%.*?%}|{{.*?}}|<[^>]*>", " ", source)
    assert re.findall(r"\w{2,}", source) == []


def test_style_sheet_is_self_contained_light_and_dark() -> None:
    source = STYLE_SHEET.read_text(encoding="utf-8")
    assert "url(" not in source
    assert "@import" not in source
    assert "prefers-color-scheme: dark" in source


def test_pages_are_complete_and_readable_on_a_phone(ada: User, client: Client) -> None:
    account = make_account(owner=ada)
    for url in (LIST, CONNECT, CALLBACK, disconnect_url(account)):
        page = client.get(url).content.decode()
        assert page.startswith("<!DOCTYPE html>")
        assert page.rstrip().endswith("</html>")
        assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
        assert '<meta name="referrer" content="strict-origin">' in page
        assert "/static/tiktok_business/pages.css" in page
        assert page.count("<h1>") == 1


def test_pages_follow_the_language(ada: User, client: Client) -> None:
    with override_settings(LANGUAGE_CODE="ar"), translation.override("ar"):
        page = client.get(LIST).content.decode()
    assert '<html lang="ar" dir="rtl">' in page


def test_pages_are_made_of_headings_landmarks_lists_and_buttons(ada: User, client: Client) -> None:
    empty = client.get(LIST)
    account = make_account(
        owner=ada,
        display_name="Harbour",
        username="harbour",
        bio="A\nB",
        profile_image_url="https://cdn.example/a.jpg",
        scopes=["user.info.basic"],
        last_error_at=timezone.now(),
        last_error_code=1,
        last_error_request_id="2026",
    )
    for number in range(50):
        make_account(owner=ada, open_id=f"more-{number}")
    urls = [LIST, page_of(account), CONNECT, CALLBACK, f"{page_of(account)}disconnect/"]
    for response in (empty, *map(client.get, urls)):
        outline = Outline(response.content.decode())
        assert [outline.tags.count(tag) for tag in ("h1", "main", "header")] == [1, 1, 1]
        levels = [int(tag[1]) for tag in outline.tags if tag in ("h1", "h2", "h3")]
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert len(outline.ids) == len(set(outline.ids))
        assert set(outline.labelled_by) <= set(outline.ids)
        assert all(all(texts) for texts in outline.texts.values())


@override_settings(LANGUAGE_CODE="de")
def test_pages_are_shown_in_another_language(ada: User, client: Client) -> None:
    account = make_account(owner=ada, followers_count=1_532)
    page = client.get(page_of(account)).content.decode()
    assert '<html lang="de">' in page
    assert "1.532" in page


def test_pages_are_not_cached_and_leak_no_url(client: Client, ada: User) -> None:
    for response in (client.get(CONNECT), client.post(CONNECT)):
        assert "no-store" in response.headers["Cache-Control"]
        assert response.headers["Referrer-Policy"] == "strict-origin"


@pytest.mark.parametrize(
    "unsafe",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "javascript:alert(1)",
        "https:///evil.example",
        "http:evil.example",
        "///evil.example",
        " //evil.example",
        "https://testserver@evil.example/",
        "/\t/evil.example/",
        "\x01//evil.example/",
        "evil__pk__:alert(1)",  # with the key in it this is a scheme
        "/evil\x00/",
        "/evil/" + "a" * 1000,
        "/evil/" + "\N{OWL}" * 1000,  # twelve characters each in a redirect
    ],
)
def test_f46_unsafe_next_is_ignored(
    client: Client, ada: User, simulator: Simulator, unsafe: str
) -> None:
    assert "evil" not in rendered(client.get(CONNECT, {"next": unsafe}))
    response = client.get(visit(client, simulator, unsafe))
    assert response.headers["Location"] == LIST


def test_f46_unprintable_or_too_long_next_is_ignored(client: Client, ada: User) -> None:
    response = client.get(
        f"{CONNECT}?next=/%2B2AA-/", headers={"content-type": "text/html; charset=utf-7"}
    )
    assert response.status_code == 200
    assert 'name="next"' not in response.content.decode()


def test_f46_next_on_this_host_needs_https_if_the_request_uses_it(
    client: Client, ada: User
) -> None:
    for secure, is_kept in ((False, True), (True, False)):
        response = client.get(CONNECT, {"next": "http://testserver/x/"}, secure=secure)
        assert ("http://testserver/x/" in response.content.decode()) is is_kept


def test_next_is_kept_from_the_confirm_page_to_the_final_redirect(
    client: Client, ada: User, simulator: Simulator
) -> None:
    page = client.get(CONNECT, {"next": "/settings/?tab=<b>"}).content.decode()
    assert '<input type="hidden" name="next" value="/settings/?tab=&lt;b&gt;">' in page
    response = client.get(visit(client, simulator, "/settings/?tab=<b>"))
    assert response.headers["Location"] == "/settings/?tab=%3Cb%3E"


def test_pk_in_next_becomes_the_account(client: Client, ada: User, simulator: Simulator) -> None:
    response = client.get(visit(client, simulator, "/a/__pk__/change/?of=__pk__#__pk__"))
    account = BusinessAccount.objects.get()
    assert response.headers["Location"] == f"/a/{account.pk}/change/?of=__pk__#__pk__"


@pytest.mark.parametrize(
    ("configured", "location"),
    [
        ("/done/", "/done/"),
        ("tiktok_business:connect", CONNECT),
        ("https://other.example/done/", "https://other.example/done/"),
    ],
)
def test_connect_redirect_url_is_the_default_destination(
    client: Client, ada: User, simulator: Simulator, configured: str, location: str
) -> None:
    with override_tiktok(CONNECT_REDIRECT_URL=configured):
        assert client.get(visit(client, simulator)).headers["Location"] == location
        assert client.get(visit(client, simulator, "/own/")).headers["Location"] == "/own/"


def test_unresolvable_connect_redirect_url_ends_on_the_list_and_is_logged(
    client: Client, ada: User, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    with override_tiktok(CONNECT_REDIRECT_URL="nowhere"):
        assert client.get(visit(client, simulator)).headers["Location"] == LIST
    assert (
        "CONNECT_REDIRECT_URL'] is not a URL, a path or the name of a URL pattern: 'nowhere'"
        in (caplog.text)
    )


@pytest.mark.parametrize("method", ["get", "post"])
def test_wrong_setting_shows_a_page_that_names_it_only_to_staff(
    db: None, client: Client, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    for username, is_staff in (("ada", False), ("boss", True)):
        log_in(client, username, is_staff=is_staff)
        with override_tiktok(AUTHORIZATION_URL="nonsense"):
            response = getattr(client, method)(CONNECT)
        assert response.status_code == 503
        text = text_of(response)
        assert "This site is not fully set up" in text
        assert ("AUTHORIZATION_URL" in text) is is_staff
        assert "nonsense" not in text
    assert stored_requests(client) == []
    assert caplog.text.count("TIKTOK_BUSINESS['AUTHORIZATION_URL'] must be") == 2


def test_request_without_a_resolver_match_finds_the_urls() -> None:
    view = views.CallbackView()
    view.request = HttpRequest()
    assert view.url("account_list") == LIST
