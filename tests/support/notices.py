"""What the tests of notices share: mail servers, rejected accounts and the mails that were sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from smtplib import SMTPServerDisconnected
from typing import Any

import django
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.test import override_settings
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.exceptions import ReauthorizationRequired
from django_tiktok_business.models import BusinessAccount, Notice
from django_tiktok_business.simulator import Simulator
from tests.support.factories import make_account
from tests.support.simulator_calls import REDIRECT_URI
from tests.support.visits import come_back, value_in

NOTICES = "tiktok_business_notice"
OPS = "ops@example.com"
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"


def mailing_with(backend: str, **options: Any) -> override_settings:
    """Make this the project's default mail backend."""
    mailers = {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
    older = {
        f"EMAIL_{name.upper()}": value for name, value in {"backend": backend, **options}.items()
    }
    return override_settings(**(mailers if django.VERSION >= (6, 1) else older))


_at_each_mail: list[Callable[[], object]] = []


class WatchedBackend(BaseEmailBackend):
    """Puts mails in the outbox, after calling the functions given to `at_each_mail`."""

    def send_messages(self, email_messages: Any) -> int:
        for message in email_messages:
            for act in _at_each_mail:
                act()
            mail.outbox.append(message)
        return len(email_messages)


@contextmanager
def at_each_mail(act: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` whenever a mail is sent inside the block."""
    _at_each_mail.append(act)
    try:
        with mailing_with(f"{__name__}.WatchedBackend"):
            yield
    finally:
        _at_each_mail.remove(act)


def broken_mail_server() -> AbstractContextManager[None]:
    def refuse() -> None:
        raise SMTPServerDisconnected("ada@example.com was refused")

    return at_each_mail(refuse)


def reject(account: BusinessAccount, simulator: Simulator) -> None:
    """Let the account holder remove the app in TikTok, and the site find out."""
    simulator.revoke_grant(account.open_id)
    with pytest.raises(ReauthorizationRequired):
        services.refresh_account(BusinessAccount.objects.get(pk=account.pk))


def connect_again(user: User, simulator: Simulator) -> BusinessAccount:
    url = (
        "https://www.tiktok.com/v2/auth/authorize?client_key=7000000000000000001"
        f"&scope=user.info.basic&response_type=code&redirect_uri={REDIRECT_URI}&state=x"
    )
    code = value_in(come_back(simulator, url), "code")
    return services.connect_account(user, code=code, redirect_uri=REDIRECT_URI)


def soon(days: float = 20) -> datetime:
    return timezone.now() + timedelta(days=days)


def make_rejected(**overrides: Any) -> BusinessAccount:
    values = {
        "status": BusinessAccount.Status.REAUTHORIZATION_REQUIRED,
        "last_error_at": timezone.now(),
        "last_error_code": 40107,
        "last_error_message": "The refresh token is invalid.",
        "last_error_request_id": "20261122-REQUEST",
        **overrides,
    }
    return make_account(**values)


def run() -> None:
    """A run of ``refresh_tokens`` or of a queue that finds no token due."""
    services.refresh_due_accounts()


def an_hour_passes() -> None:
    for notice in Notice.objects.all():
        notice.claimed_until -= timedelta(minutes=61)
        notice.save()


def subjects() -> list[str]:
    return [str(message.subject) for message in mail.outbox]


def the_mail() -> tuple[Any, str, str]:
    """The one mail that was sent: message, text and HTML."""
    message: Any = mail.outbox[0]
    assert len(mail.outbox) == 1
    ((html, kind),) = message.alternatives
    assert kind == "text/html"
    return message, message.body, html


@contextmanager
def listening() -> Iterator[list[tuple[BusinessAccount, datetime]]]:
    heard: list[tuple[BusinessAccount, datetime]] = []

    def listen(account: BusinessAccount, ends_at: datetime, **kwargs: object) -> None:
        heard.append((account, ends_at))

    signals.consent_ends_soon.connect(listen)
    try:
        yield heard
    finally:
        signals.consent_ends_soon.disconnect(listen)
