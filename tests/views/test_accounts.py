"""The page of one account: who sees it, what it shows and what it offers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business import views
from django_tiktok_business.models import BusinessAccount, Health
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.views.accounts import AccountRow
from tests.support.administrators import make_unreadable
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import override_tiktok
from tests.support.visits import (
    LIST,
    assert_nothing_holds,
    log_in,
    page_of,
    rendered,
    text_of,
    visit,
)

SCOPES = ["user.info.basic", "video.list"]


def test_owner_sees_the_account(ada: User, client: Client) -> None:
    account = make_account(
        owner=ada, display_name="Harbour Bakery", username="harbour", is_verified=True
    )
    response = client.get(page_of(account))
    assert response.status_code == 200
    text = text_of(response)
    assert "Your TikTok accounts HB Harbour Bakery verified @harbour Profile on TikTok" in text
    assert "connected by" not in text
    assert 'href="https://www.tiktok.com/@harbour"' in response.content.decode()


def test_anonymous_visitor_is_asked_to_log_in(db: None, client: Client) -> None:
    response = client.get(page_of(account := make_account()))
    assert response.status_code == 302
    assert response.headers["Location"] == f"/admin/login/?next=/tiktok/{account.pk}/"


@pytest.mark.parametrize("may", ["", "add change delete"])
def test_accounts_of_others_and_of_nobody_are_not_found(db: None, client: Client, may: str) -> None:
    log_in(client, may=may)
    others, unowned = make_account(owner=make_user("grace")), make_account(open_id="2")
    for url in (page_of(others), page_of(unowned), "/tiktok/987654/", f"/tiktok/{10**30}/"):
        assert client.get(url).status_code == 404


def test_view_permission_shows_all_accounts(db: None, client: Client) -> None:
    log_in(client, may="view")
    others, unowned = make_account(owner=make_user("grace")), make_account(open_id="2")
    assert "connected by grace" in text_of(client.get(page_of(others)))
    assert "owned by nobody" in text_of(client.get(page_of(unowned)))


def test_list_links_to_the_page_of_each_account(ada: User, client: Client) -> None:
    account = make_account(owner=ada, display_name="Harbour")
    link = f'<a href="/tiktok/{account.pk}/"><bdi>Harbour</bdi></a>'
    assert link in client.get(LIST).content.decode()


def test_subclass_decides_which_accounts_there_are(ada: User, rf: Any) -> None:
    class OwnAccountView(views.AccountView):
        def get_queryset(self) -> Any:
            return BusinessAccount.objects.filter(display_name="Shared")

    shared = make_account(owner=make_user("grace"), display_name="Shared")
    request = rf.get(page_of(shared))
    request.user = ada
    assert OwnAccountView.as_view()(request, pk=shared.pk).status_code == 200


@pytest.mark.parametrize(
    ("changes", "label", "words"),
    [
        ({}, "healthy", "renews it by itself. You have nothing to do."),
        ({"status": "revoked"}, "revoked", "To use it again, connect it again."),
        ({"status": "reauthorization_required"}, "reconnect needed", "Connect the account again."),
        ({"consecutive_failures": 2}, "retrying", "It is tried again. You have nothing to do."),
        ({"refresh_token_expires_at": 5}, "expires soon", "Connect the account again to prolong"),
        ({"refresh_token_expires_at": -5}, "reconnect needed", "Connect the account again."),
        ({}, "cannot decrypt", "An administrator can restore the missing key"),
    ],
)
def test_page_explains_each_health_and_what_to_do(
    ada: User, client: Client, changes: dict[str, Any], label: str, words: str
) -> None:
    if days := changes.get("refresh_token_expires_at"):
        changes = {"refresh_token_expires_at": timezone.now() + timedelta(days=days)}
    if label == "cannot decrypt":
        make_unreadable(account := make_account(owner=ada))
    else:
        account = make_account(owner=ada, **changes)
    text = text_of(client.get(page_of(account)))
    assert f"Connection {label} " in text
    assert words in text
    assert ("Access expires" in text) is (label != "revoked")
    assert ("Permissions Granted" in text) is (label != "revoked")


def test_each_health_has_advice() -> None:
    assert len({health.advice for health in Health}) == len(Health)


@pytest.mark.parametrize("failures", [0, 2])
def test_account_of_another_app_is_not_described_as_renewed(
    ada: User, client: Client, failures: int
) -> None:
    account = make_account(owner=ada, app_id="7999", consecutive_failures=failures)
    for url in (LIST, page_of(account)):
        text = text_of(client.get(url))
        assert "It belongs to another TikTok app (7999)" in text
        assert "nothing to do" not in text
        assert "tried again" not in text
        assert "renewed before then" not in text


def test_page_shows_the_last_renewal_and_the_end_of_consent(ada: User, client: Client) -> None:
    now = timezone.now()
    account = make_account(
        owner=ada,
        last_refreshed_at=now - timedelta(hours=4),
        refresh_token_expires_at=now + timedelta(days=50),
    )
    text = text_of(client.get(page_of(account)))
    assert "Access renewed 4 hours ago" in text
    assert "Access expires in 20 hours" in text
    assert "renewed before then Consent ends in 50 days" in text
    assert str(now.year) in text
    BusinessAccount.objects.update(last_refreshed_at=None)
    assert "Access renewed not yet" in text_of(client.get(page_of(account)))


def test_page_shows_tiktoks_code_and_request_id_but_not_its_message(
    ada: User, client: Client
) -> None:
    account = make_account(
        owner=ada,
        consecutive_failures=1,
        last_error_at=timezone.now() - timedelta(hours=3),
        last_error_code=50000,
        last_error_message="Call 0900-FRAUD",
        last_error_request_id="20261122<b>",
    )
    text = text_of(client.get(page_of(account)))
    assert "Last failure 3 hours ago" in text
    assert "TikTok's code 50000 TikTok's request id 20261122<b>" in text
    assert "FRAUD" not in text


def test_page_shows_counts_and_the_time_of_the_last_sync(ada: User, client: Client) -> None:
    account = make_account(
        owner=ada,
        followers_count=152_300_411,
        following_count=0,
        likes_count=7,
        profile_synced_at=timezone.now() - timedelta(hours=5),
    )
    text = text_of(client.get(page_of(account)))
    assert (
        "Followers 152,300,411 Following 0 Likes 7 Videos - Last read from TikTok: 5 hours" in text
    )
    BusinessAccount.objects.update(profile_synced_at=None)
    assert "The profile could not be read yet." in text_of(client.get(page_of(account)))


def test_bio_keeps_line_breaks_without_invisible_characters(ada: User, client: Client) -> None:
    account = make_account(owner=ada, bio="\n<b>Bread</b>\u202e\r\n\nevery  day\n")
    page = client.get(page_of(account)).content.decode()
    bio = '<p class="bio" dir="auto">&lt;b&gt;Bread&lt;/b&gt;<br><br>every day</p>'
    assert bio in page
    BusinessAccount.objects.update(bio=" ")
    assert 'class="bio"' not in client.get(page_of(account)).content.decode()


def test_right_to_left_text_of_the_holder_does_not_reorder_its_neighbours(
    ada: User, client: Client
) -> None:
    account = make_account(
        owner=ada, display_name="(Bakery)", username="x", scopes=["(unknown)"], is_verified=True
    )
    for url in (LIST, page_of(account), f"{page_of(account)}disconnect/"):
        page = client.get(url).content.decode()
        for text in ("(Bakery)", "@x"):
            # Everywhere but in the title and in URLs the text is isolated.
            assert f"<bdi>{text}</bdi>" in page
            assert page.count(text) == page.count(f"<bdi>{text}</bdi>") + page.count(
                f"{text}</title>"
            ) + page.count(f"com/{text}")
    assert "<bdi>(unknown)</bdi>" in client.get(page_of(account)).content.decode()


def test_f34_page_holds_no_token(ada: User, client: Client) -> None:
    account = make_account(owner=ada)
    tokens = (account.access_token, account.refresh_token)
    assert_nothing_holds(tokens, rendered(client.get(page_of(account))))


def test_page_needs_the_same_number_of_queries_for_any_account(db: None, client: Client) -> None:
    ada = log_in(client, may="view add change delete")
    bare = make_account(owner=ada)
    full = make_account(owner=make_user("grace"), open_id="2", scopes=SCOPES, bio="A\nB")
    for number in range(20):
        make_account(owner=ada, open_id=f"more-{number}")
    counts = []
    for account in (bare, bare, full):
        with CaptureQueriesContext(connection) as queries:
            client.get(page_of(account))
        counts.append(len(queries))
    assert counts[1] == counts[2] <= 5


def test_page_is_never_cached_and_wrong_settings_are_a_page(ada: User, client: Client) -> None:
    account = make_account(owner=ada)
    response = client.get(page_of(account))
    assert "no-store" in response.headers["Cache-Control"]
    assert response.headers["Referrer-Policy"] == "strict-origin"
    with override_tiktok(CONNECT_PERMISSION=5):
        response = client.get(page_of(account))
    assert response.status_code == 503
    assert "Go back" not in text_of(response)


@pytest.mark.parametrize(
    ("may", "mine", "others", "unowned"),
    [
        ("view", "D", "", ""),
        ("view add", "RD", "", "R"),
        ("view add change", "RD", "R", "R"),
        ("view delete", "D", "D", "D"),
        ("add", "RD", None, None),
    ],
)
def test_page_offers_what_the_list_offers(
    db: None, client: Client, may: str, mine: str, others: str | None, unowned: str | None
) -> None:
    ada = log_in(client, may=may)
    expected = {
        make_account(open_id="1", owner=ada): mine,
        make_account(open_id="2", owner=make_user("grace")): others,
        make_account(open_id="3"): unowned,
    }
    for account, offered in expected.items():
        response = client.get(page_of(account))
        assert (response.status_code == 404) is (offered is None)
        if offered is None:
            continue
        page = response.content.decode()
        assert (">Reconnect<" in page) is ("R" in offered)
        assert (">Disconnect<" in page) is ("D" in offered)
        row = response.context["row"]
        (same,) = [each for each in client.get(LIST).context["rows"] if each.account == account]
        assert isinstance(row, AccountRow)
        assert (row.may_reconnect, row.may_disconnect) == (same.may_reconnect, same.may_disconnect)


@pytest.mark.parametrize(
    ("may", "status", "is_told"),
    [
        ("", "reauthorization_required", True),
        ("add", "reauthorization_required", False),
        ("", "active", False),
    ],
)
def test_users_who_may_not_reconnect_are_told_whom_to_ask(
    db: None, client: Client, may: str, status: str, is_told: bool
) -> None:
    account = make_account(owner=log_in(client, may=may), status=status)
    for url in (LIST, page_of(account)):
        text = text_of(client.get(url))
        assert ("which you do not have: ask an administrator" in text) is is_told


@pytest.mark.parametrize("may", ["add", ""])
def test_missing_permissions_are_described_with_a_button_for_users_who_may_reconnect(
    db: None, client: Client, may: str
) -> None:
    account = make_account(owner=log_in(client, may=may), scopes=["user.info.basic"])
    with override_tiktok(SCOPES=SCOPES):
        text = text_of(client.get(page_of(account)))
    assert "Granted See your display name and profile picture Not granted" in text
    assert "See your public videos" in text
    assert ("Reconnect to grant them" in text) is (may == "add")


def test_account_with_all_permissions_lists_none_as_missing(ada: User, client: Client) -> None:
    account = make_account(owner=ada, scopes=SCOPES)
    with override_tiktok(SCOPES=SCOPES):
        text = text_of(client.get(page_of(account)))
    assert "Not granted" not in text
    assert "to grant them" not in text
    BusinessAccount.objects.update(scopes=[])
    assert "Granted None." in text_of(client.get(page_of(account)))


@pytest.mark.parametrize(
    ("changes", "main"),
    [
        ({}, "Reconnect to grant them"),
        ({"status": "reauthorization_required"}, "Reconnect"),
        ({"scopes": SCOPES}, None),
    ],
)
def test_at_most_one_button_is_emphasised(
    ada: User, client: Client, changes: dict[str, Any], main: str | None
) -> None:
    account = make_account(owner=ada, **{"scopes": ["user.info.basic"], **changes})
    with override_tiktok(SCOPES=SCOPES):
        page = client.get(page_of(account)).content.decode()
    start = '<button class="button main tiktok-connect">'
    assert page.count(start) == (main is not None)
    assert main is None or f"{start}{main}<" in page


def test_reconnecting_and_disconnecting_return_to_the_page(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    url = page_of(account)
    page = client.get(url).content.decode()
    assert f'<input type="hidden" name="next" value="{url}">' in page
    leaving = f"{url}disconnect/?next=%2Ftiktok%2F{account.pk}%2F"
    assert f'href="{leaving}"' in page
    assert client.get(visit(client, simulator, url)).headers["Location"] == url
    assert client.post(leaving).headers["Location"] == url
    assert "is disconnected, and TikTok has confirmed it." in text_of(client.get(url))


@pytest.mark.parametrize(("next_url", "ends_on_the_list"), [("", True), ("/tiktok/__pk__/", False)])
def test_connecting_ends_on_the_list_or_on_the_requested_account_page(
    ada: User, client: Client, simulator: Simulator, next_url: str, ends_on_the_list: bool
) -> None:
    ended = client.get(visit(client, simulator, next_url)).headers["Location"]
    account = BusinessAccount.objects.get()
    assert ended == (LIST if ends_on_the_list else page_of(account))
    assert client.get(ended).status_code == 200
