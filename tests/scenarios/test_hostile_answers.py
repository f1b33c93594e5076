"""Any answer of TikTok leads to a typed error, old or new tokens, and pages that still work.

Properties (see `tests.support.hostile`); the answers come in process. What takes a real
connection is in test_hostile_servers.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from hypothesis import example, given
from hypothesis import strategies as st

from django_tiktok_business import services
from django_tiktok_business.exceptions import TikTokBusinessError
from django_tiktok_business.models import BusinessAccount
from tests.support import hostile, servers
from tests.support.factories import make_account, make_user
from tests.support.hostile import (
    HEADERS,
    STATUSES_WITH_BODY,
    Reply,
    answering,
    case,
    cases,
    replies,
)
from tests.support.simulator_calls import REDIRECT_URI

pytestmark = [pytest.mark.django_db, pytest.mark.once]

OLD = ("act.old-access-token", "rft.old-refresh-token")
OPEN_ID = "_000TestOpenId0001"
GRANT = {
    "access_token": "act.new-access-token",
    "refresh_token": "rft.new-refresh-token",
    "token_type": "Bearer",
    "expires_in": 86400,
    "refresh_token_expires_in": 31536000,
    "open_id": OPEN_ID,
    "scope": "video.list,user.info.basic",
}
PROFILE = {
    "display_name": "Harbour Bakery",
    "username": "harbour_bakery",
    "profile_image": "https://p16-sign.tiktokcdn.com/a.jpeg?x-expires=1795000000",
    "profile_deep_link": "https://www.tiktok.com/@harbour_bakery",
    "bio_description": "Bread.",
    "is_verified": True,
    "is_business_account": True,
    "followers_count": 1532,
    "following_count": 3,
    "total_likes": 63,
    "videos_count": 12,
}
TOKEN_INFO = {"app_id": "7", "creator_id": OPEN_ID, "scope": "user.info.basic,video.list"}
TEXTS = ("username", "display_name", "profile_image_url", "profile_url", "bio")
COUNTS = ("followers_count", "following_count", "likes_count", "videos_count")

# Found once, tried in every run.
GRANTED = servers.envelope(data=GRANT)
BACKSLASHES = Reply(servers.envelope(40100, message="\\" * 500_000))
ODD_DATE = {"Retry-After": "Mon, 01 Jan 0001 00:00:00 +2359"}


@pytest.fixture(autouse=True)
def _hostile_tiktok() -> Iterator[None]:
    with hostile.from_hostile_tiktok():
        yield


@pytest.fixture
def admin() -> User:
    return make_user("admin", is_staff=True, is_superuser=True)


@pytest.fixture
def visitor(admin: User) -> Client:
    """A client of somebody who may see everything."""
    client = Client()
    client.force_login(admin)
    return client


@pytest.fixture
def account() -> BusinessAccount:
    return make_account(
        open_id=OPEN_ID,
        access_token=OLD[0],
        refresh_token=OLD[1],
        access_token_expires_at=timezone.now() - timedelta(minutes=1),
        scopes=["user.info.basic", "user.info.profile", "user.info.stats", "user.info.username"],
    )


def in_row(account: BusinessAccount) -> BusinessAccount:
    return BusinessAccount.objects.get(pk=account.pk)


def pair_of(account: BusinessAccount) -> tuple[str, str]:
    return account.access_token, account.refresh_token


def given_by(reply: Reply) -> tuple[str, str] | None:
    """The pair that an answer issues in place of the old one; None if the answer is no success."""
    envelope = hostile.envelope_in(reply)
    data = envelope.get("data")
    if hostile.code_of(envelope) not in (0, 20001) or not isinstance(data, dict):
        return None
    return data.get("access_token", ""), data.get("refresh_token") or OLD[1]


LIST = "/tiktok/"
ADMIN_LIST = "/admin/tiktok_business/businessaccount/"
ADMIN = f"{ADMIN_LIST}%d/change/"


def assert_sound(account: BusinessAccount, visitor: Client, *pages: str) -> None:
    """What is stored fits in every database, and the pages can show it."""
    now = timezone.now()
    for instant in (account.access_token_expires_at, account.refresh_token_expires_at):
        assert instant is None or abs(instant - now) <= timedelta(days=3660)
    for name in (*TEXTS, "last_error_message", "last_error_request_id"):
        text = getattr(account, name)
        assert "\0" not in text
        text.encode()
    assert len(account.last_error_message) <= 500
    assert len(account.last_error_request_id) <= 100
    for name in COUNTS:
        assert getattr(account, name) is None or 0 <= getattr(account, name) < 2**63
    assert all(isinstance(scope, str) and scope for scope in account.scopes)
    for path in pages:
        page = visitor.get(path.replace("%d", str(account.pk)))
        assert page.status_code == 200
        assert "<script>alert" not in page.content.decode()


def outcome_of(call: Callable[[], Any]) -> Any:
    """What a service returned, or our own error that it raised; any other error passes through."""
    try:
        return call()
    except TikTokBusinessError as error:
        return error


REFRESHES: dict[str, Callable[[BusinessAccount, threading.Event], Any]] = {
    "refresh_account": lambda account, _: services.refresh_account(account),
    "get_access_token": lambda account, _: services.get_access_token(account),
    "refresh_due_accounts": lambda _, asked: services.refresh_due_accounts(stop=asked),
}


@cases(80)
@given(reply=replies(GRANT), service=st.sampled_from(sorted(REFRESHES)))
@example(BACKSLASHES, "refresh_account")
@example(Reply(GRANTED, headers=ODD_DATE), "refresh_due_accounts")
def test_refresh_ends_with_the_old_pair_or_the_one_that_the_answer_gave(
    account: BusinessAccount, visitor: Client, reply: Reply, service: str
) -> None:
    with case(), answering({"": reply}) as asked:
        outcome_of(lambda: REFRESHES[service](in_row(account), asked))
        row = in_row(account)
        assert pair_of(row) in (OLD, given_by(reply))
        code = hostile.code_of(hostile.envelope_in(reply))
        is_rejected = row.status == BusinessAccount.Status.REAUTHORIZATION_REQUIRED
        assert is_rejected == (code in (40103, 40107, 40131) and pair_of(row) == OLD)
        assert row.claim_id == ""
        assert_sound(row, visitor, ADMIN)


@cases(40)
@given(status=STATUSES_WITH_BODY, headers=HEADERS, service=st.sampled_from(sorted(REFRESHES)))
@example(200, ODD_DATE, "refresh_account")
def test_headers_and_status_never_cost_a_pair_that_was_given(
    account: BusinessAccount, status: int, headers: dict[str, str], service: str
) -> None:
    reply = Reply(GRANTED, status, headers)
    with case(), answering({"": reply}) as asked:
        outcome_of(lambda: REFRESHES[service](in_row(account), asked))
        row = in_row(account)
        assert pair_of(row) == given_by(reply) == (GRANT["access_token"], GRANT["refresh_token"])
        assert row.last_error_message == ""


@cases(80)
@given(reply=replies(GRANT))
@example(BACKSLASHES)
@example(Reply(GRANTED))
def test_connecting_stores_the_pair_that_the_answer_gave_or_nothing(
    admin: User, visitor: Client, reply: Reply
) -> None:
    with case(), answering({"": reply}):
        outcome = outcome_of(
            lambda: services.connect_account(admin, code="*0!5413", redirect_uri=REDIRECT_URI)
        )
        rows = list(BusinessAccount.objects.all())
        assert len(rows) == isinstance(outcome, BusinessAccount)
        for row in rows:
            assert pair_of(row) == given_by(reply)
            assert row.status == BusinessAccount.Status.ACTIVE
            assert_sound(row, visitor, LIST)


@cases(60)
@given(
    profile=replies(PROFILE),
    other=st.one_of(replies(TOKEN_INFO), replies(GRANT)),
    valid_for=st.sampled_from([timedelta(hours=20), timedelta(seconds=-1)]),
)
@example(BACKSLASHES, Reply(GRANTED), timedelta(hours=20))
@example(Reply(servers.envelope(40105)), Reply(servers.envelope(40107)), timedelta(hours=20))
@example(Reply(servers.envelope(data=PROFILE)), Reply(b""), timedelta(hours=20))
def test_profile_that_is_synced_never_touches_what_it_is_not_about(
    account: BusinessAccount, visitor: Client, profile: Reply, other: Reply, valid_for: timedelta
) -> None:
    with case(), answering({"/business/get/": profile, "": other}):
        BusinessAccount.objects.update(access_token_expires_at=timezone.now() + valid_for)
        outcome = outcome_of(lambda: services.sync_profile(in_row(account)))
        row = in_row(account)
        assert (row.profile_synced_at is None) == (outcome is not None and outcome != row)
        assert pair_of(row) in (OLD, given_by(other))
        codes = [hostile.code_of(hostile.envelope_in(reply)) for reply in (profile, other)]
        if row.status != BusinessAccount.Status.ACTIVE:
            assert {40102, 40103, 40105, 40107, 40131}.intersection(codes)
        assert_sound(row, visitor, LIST, ADMIN_LIST, ADMIN)
