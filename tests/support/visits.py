"""Tests of the pages: visitors, their way through TikTok, and a search for leaks."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.contrib.sessions.models import Session
from django.db import DataError, connection
from django.test import Client

from django_tiktok_business.models import BusinessAccount
from tests.support.factories import make_user
from tests.support.leaks import Search

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from django.contrib.auth.models import User

    from django_tiktok_business.simulator import Simulator

LIST = "/tiktok/"
CONNECT = "/tiktok/connect/"
CALLBACK = "/tiktok/callback/"
TOKEN_CALL = "/tt_user/oauth2/token/"
PROFILE_CALL = "/business/get/"
REVOKE_CALL = "/tt_user/oauth2/revoke/"


def log_in(client: Client, username: str = "ada", may: str = "add", **overrides: Any) -> User:
    """Log in a new user with these permissions on accounts, such as "add view"."""
    user = make_user(username, **overrides)
    codenames = [f"{action}_businessaccount" for action in may.split()]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    return user


def twin(client: Client) -> Client:
    """Another client in the same session, which reads MIDDLEWARE afresh, unlike a used one."""
    other = Client()
    other.cookies = client.cookies
    return other


def leave(client: Client, next_url: str = "") -> str:
    """Press "connect" and return TikTok's URL."""
    response = client.post(CONNECT, {"next": next_url} if next_url else {})
    assert response.status_code == 302, response.content
    return response.headers["Location"]


def come_back(simulator: Simulator, url: str, **decision: Any) -> str:
    """Decide on the consent page and return the path and query of the callback."""
    parts = urlsplit(simulator.authorize(url, **decision))
    return f"{parts.path}?{parts.query}"


def visit(client: Client, simulator: Simulator, next_url: str = "", **decision: Any) -> str:
    """Go from the connect button to the redirect back, without following it."""
    return come_back(simulator, leave(client, next_url), **decision)


def value_in(url: str, name: str) -> str:
    (value,) = parse_qs(urlsplit(url).query)[name]
    return value


def text_of(response: Any) -> str:
    """The text of the page as a reader sees it."""
    without_tags = re.sub(r"<[^>]+>", " ", response.content.decode())
    return " ".join(unescape(without_tags).split())


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def failing(*parts: str) -> AbstractContextManager[None]:
    """Let the database refuse statements that contain all these texts."""

    def refuse(execute: Any, sql: str, *arguments: Any) -> Any:
        if all(part in sql for part in parts):
            raise DataError("Refused by the test.")
        return execute(sql, *arguments)

    return connection.execute_wrapper(refuse)


def assert_nothing_holds(secrets: Iterable[str], *texts: str) -> None:
    """Assert that no text and no session contains a secret, in any encoding."""
    stored = [str(session.get_decoded()) for session in Session.objects.all()]
    search = Search(secrets)
    for text in (*texts, *stored):
        assert search.found_in(text) | search.found_in(unescape(text)) == set()


def rendered(response: Any) -> str:
    """All of a response: status line, headers, cookies and body."""
    return f"{response.headers}\n{response.cookies}\n{response.content.decode()}"


def stored_requests(client: Client) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = client.session.get("tiktok_business_states", [])
    return requests


def nothing_happened(simulator: Simulator) -> bool:
    return simulator.count(TOKEN_CALL) == 0 and not BusinessAccount.objects.exists()


def page_of(account: BusinessAccount) -> str:
    return f"/tiktok/{account.pk}/"


def disconnect_url(account: BusinessAccount) -> str:
    return f"/tiktok/{account.pk}/disconnect/"


def damage_access_token(account: BusinessAccount) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tiktok_business_businessaccount SET access_token = 'tbk1.x.y' WHERE id = %s",
            [account.pk],
        )
