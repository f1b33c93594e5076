"""The list of accounts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from tests.support.factories import make_account, make_user
from tests.support.simulator import override_tiktok
from tests.support.visits import (
    LIST,
    assert_nothing_holds,
    damage_access_token,
    log_in,
    rendered,
    text_of,
)

TOKENS = ("act.test-access-token", "rft.test-refresh-token")


NEEDED_SCOPES = ["user.info.basic", "video.list"]


def test_list_requires_a_login(db: None, client: Client) -> None:
    response = client.get(LIST)
    assert response.status_code == 302
    assert response.headers["Location"] == "/admin/login/?next=/tiktok/"


def test_list_shows_only_the_users_own_accounts(ada: User, client: Client) -> None:
    make_account(open_id="1", display_name="Mine", owner=ada)
    make_account(open_id="2", display_name="Theirs", owner=make_user("grace"))
    make_account(open_id="3", display_name="Nobodys")
    text = text_of(client.get(LIST))
    assert "Your TikTok accounts" in text
    assert "Mine" in text
    assert "Theirs" not in text
    assert "Nobodys" not in text
    assert "connected by" not in text


def test_list_shows_all_accounts_with_the_view_permission(db: None, client: Client) -> None:
    ada = log_in(client, may="view")
    make_account(open_id="1", display_name="Mine", owner=ada)
    make_account(open_id="2", display_name="Theirs", owner=make_user("grace"))
    make_account(open_id="3", display_name="Nobodys")
    text = text_of(client.get(LIST))
    assert "All TikTok accounts" in text
    assert "connected by grace" in text
    assert "owned by nobody" in text
    assert text.count("Reconnect") + text.count("Connect an account") == 0


@pytest.mark.parametrize(
    ("may", "reconnect", "disconnect"),
    [("view", 0, 1), ("view add", 2, 1), ("view add change", 3, 1), ("view delete", 0, 3)],
)
def test_list_offers_what_the_user_may_do(
    db: None, client: Client, may: str, reconnect: int, disconnect: int
) -> None:
    ada = log_in(client, may=may)
    make_account(open_id="1", owner=ada)
    make_account(open_id="2", owner=make_user("grace"))
    make_account(open_id="3")
    make_account(open_id="4", owner=make_user("gone"), status="revoked")
    page = client.get(LIST).content.decode()
    # With the change permission, another user's revoked account can be reconnected.
    assert page.count(">Reconnect<") == reconnect + (may == "view add change")
    assert page.count(">Disconnect<") == disconnect


@pytest.mark.parametrize(("may", "is_invited"), [("add", True), ("", False)])
def test_empty_list_says_what_to_do(db: None, client: Client, may: str, is_invited: bool) -> None:
    log_in(client, may=may)
    text = text_of(client.get(LIST))
    assert "No TikTok account is connected yet." in text
    assert ("Connect an account" in text) is is_invited
    assert ("ask an administrator" in text) is not is_invited


def test_list_needs_the_same_number_of_queries_for_many_accounts(db: None, client: Client) -> None:
    ada = log_in(client, may="view add change delete")
    counts = []
    for number in range(20):
        make_account(open_id=str(number), owner=ada if number % 2 else make_user(f"u{number}"))
        if number in (1, 19):
            client.get(LIST)
            with CaptureQueriesContext(
                connection,
            ) as queries:
                client.get(LIST)
            counts.append(len(queries))
    assert counts[0] == counts[1] <= 6


def test_list_has_pages_with_the_newest_first(ada: User, client: Client) -> None:
    now = timezone.now()
    for number in range(51):
        make_account(
            open_id=f"id-{number:02}",
            owner=ada,
            connected_at=now - timedelta(days=number) if number else None,
        )
    first, second = (text_of(client.get(LIST, {"page": page})) for page in (1, 2))
    assert "id-01" in first
    assert "id-50" in first
    assert "id-00" not in first  # when it was connected is unknown
    assert "Page 1 of 2 Next" in first
    assert "id-00" in second
    assert "Previous Page 2 of 2" in second
    assert "id-50" in text_of(client.get(LIST, {"page": "nonsense"}))


@pytest.mark.parametrize(
    ("changes", "label", "words"),
    [
        ({}, "healthy", "renewed before then"),
        ({"status": "revoked"}, "revoked", ""),
        ({"status": "reauthorization_required"}, "reconnect needed", "Connect the account again."),
        ({"consecutive_failures": 2}, "retrying", "It is tried again."),
        ({"refresh_token_expires_at": 5}, "expires soon", "to prolong it."),
        ({"refresh_token_expires_at": -5}, "reconnect needed", "Connect the account again."),
    ],
)
def test_list_shows_the_health_of_an_account(
    ada: User, client: Client, changes: dict[str, str | int], label: str, words: str
) -> None:
    if "refresh_token_expires_at" in changes:
        ends_at = timezone.now() + timedelta(days=int(changes["refresh_token_expires_at"]))
        make_account(owner=ada, refresh_token_expires_at=ends_at)
    else:
        make_account(owner=ada, **changes)
    text = text_of(client.get(LIST))
    assert label in text
    assert words in text
    assert ("Access expires" in text) is (label != "revoked")


def test_f22_unreadable_account_says_so_in_its_own_row_only(ada: User, client: Client) -> None:
    for number in range(100):
        make_account(open_id=f"id-{number}", owner=ada)
    damage_access_token(BusinessAccount.objects.latest("pk"))
    text = text_of(client.get(LIST))
    assert text.count("cannot decrypt") == 1
    assert text.count("healthy") == 49


def test_f22_list_works_without_any_fitting_key(ada: User, client: Client) -> None:
    make_account(owner=ada)
    with override_tiktok(ENCRYPTION_KEYS=["another-key-that-opens-nothing-at-all-Q8r"]):
        response = client.get(LIST)
    assert response.status_code == 200
    assert "cannot decrypt" in text_of(response)


def test_list_shows_tiktoks_code_and_request_id_but_not_its_message(
    ada: User, client: Client
) -> None:
    make_account(
        owner=ada,
        consecutive_failures=1,
        last_error_at=timezone.now() - timedelta(hours=3),
        last_error_code=50000,
        last_error_message="Call 0900-FRAUD",
        last_error_request_id="20261122<b>",
    )
    text = text_of(client.get(LIST))
    assert "Last failure 3 hours ago TikTok's code 50000 TikTok's request id 20261122<b>" in text
    assert "FRAUD" not in text


def test_list_does_not_call_expired_access_renewed_in_time(ada: User, client: Client) -> None:
    make_account(owner=ada, access_token_expires_at=timezone.now() - timedelta(minutes=3))
    text = text_of(client.get(LIST))
    assert "Access expires 3 minutes ago Consent" in text
    assert "renewed" not in text


def test_list_marks_accounts_of_another_app(ada: User, client: Client) -> None:
    make_account(owner=ada, app_id="7999")
    text = text_of(client.get(LIST))
    assert "It belongs to another TikTok app (7999)" in text
    assert "renewed before then" not in text


def test_list_describes_missing_permissions(ada: User, client: Client) -> None:
    make_account(owner=ada, scopes=["user.info.basic"])
    with override_tiktok(SCOPES=NEEDED_SCOPES):
        text = text_of(client.get(LIST))
    assert "1 permission was not granted See your public videos" in text


def test_list_escapes_what_account_holders_write(ada: User, client: Client) -> None:
    make_account(
        owner=ada,
        display_name="<script>alert(1)</script>",
        username='"><img src=x>',
        profile_url="javascript:alert(1)",
        profile_image_url="https://cdn.example/a.jpg?a='\"><script>",
        is_verified=True,
    )
    page = client.get(LIST).content.decode()
    assert "<script" not in page
    assert "javascript:" not in page
    assert "<img src=x" not in page
    assert "verified" in text_of(client.get(LIST))


def test_list_links_to_the_profile_also_without_a_handle(ada: User, client: Client) -> None:
    make_account(owner=ada, display_name="A", profile_url="https://vm.tiktok.com/abc/")
    page = client.get(LIST).content.decode()
    assert '<a href="https://vm.tiktok.com/abc/" rel="noopener noreferrer"' in page
    assert "Profile on TikTok" in page


def test_f34_list_holds_no_token(ada: User, client: Client) -> None:
    make_account(owner=ada)
    assert_nothing_holds(TOKENS, rendered(client.get(LIST)))


def test_wrong_setting_shows_an_error_page_instead_of_the_list(ada: User, client: Client) -> None:
    make_account(owner=ada)
    with override_tiktok(CONNECT_PERMISSION=5):
        response = client.get(LIST)
    assert response.status_code == 503
    assert "This site is not fully set up" in text_of(response)
