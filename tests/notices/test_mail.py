"""What a mail about an account says, to whom it goes, and how it is sent."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import override_settings
from django.urls import path
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.conf import conf
from django_tiktok_business.exceptions import ReauthorizationRequired
from django_tiktok_business.notices import mail as notice_mail
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_account, make_user
from tests.support.notices import (
    OPS,
    an_hour_passes,
    broken_mail_server,
    mailing_with,
    make_rejected,
    reject,
    run,
    subjects,
    the_mail,
)
from tests.support.simulator import override_tiktok

pytestmark = pytest.mark.django_db(transaction=True)

urlpatterns = [path("", lambda request: None, name="home")]  # type: ignore[arg-type,return-value]


def test_mail_about_a_rejection_names_account_reason_and_what_to_do(
    simulator: Simulator, ada: User
) -> None:
    account = connect(
        simulator, owner=ada, username="harbour_bakery", display_name="Harbour Bakery"
    )
    reject(account, simulator)
    message, text, html = the_mail()
    account.refresh_from_db()
    assert message.subject == "Please connect the TikTok account Harbour Bakery again"
    for body in (text, html):
        assert "Harbour Bakery" in body
        assert "@harbour_bakery" in body
        assert "The refresh token is invalid." in body
        assert "40107" in body
        assert account.last_error_request_id in body
        assert "https://testserver.example/tiktok/" in body
        assert "log in to TikTok as this account" in body.replace("\n", " ")
    assert "\n\n\n" not in text


def test_mail_about_the_end_of_a_consent_comes_before_it(ada: User) -> None:
    ends_at = datetime(2027, 3, 1, 12, tzinfo=UTC)
    days_left = (ends_at - timezone.now()).days + 1
    make_account(owner=ada, username="harbour_bakery", refresh_token_expires_at=ends_at)
    with (
        override_tiktok(REAUTHORIZATION_WARNING_DAYS=days_left),
        override_settings(TIME_ZONE="Europe/Berlin"),
        timezone.override("Asia/Tokyo"),  # of the visitor whose request finds it
    ):
        run()
    message, text, html = the_mail()
    assert message.subject == "Access to the TikTok account @harbour_bakery ends on March 1, 2027"
    for body in (text, html):
        assert "the year ends on March 1, 2027" in body
        assert "March 1, 2027, 1 p.m. CET" in body
        assert "https://testserver.example/tiktok/" in body
        assert "(" not in body.partition("@harbour_bakery")[2][:30], "the handle comes once"
    assert "\n\n\n" not in text


def test_mail_goes_to_the_owner_and_unseen_by_the_owner_to_the_others(ada: User) -> None:
    make_rejected(owner=ada)
    with override_tiktok(NOTIFY=["owner", OPS, "Desk <desk@example.com>", "ada@example.com"]):
        run()
    message, _, _ = the_mail()
    assert message.to == ["ada@example.com"]
    assert message.bcc == [OPS, "Desk <desk@example.com>"]
    assert OPS not in message_from_bytes(message.message().as_bytes()).as_string()


@pytest.mark.parametrize(
    "owner", ["nobody", "no address", "inactive", "hostile address", "address that no server takes"]
)
def test_owner_who_cannot_be_reached_is_left_out(owner: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "nobody": {},
        "no address": {"email": ""},
        "inactive": {"email": "ada@example.com", "is_active": False},
        "hostile address": {"email": "ada@example.com\nBcc: everybody@example.com"},
        "address that no server takes": {"email": '"\x01"@example.com'},
    }
    make_rejected(owner=None if owner == "nobody" else make_user("ada", **cases[owner]))
    run()
    message, _, _ = the_mail()
    assert (message.to, message.bcc) == ([OPS], [])


def test_account_without_any_recipient_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_rejected()
    with override_tiktok(NOTIFY=["owner"]), caplog.at_level("INFO", "tiktok_business"):
        run()
        run()
    assert subjects() == []
    (record,) = [record for record in caplog.records if "no address" in record.getMessage()]
    assert record.levelname == "INFO"


def test_mail_is_in_the_language_of_the_site(ada: User) -> None:
    make_account(owner=ada, refresh_token_expires_at=datetime(2027, 3, 1, 12, tzinfo=UTC))
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=365), override_settings(LANGUAGE_CODE="ar"):
        run()
    message, _, html = the_mail()
    assert "مارس" in message.subject  # of Django's own translations: March
    assert '<html lang="ar" dir="rtl">' in html


@pytest.mark.parametrize("uri", [None, "not a URL", "//[broken/"])
def test_link_is_left_out_where_the_host_is_unknown(ada: User, uri: str | None) -> None:
    make_rejected(owner=ada)
    with override_tiktok(REDIRECT_URI=uri):
        run()
    _, text, html = the_mail()
    assert "://" not in text + html


def test_link_is_left_out_where_the_pages_are_not_routed(ada: User) -> None:
    make_rejected(owner=ada)
    with override_settings(ROOT_URLCONF=__name__):
        run()
    _, text, html = the_mail()
    assert "://" not in text + html


def test_missing_details_of_the_error_are_left_out(ada: User) -> None:
    make_rejected(owner=ada, last_error_code=None, last_error_message="", last_error_request_id="")
    run()
    _, text, html = the_mail()
    assert "TikTok's code" not in text + html
    assert "says" not in text + html
    assert "request id" not in text + html


def test_f34_hostile_names_and_messages_can_neither_add_headers_nor_markup(ada: User) -> None:
    make_rejected(
        owner=ada,
        display_name="Ev\u202eil\r\nBcc: everybody@example.com\n\n<b>&amp; Sons</b>",
        username="evil\nX: y",
        last_error_message="no\u202e\n\n<script>alert(1)</script>\u2028\x07",
    )
    run()
    message, text, html = the_mail()
    assert message.subject == (
        "Please connect the TikTok account Evil Bcc: everybody@example.com <b>&amp; Sons</b> again"
    )
    parsed = message_from_bytes(message.message().as_bytes())
    assert parsed["To"] == "ada@example.com"
    assert parsed["Bcc"] is None
    assert "Evil Bcc: everybody@example.com <b>&amp; Sons</b> (@evil X: y)\n" in text
    assert "says: no <script>alert(1)</script>\n" in text
    assert "&lt;b&gt;&amp;amp; Sons&lt;/b&gt;" in html
    assert "&lt;script&gt;" in html
    assert not {"\u202e", "\u2028", "\x07", "\r"} & set(message.subject + text + html)


def test_long_name_leaves_a_subject_that_can_be_read(ada: User) -> None:
    make_rejected(owner=ada, display_name="x" * 5000)
    run()
    message, text, _ = the_mail()
    assert len(message.subject) < 140
    assert "x" * 5000 in text


def test_f34_no_mail_and_no_log_line_holds_a_secret(
    simulator: Simulator, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    account = connect(simulator, owner=ada)
    secrets = [account.access_token, account.refresh_token, conf.APP_SECRET]
    message = f"Bad token {account.refresh_token}"
    path = "/tt_user/oauth2/refresh_token/"
    simulator.fail_next("code", code=40107, message=message, path=path)
    with broken_mail_server(), caplog.at_level("DEBUG"), pytest.raises(ReauthorizationRequired):
        services.refresh_account(account)
    an_hour_passes()
    run()
    sent, text, html = the_mail()
    everything = sent.message().as_string() + text + html + caplog.text
    assert "Bad token <secret>" in text
    assert "SMTPServerDisconnected" in caplog.text
    assert "ada@example.com was refused" not in caplog.text
    assert [secret for secret in secrets if secret in everything] == []


def test_projects_can_replace_the_templates(ada: User, tmp_path: Any, settings: Any) -> None:
    folder = tmp_path / "tiktok_business" / "mail"
    folder.mkdir(parents=True)
    subject = folder / "reauthorization_required_subject.txt"
    subject.write_text("{% autoescape off %}\n{{ label }}\nis lost\n{% endautoescape %}")
    body = folder / "reauthorization_required_body.html"
    body.write_text("<h1>{{ account.owner.username }}, {{ label }}: {{ code }}</h1>")
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    make_rejected(owner=ada, display_name="A & B")
    run()
    message, text, html = the_mail()
    assert message.subject == "A & B is lost"
    assert html == "<h1>ada, A &amp; B: 40107</h1>"
    assert text.startswith("TikTok has ended this site's access")


def test_mail_server_that_hangs_is_not_waited_for(
    ada: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_rejected(owner=ada)
    monkeypatch.setattr(notice_mail, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with mailing_with("django.core.mail.backends.smtp.EmailBackend", host=host, port=port):
            run()
    assert "SMTPServerDisconnected" in caplog.text
