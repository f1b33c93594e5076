"""What the tests of the admin share: logging in, accounts, and reading its pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import Permission
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount, DailyMetrics, Health
from tests.support.factories import connect, make_account, make_user

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.test import Client

    from django_tiktok_business.simulator import Simulator

LIST = "/admin/tiktok_business/businessaccount/"
EVENTS = "/admin/tiktok_business/connectionevent/"

# What the messages say to do when TikTok did not confirm that a connection has ended.
BY_HAND = (
    "To be sure, its holder can remove the access in the TikTok app, under “Settings and privacy”."
)


def log_in_staff(client: Client, may: str) -> None:
    """Log in a staff user with these permissions on accounts, such as "view change"."""
    user = make_user("staff", is_staff=True)
    codenames = [f"{action}_businessaccount" for action in may.split()]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)


def log_in_root(client: Client) -> None:
    """Log in a superuser."""
    client.force_login(make_user("root", is_staff=True, is_superuser=True))


def page_of(account: BusinessAccount, name: str = "change") -> str:
    return reverse(f"admin:tiktok_business_businessaccount_{name}", args=[account.pk])


def html(response: Any) -> str:
    assert response.status_code == 200, response
    text: str = response.content.decode()
    return text


def words(fragment: str) -> str:
    """A piece of HTML as a reader sees it."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", fragment)).replace("\xa0", " ").split())


def cells(response: Any, column: str) -> list[str]:
    """The text of a column of the list, row by row."""
    found = re.findall(rf'<t[dh] class="field-{column}[^"]*">(.*?)</t[dh]>', html(response))
    return [words(cell) for cell in found]


def field(response: Any, name: str) -> str:
    """The text of a read-only field on the account page."""
    page = html(response)
    shown = re.search(
        rf'class="(?:form-row|flex-container fieldBox) field-{name}[ "].*?'
        r'<div class="readonly">(.*?)</div>\s*</div>',
        page,
        re.DOTALL,
    )
    assert shown is not None, name
    return words(shown[1])


def fact(response: Any, name: str) -> str:
    """The text of a panel on the account page, "" when it is missing."""
    shown = re.search(rf'<(\w+)[^>]* data-fact="{name}"[^>]*>(.*?)</\1>', html(response), re.DOTALL)
    return words(shown[2]) if shown else ""


def buttons(response: Any) -> list[str]:
    """The buttons and links beside the title."""
    tools = re.search(r'<ul class="object-tools">(.*?)</ul>', html(response), re.DOTALL)
    assert tools is not None
    return [words(item) for item in re.findall(r"<li[^>]*>(.*?)</li>", tools[1], re.DOTALL)]


def messages_in(response: Any) -> list[tuple[str, str]]:
    """The messages on a page: their level and text."""
    shown = re.search(r'<ul class="messagelist">(.*?)</ul>', html(response), re.DOTALL)
    items = re.findall(r'<li class="(\w+)">(.*?)</li>', shown[1], re.DOTALL) if shown else []
    return [(level, words(text)) for level, text in items]


def press(client: Client, account: BusinessAccount, button: str, **data: Any) -> Any:
    """Press a button of an account and return the page after the redirect."""
    return client.post(page_of(account, button), data, follow=True)


def select(client: Client, action: str, accounts: Iterable[BusinessAccount], **data: Any) -> Any:
    """Run a bulk action and return the page after the redirect."""
    chosen = [account.pk for account in accounts]
    form = {"action": action, "_selected_action": chosen, **data}
    return client.post(LIST, form, follow=True)


def make_unreadable(account: BusinessAccount) -> None:
    """Replace the tokens with some that no configured key decrypts."""
    columns = "access_token = 'ttb1:00000000:AAAA', refresh_token = 'ttb1:00000000:AAAA'"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {BusinessAccount._meta.db_table} SET {columns} WHERE id = %s", [account.pk]
        )


def stored_ciphertexts() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT access_token, refresh_token FROM {BusinessAccount._meta.db_table}")
        return [text for row in cursor.fetchall() for text in row if text]


def connect_many(simulator: Simulator, number: int) -> list[BusinessAccount]:
    return [connect(simulator, f"shop_{index}") for index in range(number)]


def soon(**distance: float) -> Any:
    """An instant, with time to spare for the test to run."""
    return timezone.now() + timedelta(**distance)


def add_metrics(account: BusinessAccount, days_ago: int, **values: Any) -> None:
    day = datetime.now(UTC).date() - timedelta(days=days_ago)
    DailyMetrics.objects.create(account=account, date=day, **values)


def one_account_per_health() -> dict[Health, BusinessAccount]:
    kinds: dict[Health, dict[str, Any]] = {
        Health.HEALTHY: {},
        Health.EXPIRES_SOON: {"refresh_token_expires_at": soon(days=12)},
        Health.RETRYING: {"consecutive_failures": 2},
        Health.RECONNECT_NEEDED: {"status": "reauthorization_required"},
        Health.REVOKED: {"status": "revoked", "access_token": "", "refresh_token": ""},
        Health.UNDECRYPTABLE: {},
    }
    accounts = {
        kind: make_account(open_id=f"_000{kind}", username=kind, **values)
        for kind, values in kinds.items()
    }
    make_unreadable(accounts[Health.UNDECRYPTABLE])
    return accounts
