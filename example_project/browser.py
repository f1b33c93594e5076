"""A minimal web browser for the tour: pages, forms, cookies, redirects."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import requests

__all__ = ["Browser", "Page", "PageError", "without_query"]

PATIENCE_SECONDS = 30  # for a page to arrive


class PageError(Exception):
    """A page is not the expected one; the message contains no query of a URL."""


@dataclass
class Form:
    action: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)


class Page(HTMLParser):
    """The parts of a page that the tour uses: its heading and its forms."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self.url = response.url
        self.text = response.text
        self.forms: list[Form] = []
        self.heading = ""
        self._in_heading = False
        self._open_form: Form | None = None
        self.feed(response.text)
        self.close()
        self.heading = " ".join(self.heading.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "h1":
            self._in_heading = True
            self.heading = ""  # Django's admin has its name in one as well, above the page's
        elif tag == "form":
            self._open_form = Form(urljoin(self.url, given.get("action") or ""))
            self.forms.append(self._open_form)
        elif tag == "input" and self._open_form is not None:
            is_choice = given.get("type") in ("radio", "checkbox")
            is_button = given.get("type") == "submit"
            if given.get("name") and not is_button and (not is_choice or "checked" in given):
                self._open_form.fields.append((given["name"] or "", given.get("value") or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "h1":
            self._in_heading = False
        elif tag == "form":
            self._open_form = None

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.heading += data

    def form(self, path: str) -> Form:
        """The form that is submitted to this path."""
        for form in self.forms:
            if urlsplit(form.action).path == path:
                return form
        raise PageError(f'The page "{self.heading}" ({without_query(self.url)}) has no form.')


class Browser:
    """Keeps cookies and follows redirects, from one site to the other and back."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy could not reach this machine's own ports

    def get(self, url: str) -> Page:
        return self._page(self._session.get(url, timeout=PATIENCE_SECONDS))

    def submit(self, page: Page, path: str, **filled_in: str) -> Page:
        """Submit the page's form for ``path`` with some of its fields filled in."""
        form = page.form(path)
        fields = [pair for pair in form.fields if pair[0] not in filled_in]
        return self._page(
            self._session.post(
                form.action,
                data=[*fields, *filled_in.items()],
                headers={"Referer": page.url},
                timeout=PATIENCE_SECONDS,
            )
        )

    @staticmethod
    def _page(response: requests.Response) -> Page:
        page = Page(response)
        if response.status_code >= 500:
            raise PageError(
                f"{without_query(response.url)} answered {response.status_code}: {page.heading}"
            )
        return page


def without_query(url: str) -> str:
    """The part of a URL that may be printed: a query may hold an authorization code."""
    return url.partition("?")[0]
