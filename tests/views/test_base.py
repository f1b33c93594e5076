"""The list of accounts, disconnecting, and what all pages have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

import django_tiktok_business
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import meanwhile, override_tiktok, running_simulator
from tests.support.visits import (
    CALLBACK,
    CONNECT,
    LIST,
    REVOKE_CALL,
    assert_nothing_holds,
    failing,
    log_in,
    messages_of,
    rendered,
    text_of,
)

PACKAGE = Path(django_tiktok_business.__file__).parent
TEMPLATES = sorted((PACKAGE / "templates" / "tiktok_business").glob("*.html"))
STYLE_SHEET = PACKAGE / "static" / "tiktok_business" / "pages.css"
TOKENS = ("act.test-access-token", "rft.test-refresh-token")
NEEDED_SCOPES = ["user.info.basic", "video.list"]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with override_tiktok(MAX_ATTEMPTS=1), running_simulator() as simulator:
        yield simulator


@pytest.fixture
def ada(db: None, client: Client) -> User:
    return log_in(client)


def disconnect_url(account: BusinessAccount) -> str:
    return f"/tiktok/{account.pk}/disconnect/"


def damage(account: BusinessAccount) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tiktok_business_businessaccount SET access_token = 'tbk1.x.y' WHERE id = %s",
            [account.pk],
        )


# The list


def test_list_wants_a_login(db: None, client: Client) -> None:
    response = client.get(LIST)
    assert response.status_code == 302
    assert response.headers["Location"] == "/admin/login/?next=/tiktok/"


def test_list_shows_ones_own_accounts_only(ada: User, client: Client) -> None:
    make_account(open_id="1", display_name="Mine", owner=ada)
    make_account(open_id="2", display_name="Theirs", owner=make_user("grace"))
    make_account(open_id="3", display_name="Nobodys")
    text = text_of(client.get(LIST))
    assert "Your TikTok accounts" in text
    assert "Mine" in text
    assert "Theirs" not in text
    assert "Nobodys" not in text
    assert "connected by" not in text


def test_list_shows_all_accounts_to_who_may_view_them(db: None, client: Client) -> None:
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
    # The revoked account of somebody else can be reconnected by who may change accounts.
    assert page.count(">Reconnect<") == reconnect + (may == "view add change")
    assert page.count(">Disconnect<") == disconnect


@pytest.mark.parametrize(("may", "is_invited"), [("add", True), ("", False)])
def test_empty_list_says_what_to_do(db: None, client: Client, may: str, is_invited: bool) -> None:
    log_in(client, may=may)
    text = text_of(client.get(LIST))
    assert "No TikTok account is connected yet." in text
    assert ("Connect an account" in text) is is_invited
    assert ("ask an administrator" in text) is not is_invited


def test_list_takes_the_same_number_of_queries_for_many_accounts(db: None, client: Client) -> None:
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
def test_list_tells_how_an_account_fares(
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
    damage(BusinessAccount.objects.latest("pk"))
    text = text_of(client.get(LIST))
    assert text.count("cannot decrypt") == 1
    assert text.count("healthy") == 49


def test_f22_list_works_without_any_fitting_key(ada: User, client: Client) -> None:
    make_account(owner=ada)
    with override_tiktok(ENCRYPTION_KEYS=["another-key-that-opens-nothing-at-all-Q8r"]):
        response = client.get(LIST)
    assert response.status_code == 200
    assert "cannot decrypt" in text_of(response)


def test_list_tells_tiktoks_code_and_request_id_but_not_its_words(
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


def test_list_does_not_call_access_renewed_in_time_that_has_ended(
    ada: User, client: Client
) -> None:
    make_account(owner=ada, access_token_expires_at=timezone.now() - timedelta(minutes=3))
    text = text_of(client.get(LIST))
    assert "Access expires 3 minutes ago Consent" in text
    assert "renewed" not in text


def test_list_marks_accounts_of_another_app(ada: User, client: Client) -> None:
    make_account(owner=ada, app_id="7999")
    text = text_of(client.get(LIST))
    assert "It belongs to another TikTok app (7999)" in text
    assert "renewed before then" not in text


def test_list_names_missing_permissions_in_words(ada: User, client: Client) -> None:
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


def test_wrong_setting_makes_the_list_a_page_that_says_so(ada: User, client: Client) -> None:
    make_account(owner=ada)
    with override_tiktok(CONNECT_PERMISSION=5):
        response = client.get(LIST)
    assert response.status_code == 503
    assert "This site is not fully set up" in text_of(response)


# Disconnecting


def test_f50_disconnecting_asks_first(ada: User, client: Client, simulator: Simulator) -> None:
    account = connect(simulator, owner=ada, display_name="Harbour Bakery", username="harbour")
    response = client.get(disconnect_url(account))
    assert response.status_code == 200
    text = text_of(response)
    assert "Disconnect this account?" in text
    assert "Harbour Bakery @harbour" in text
    assert simulator.live_tokens(account.open_id) is not None
    assert BusinessAccount.objects.get().status == "active"


def test_f50_disconnecting_ends_the_grant_and_clears_the_tokens(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada, display_name="Harbour Bakery")
    tokens = (account.access_token, account.refresh_token)
    response = client.post(disconnect_url(account))
    assert response.status_code == 302
    assert response.headers["Location"] == LIST
    assert messages_of(response) == ["Harbour Bakery is disconnected, and TikTok has confirmed it."]
    account.refresh_from_db()
    assert (account.status, account.access_token, account.refresh_token) == ("revoked", "", "")
    assert simulator.live_tokens(account.open_id) is None
    assert_nothing_holds(tokens, rendered(response), rendered(client.get(LIST)))


def test_f50_disconnecting_works_though_tiktok_cannot_be_told(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    simulator.fail_next(code=50000, path=REVOKE_CALL)
    response = client.post(disconnect_url(account))
    assert response.status_code == 302
    (message,) = messages_of(response)
    assert "is disconnected here, but TikTok could not be told." in message
    assert "Manage app permissions" in message
    account.refresh_from_db()
    assert (account.status, account.access_token) == ("revoked", "")
    assert "TikTok's code 50000" in text_of(client.get(LIST))


def test_f50_unreadable_account_can_be_disconnected(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    damage(account)
    assert client.get(disconnect_url(account)).status_code == 200
    assert client.post(disconnect_url(account)).status_code == 302
    assert BusinessAccount.objects.get().status == "revoked"


@pytest.mark.parametrize("method", ["get", "post"])
def test_account_of_somebody_else_is_not_found(
    db: None, client: Client, simulator: Simulator, method: str
) -> None:
    log_in(client, may="add view change")
    theirs = connect(simulator, owner=make_user("grace"))
    nobodys = make_account(open_id="2")
    for url in (disconnect_url(theirs), disconnect_url(nobodys), "/tiktok/987654/disconnect/"):
        assert getattr(client, method)(url).status_code == 404
    assert not BusinessAccount.objects.filter(status="revoked").exists()


def test_who_may_delete_accounts_may_disconnect_any(
    db: None, client: Client, simulator: Simulator
) -> None:
    log_in(client, may="delete")
    account = connect(simulator, owner=make_user("grace"))
    assert client.post(disconnect_url(account)).status_code == 302
    assert BusinessAccount.objects.get().status == "revoked"


def test_anonymous_visitor_cannot_disconnect(
    db: None, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator)
    response = client.post(disconnect_url(account))
    assert response.headers["Location"].startswith("/admin/login/")
    assert BusinessAccount.objects.get().status == "active"


def test_disconnecting_takes_the_csrf_token(ada: User, simulator: Simulator) -> None:
    account = connect(simulator, owner=ada)
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    assert client.post(disconnect_url(account)).status_code == 403
    client.get(disconnect_url(account))
    token = client.cookies["csrftoken"].value
    response = client.post(disconnect_url(account), {"csrfmiddlewaretoken": token})
    assert response.status_code == 302


@pytest.mark.parametrize("method", ["get", "post"])
def test_disconnecting_twice_says_that_it_is_done(
    ada: User, client: Client, simulator: Simulator, method: str
) -> None:
    account = make_account(owner=ada, display_name="Harbour", status="revoked")
    response = getattr(client, method)(disconnect_url(account))
    assert response.status_code == 302
    assert messages_of(response) == ["Harbour is disconnected already."]
    assert simulator.count(REVOKE_CALL) == 0


def test_disconnect_that_a_reconnect_overtakes_is_a_page(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    meanwhile(lambda: BusinessAccount.objects.update(connected_at=timezone.now()))
    response = client.post(disconnect_url(account))
    assert response.status_code == 503
    assert "The account is still connected" in text_of(response)
    assert BusinessAccount.objects.get().status == "active"


@pytest.mark.django_db(transaction=True)
def test_disconnect_that_cannot_be_stored_is_a_page(client: Client, simulator: Simulator) -> None:
    account = connect(simulator, owner=log_in(client))

    with failing("UPDATE", "businessaccount"):
        response = client.post(disconnect_url(account))
    assert response.status_code == 503
    assert "The account is still connected" in text_of(response)


@pytest.mark.django_db(transaction=True)
def test_disconnect_runs_in_no_transaction_with_atomic_requests(
    client: Client, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    account = connect(simulator, owner=log_in(client))
    are_atomic: list[bool] = []
    meanwhile(lambda: are_atomic.append(connection.in_atomic_block))
    assert client.post(disconnect_url(account)).status_code == 302
    assert are_atomic == [False]


@pytest.mark.parametrize(
    ("given", "location"),
    [("/settings/", "/settings/"), ("/a/__pk__/", "/a/{pk}/"), ("//evil.example/", LIST)],
)
def test_f46_disconnecting_ends_at_a_safe_next(
    ada: User, client: Client, simulator: Simulator, given: str, location: str
) -> None:
    account = connect(simulator, owner=ada)
    assert "evil" not in rendered(client.get(disconnect_url(account), {"next": given}))
    response = client.post(disconnect_url(account), {"next": given})
    assert response.headers["Location"] == location.format(pk=account.pk)


def test_disconnecting_ends_where_the_setting_says(
    ada: User, client: Client, simulator: Simulator
) -> None:
    account = connect(simulator, owner=ada)
    with override_tiktok(CONNECT_REDIRECT_URL="/done/"):
        assert client.post(disconnect_url(account)).headers["Location"] == "/done/"


# All pages


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_template_has_no_script_no_inline_style_and_no_foreign_address(template: Path) -> None:
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
