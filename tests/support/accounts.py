"""Accounts in tests: a consent, the stored row and its tokens, and the signals sent."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.conf import settings

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator


def consent(simulator: Simulator, **choices: Any) -> str:
    """An authorization code, as the account holder's approval gives it."""
    query = {
        "client_key": settings.TIKTOK_BUSINESS["APP_ID"],
        "scope": "user.info.basic,user.info.username,user.info.stats,video.list",
        "response_type": "code",
        "redirect_uri": settings.TIKTOK_BUSINESS["REDIRECT_URI"],
        "disable_auto_auth": "1",
    }
    url = f"https://www.tiktok.com/v2/auth/authorize?{urlencode(query)}"
    location = simulator.authorize(url, **choices)
    return parse_qs(urlsplit(location).query)["code"][0]


def connect_account(user: Any, code: str) -> BusinessAccount:
    return services.connect_account(
        user, code=code, redirect_uri=settings.TIKTOK_BUSINESS["REDIRECT_URI"]
    )


def stored(account: BusinessAccount) -> BusinessAccount:
    return BusinessAccount.objects.get(pk=account.pk)


def values(account: BusinessAccount) -> dict[str, Any]:
    """The columns of the row as they are in the database, tokens encrypted."""
    return dict(BusinessAccount.objects.values().get(pk=account.pk))


def pair(account: BusinessAccount) -> tuple[str, str]:
    return account.access_token, account.refresh_token


class Listener:
    """Records what a signal is sent with."""

    def __init__(self, signal: Any) -> None:
        self.signal = signal
        self.heard: list[dict[str, Any]] = []

    def __enter__(self) -> list[dict[str, Any]]:
        self.signal.connect(self.listen)
        return self.heard

    def __exit__(self, *exc_info: object) -> None:
        self.signal.disconnect(self.listen)

    def listen(self, sender: Any, signal: Any, **arguments: Any) -> None:
        assert sender is BusinessAccount
        self.heard.append(arguments)
