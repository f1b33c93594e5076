"""People are told that an account has to be connected again: once, and at no token's cost."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from smtplib import SMTPRecipientsRefused, SMTPServerDisconnected
from typing import Any

import django
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.db import OperationalError, connections, transaction
from django.test import override_settings
from django.urls import path
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.conf import conf
from django_tiktok_business.exceptions import ReauthorizationRequired
from django_tiktok_business.models import BusinessAccount, Notice
from django_tiktok_business.notices import mail as notice_mail
from django_tiktok_business.notices import send
from django_tiktok_business.services import chunks as chunks_module
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect, make_account, make_user
from tests.support.simulated import REDIRECT_URI
from tests.support.simulator import next_statement, override_tiktok, running_simulator
from tests.support.visits import come_back, failing, value_in

NOTICES = "tiktok_business_notice"
OPS = "ops@example.com"

pytestmark = pytest.mark.django_db(transaction=True)

urlpatterns = [path("", lambda request: None, name="home")]  # type: ignore[arg-type,return-value]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator(strict=True) as simulator:
        yield simulator


@pytest.fixture
def ada() -> User:
    return make_user("ada", email="ada@example.com")


# Mail servers

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"


def mailing_with(backend: str, **options: Any) -> override_settings:
    """Let the project's default mail backend be this one."""
    mailers = {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
    older = {
        f"EMAIL_{name.upper()}": value for name, value in {"backend": backend, **options}.items()
    }
    return override_settings(**(mailers if django.VERSION >= (6, 1) else older))


@pytest.fixture(autouse=True)
def _notify() -> Iterator[None]:
    with override_tiktok(NOTIFY=["owner", OPS], MAX_ATTEMPTS=1), mailing_with(LOCMEM):
        yield


happenings: list[Callable[[], object]] = []


class WatchedBackend(BaseEmailBackend):
    """Lets something happen whenever a mail is sent, and then keeps the mail in the outbox."""

    def send_messages(self, email_messages: Any) -> int:
        for message in email_messages:
            for happen in happenings:
                happen()
            mail.outbox.append(message)
        return len(email_messages)


@contextmanager
def at_each_mail(happen: Callable[[], object]) -> Iterator[None]:
    happenings.append(happen)
    try:
        with mailing_with(f"{__name__}.WatchedBackend"):
            yield
    finally:
        happenings.remove(happen)


def broken_mail_server() -> AbstractContextManager[None]:
    def refuse() -> None:
        raise SMTPServerDisconnected("ada@example.com was refused")

    return at_each_mail(refuse)


# What happens to accounts


def reject(account: BusinessAccount, simulator: Simulator) -> None:
    """The holder removes the app in TikTok, and the site finds out."""
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


def told() -> list[str]:
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


# What a mail says


def test_rejection_is_told_with_account_reason_and_what_to_do(
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


def test_end_of_a_consent_is_told_before_it_comes(ada: User) -> None:
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


def test_account_that_nobody_can_be_told_about_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_rejected()
    with override_tiktok(NOTIFY=["owner"]), caplog.at_level("INFO", "tiktok_business"):
        run()
        run()
    assert told() == []
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
def test_link_is_left_out_where_the_host_is_not_known(ada: User, uri: str | None) -> None:
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


def test_what_tiktok_did_not_say_is_left_out(ada: User) -> None:
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


# Once


def test_each_cause_is_told_once(simulator: Simulator, ada: User) -> None:
    account = connect(simulator, owner=ada, refresh_token_expires_at=soon())
    run()
    run()
    assert len(told()) == 1
    reject(account, simulator)
    with pytest.raises(ReauthorizationRequired):
        services.get_access_token(BusinessAccount.objects.get())
    run()
    assert [subject.split()[0] for subject in told()] == ["Access", "Please"]


def test_daily_refresh_within_the_same_consent_tells_nothing_new(
    simulator: Simulator, ada: User
) -> None:
    connect(simulator, owner=ada, refresh_token_expires_at=soon())
    run()
    BusinessAccount.objects.update(access_token_expires_at=timezone.now())
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=365):  # the simulator's consents are new
        run()
    assert BusinessAccount.objects.get().credentials_version == 1
    assert len(told()) == 1


def test_new_consent_begins_afresh(simulator: Simulator, ada: User) -> None:
    account = connect(simulator, owner=ada, refresh_token_expires_at=soon())
    run()
    reject(account, simulator)
    assert len(told()) == 2
    connect_again(ada, simulator)
    run()
    assert len(told()) == 2
    BusinessAccount.objects.update(refresh_token_expires_at=soon())  # nearly a year later
    run()
    reject(account, simulator)
    run()
    assert [subject.split()[0] for subject in told()] == ["Access", "Please"] * 2


def test_account_without_a_date_of_connection_is_told_of_once(ada: User) -> None:
    make_account(owner=ada, connected_at=None, refresh_token_expires_at=soon())
    run()
    run()
    assert len(told()) == 1


def test_nothing_is_told_of_what_is_far_off_over_or_not_ours(ada: User) -> None:
    make_account(open_id="far off", refresh_token_expires_at=soon(31))
    make_account(open_id="over", refresh_token_expires_at=soon(-1))
    make_account(open_id="unknown", refresh_token_expires_at=None)
    make_account(open_id="gone", refresh_token_expires_at=soon(), status="revoked")
    make_account(open_id="other app", refresh_token_expires_at=soon(), app_id="7000000000000000009")
    make_rejected(open_id="lost for years", last_error_at=soon(-8))
    make_rejected(open_id="of other app", app_id="7000000000000000009")
    run()
    assert told() == []


def test_nothing_is_told_or_asked_for_while_it_is_off(
    simulator: Simulator, django_assert_num_queries: Any
) -> None:
    account = connect(simulator, refresh_token_expires_at=soon())
    make_rejected()
    with override_tiktok(NOTIFY=[]):
        reject(account, simulator)
        run()
        with django_assert_num_queries(0):
            send.send_due(BusinessAccount.objects.using("default"))
    assert told() == []
    assert not Notice.objects.exists()


def test_many_accounts_are_told_of_page_by_page(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "PAGE_ROWS", 2)
    for number in range(5):
        make_account(open_id=f"_{number}", owner=ada, refresh_token_expires_at=soon())
    run()
    assert len(set(told())) == 5


def test_of_many_workers_one_tells(ada: User) -> None:
    count = 4
    make_rejected(owner=ada)
    make_account(open_id="_ends", owner=ada, refresh_token_expires_at=soon())
    start = threading.Barrier(count)

    def work() -> None:
        try:
            start.wait(timeout=30)
            send.send_due(BusinessAccount.objects.using("default"))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()
    assert sorted(subject.split()[0] for subject in told()) == ["Access", "Please"]
    assert Notice.objects.exclude(told_at=None).count() == 2


def test_worker_that_comes_while_the_mail_is_on_its_way_sends_none(ada: User) -> None:
    make_rejected(owner=ada)
    with at_each_mail(run):
        run()
    assert len(told()) == 1


def test_of_two_that_have_found_the_same_one_wins_the_right(ada: User) -> None:
    account = make_rejected(owner=ada)
    until = timezone.now() + send.CLAIM
    kind = Notice.Kind.REAUTHORIZATION_REQUIRED
    assert send._claim(kind, account, until, "default")
    assert not send._claim(kind, account, until, "default")
    an_hour_passes()  # in which the winner has died
    assert send._claim(kind, account, until, "default")
    assert not send._claim(kind, account, until, "default")


def test_account_that_is_connected_again_while_others_are_told_of_is_left_out(ada: User) -> None:
    for open_id in ("first", "second"):
        make_rejected(open_id=open_id, owner=ada)

    def repair() -> None:
        BusinessAccount.objects.filter(open_id="second").update(status="active")

    with at_each_mail(repair):
        run()
    assert told() == ["Please connect the TikTok account first again"]


def test_account_that_is_deleted_meanwhile_is_left_out(ada: User) -> None:
    account = make_rejected(owner=ada)
    BusinessAccount.objects.filter(pk=account.pk).delete()
    kind = Notice.Kind.REAUTHORIZATION_REQUIRED
    assert not send._claim(kind, account, timezone.now(), "default")


def test_notices_go_with_their_account(ada: User) -> None:
    account = make_rejected(owner=ada)
    run()
    assert str(Notice.objects.get()) == "reauthorization required"
    account.delete()
    assert not Notice.objects.exists()


# After the tokens, and never at their cost


@pytest.mark.parametrize("chosen", ["all", "the active ones", "a list"])
def test_batch_mails_when_all_tokens_are_saved(
    simulator: Simulator, ada: User, chosen: str
) -> None:
    names = ("harbour_bakery", "bike_shop", "tea_house")
    for name in names:
        connect(simulator, name, owner=ada)
    lost = connect(simulator, "lost", owner=ada, access_token_expires_at=timezone.now())
    simulator.revoke_grant(lost.open_id)
    accounts = {
        "all": None,
        "the active ones": BusinessAccount.objects.active(),
        "a list": list(BusinessAccount.objects.all()),
    }[chosen]
    saved: list[int] = []

    def count() -> None:
        saved.append(BusinessAccount.objects.filter(last_refreshed_at__isnull=False).count())

    with at_each_mail(count):
        report = services.refresh_due_accounts(
            within=timedelta(days=2), accounts=accounts, concurrency=1
        )
    assert (report.refreshed, report.reauthorization_required) == (3, 1)
    assert saved == [3]


def test_run_for_some_accounts_tells_of_them_alone(ada: User) -> None:
    chosen = make_account(owner=ada, refresh_token_expires_at=soon())
    make_account(open_id="_other", owner=ada, refresh_token_expires_at=soon())
    services.refresh_due_accounts(accounts=[chosen])
    assert len(told()) == 1
    assert chosen.open_id in told()[0]


def test_run_that_is_to_stop_tells_nothing(ada: User) -> None:
    make_rejected(owner=ada)
    stop = threading.Event()
    stop.set()
    services.refresh_due_accounts(stop=stop)
    assert told() == []


def test_batch_inside_a_receiver_leaves_the_telling_to_the_outer_one(
    simulator: Simulator, ada: User
) -> None:
    lost = connect(simulator, "lost", owner=ada)
    simulator.revoke_grant(lost.open_id)
    make_account(open_id="_ends", owner=ada, refresh_token_expires_at=soon())
    mails_by_then: list[int] = []

    def refresh_all(account: BusinessAccount, **kwargs: object) -> None:
        run()
        mails_by_then.append(len(mail.outbox))

    signals.reauthorization_required.connect(refresh_all)
    try:
        services.refresh_due_accounts(within=timedelta(days=2), accounts=[lost])
    finally:
        signals.reauthorization_required.disconnect(refresh_all)
    assert mails_by_then == [0]
    assert len(told()) == 1
    run()
    assert len(told()) == 2


def test_f13_inside_a_transaction_mails_wait_for_the_commit(
    simulator: Simulator, ada: User
) -> None:
    account = connect(simulator, owner=ada)
    make_rejected(open_id="_another", owner=ada)
    simulator.revoke_grant(account.open_id)
    with transaction.atomic():
        send.send_due(BusinessAccount.objects.filter(open_id="_another"))
        assert told() == []
    assert len(told()) == 1
    with transaction.atomic():
        services.refresh_due_accounts(within=timedelta(days=2), accounts=[account])
    assert len(told()) == 2


def test_broken_mail_server_costs_no_token_and_leaves_the_mail_due(
    simulator: Simulator, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    account = connect(simulator, owner=ada)
    lost = connect(simulator, "lost", owner=ada, access_token_expires_at=timezone.now())
    simulator.revoke_grant(lost.open_id)
    with broken_mail_server():
        report = services.refresh_due_accounts(within=timedelta(days=2))
    assert (report.refreshed, report.reauthorization_required) == (1, 1)
    account.refresh_from_db()
    assert simulator.live_tokens(account.open_id) == (account.access_token, account.refresh_token)
    assert f"The notice about {lost.open_id}" in caplog.text
    run()
    assert told() == [], "others go first"
    an_hour_passes()
    run()
    run()
    assert len(told()) == 1


def test_broken_mail_server_is_tried_for_three_accounts(ada: User) -> None:
    for number in range(5):
        make_rejected(open_id=f"_{number}", owner=ada)
    with broken_mail_server():
        run()
    assert Notice.objects.count() == 3
    run()
    assert len(told()) == 2
    an_hour_passes()
    run()
    assert len(set(told())) == 5


@pytest.mark.parametrize("error", [ValueError(), SMTPRecipientsRefused({})])
def test_addresses_that_are_refused_keep_nobody_else_from_being_told(
    ada: User, error: Exception
) -> None:
    for number in range(5):
        make_rejected(open_id=f"_{number}", owner=ada)
    refused = itertools.chain([True] * 4, itertools.repeat(False))

    def refuse() -> None:
        if next(refused):
            raise error

    with at_each_mail(refuse):
        run()
    assert (len(told()), Notice.objects.filter(told_at=None).count()) == (1, 4)


def test_those_who_were_never_told_come_before_those_who_could_not_be(ada: User) -> None:
    first = make_rejected(open_id="_first", owner=ada)
    with broken_mail_server():
        run()
    make_rejected(open_id="_second", owner=ada)
    an_hour_passes()
    run()
    assert ["_second" in text for text in told()] == [True, False]
    assert first.open_id in told()[1]


def test_run_tells_no_longer_than_it_may(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        make_rejected(open_id=f"_{number}", owner=ada)

    def time_is_up() -> None:
        monkeypatch.setattr(send.time, "monotonic", lambda: float("inf"))  # type: ignore[attr-defined]

    with at_each_mail(time_is_up):
        send.send_due(BusinessAccount.objects.using("default"))
    monkeypatch.undo()
    assert len(told()) == 1


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


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT", "Notices that are due were not sent"),
        ("INSERT", "The notice about"),
        ("UPDATE", "The notice about"),
    ],
)
def test_f02_database_that_fails_costs_the_telling_alone(
    simulator: Simulator, ada: User, statement: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    account = connect(simulator, owner=ada)
    with failing(statement, NOTICES):
        reject(account, simulator)
    account.refresh_from_db()
    assert account.status == "reauthorization_required"
    assert said in caplog.text
    assert ": DataError" in caplog.text
    an_hour_passes()
    run()
    assert len(told()) == 1


def test_f02_connection_that_is_lost_after_the_last_token_costs_the_telling_alone(
    simulator: Simulator, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    make_rejected(owner=ada)
    with next_statement("SELECT", OperationalError("The server has gone away.")) as arm:

        def run_out(result: services.RefreshResult) -> None:
            arm()

        connect(simulator, owner=ada)
        report = services.refresh_due_accounts(within=timedelta(days=2), on_result=run_out)
    assert report.refreshed == 1


def test_wrong_setting_costs_the_telling_alone(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    connect(simulator)
    with override_tiktok(NOTIFY="ops@example.com"):
        report = services.refresh_due_accounts(within=timedelta(days=2))
    assert report.refreshed == 1
    assert "Notices that are due were not sent: ConfigurationError" in caplog.text


def test_queue_tells_too(simulator: Simulator, ada: User) -> None:
    """Rejected accounts are in no chunk any more: what failed is told by what hands out."""
    account = connect(simulator, owner=ada, access_token_expires_at=timezone.now())
    simulator.revoke_grant(account.open_id)
    chunks: list[list[int]] = []
    chunks_module.hand_out(chunks.append)
    with broken_mail_server():
        chunks_module.refresh_chunk(chunks[0])
    an_hour_passes()
    chunks_module.hand_out(chunks.append)
    assert (len(chunks), len(told())) == (1, 1)


# The signal


def test_signal_comes_once_for_each_consent_without_mail(simulator: Simulator, ada: User) -> None:
    account = connect(simulator, owner=ada, refresh_token_expires_at=soon())
    with override_tiktok(NOTIFY=[]), listening() as heard:
        run()
        run()
        assert heard == [(account, account.refresh_token_expires_at)]
        connect_again(ada, simulator)
        run()
        BusinessAccount.objects.update(refresh_token_expires_at=soon())
        run()
        assert len(heard) == 2
    assert told() == []


def test_mail_that_fails_does_not_repeat_the_signal(ada: User) -> None:
    make_account(owner=ada, refresh_token_expires_at=soon())
    with listening() as heard:
        with broken_mail_server():
            run()
        an_hour_passes()
        run()
    assert (len(heard), len(told())) == (1, 1)


def test_receiver_that_raises_keeps_nobody_from_being_told(ada: User) -> None:
    def complain(**kwargs: object) -> None:
        raise LookupError

    make_account(owner=ada, refresh_token_expires_at=soon())
    signals.consent_ends_soon.connect(complain)
    try:
        with listening() as heard:
            run()
    finally:
        signals.consent_ends_soon.disconnect(complain)
    assert (len(heard), len(told())) == (1, 1)


def test_who_begins_to_listen_or_to_mail_is_told_what_is_due_by_then(ada: User) -> None:
    make_account(owner=ada, refresh_token_expires_at=soon())
    with override_tiktok(NOTIFY=[]):
        run()
        with listening() as heard:
            run()
    run()
    assert (len(heard), len(told())) == (1, 1)
