"""What a `BusinessAccount` knows about itself."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import FieldError, ValidationError
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount, Health
from tests.support.account_states import APP_ID, DAY, HOUR, unsaved
from tests.support.factories import make_account, make_user
from tests.support.simulator import override_tiktok

ACCESS = "act.models-Aa11!4711.e1"
REFRESH = "rft.models-Bb22!4712.e1"
Status = BusinessAccount.Status
rows = BusinessAccount.objects
pytestmark = pytest.mark.django_db


def test_row_can_be_created_with_plain_tokens_alone() -> None:
    account = rows.create(app_id=APP_ID, open_id="o", access_token=ACCESS, refresh_token=REFRESH)
    account = rows.get(pk=account.pk)
    assert (account.access_token, account.refresh_token) == (ACCESS, REFRESH)
    assert account.status == Status.ACTIVE
    assert account.scopes == []
    assert account.access_token_expires_at is None
    assert account.is_verified is None
    assert account.followers_count is None
    assert account.last_error_code is None
    assert account.consecutive_failures == account.credentials_version == 0
    assert account.claim_id == account.bio == account.last_error_message == ""
    account.full_clean()


def test_account_is_one_row_per_app_and_open_id() -> None:
    account = make_account()
    make_account(app_id="7000000000000000002")
    with pytest.raises(IntegrityError), transaction.atomic():
        make_account()
    with pytest.raises(ValidationError, match="already exists"):
        unsaved(open_id=account.open_id).full_clean()
    assert rows.count() == 2


SIMILAR = ["_000AbC", "_000abc", "_000ABC", "_000Äbc", "_000Abc"]


def test_open_id_is_verbatim_and_case_sensitive() -> None:
    for open_id in SIMILAR:
        make_account(open_id=open_id)
        unsaved(open_id=f"{open_id}2").full_clean()
    for open_id in SIMILAR:
        assert rows.get(open_id=open_id).open_id == open_id
        assert rows.filter(open_id__in=[open_id]).count() == 1
        assert rows.exclude(open_id=open_id).count() == len(SIMILAR) - 1
        assert rows.get_or_create(app_id=APP_ID, open_id=open_id)[1] is False
    assert not rows.filter(open_id="_000aBC").exists()
    assert rows.get_or_create(app_id=APP_ID, open_id="_000aBC")[1] is True
    with pytest.raises(IntegrityError), transaction.atomic():
        make_account(open_id="_000AbC")


def test_app_id_is_case_sensitive() -> None:
    make_account(app_id="App")
    make_account(app_id="app")
    assert rows.filter(app_id="app").count() == 1


def test_names_in_any_script_are_stored() -> None:
    name = "Bäckerei 🥐 パン屋 \u202emoc.live"
    account = make_account(display_name=name, bio=name)
    account.refresh_from_db()
    assert account.display_name == account.bio == name


def test_account_outlives_its_owner() -> None:
    user = make_user()
    account = make_account(owner=user)
    assert user.tiktok_business_accounts.get() == account
    user.delete()
    account.refresh_from_db()
    assert account.owner is None
    assert account.access_token == "act.test-access-token"


def test_migrations_are_complete() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.parametrize(
    ("names", "label"),
    [
        ({"display_name": "Harbour Bakery", "username": "harbour"}, "Harbour Bakery"),
        ({"username": "harbour"}, "@harbour"),
        ({"display_name": "5", "username": "harbour"}, "5"),
        ({"display_name": "\N{OWL}", "username": "harbour"}, "\N{OWL}"),
        ({"display_name": " ", "username": "harbour"}, "@harbour"),
        ({"display_name": "\N{ZERO WIDTH SPACE}\N{WORD JOINER}", "username": "u"}, "@u"),
        ({"display_name": "\N{RIGHT-TO-LEFT OVERRIDE}"}, "_000Open"),
        ({"display_name": "\N{HANGUL FILLER}\N{BRAILLE PATTERN BLANK}"}, "_000Open"),
        ({}, "_000Open"),
    ],
)
def test_label_is_the_best_name_there_is(names: dict[str, str], label: str) -> None:
    assert unsaved(**names).label == label
    assert str(unsaved(**names)) == f"{label} (_000Open)"


def test_bio_is_read_line_by_line_without_invisible_characters() -> None:
    account = unsaved(
        bio=" Bread\u200b \n\N{RIGHT-TO-LEFT OVERRIDE}and \N{CROISSANT}\r\n\nsince 1921\n"
    )
    assert account.bio_lines == ["Bread", "and \N{CROISSANT}", "", "since 1921"]
    assert unsaved().bio_lines == []


def test_f31_neither_names_nor_pickles_nor_history_hold_a_token() -> None:
    account = make_account(
        access_token=ACCESS, refresh_token=REFRESH, display_name="Harbour Bakery"
    )
    account.access_token = ACCESS
    LogEntry.objects.log_actions(make_user().pk, [account], CHANGE, "changed", single_object=True)
    entry = LogEntry.objects.get()
    assert entry.object_repr == f"Harbour Bakery ({account.open_id})"
    shown = [str(account), repr(account), f"{vars(account)}", f"{vars(entry)}", f"{[account]}"]
    shown.append(pickle.dumps(account).decode("latin-1"))
    for text in shown:
        assert ACCESS not in text
        assert REFRESH not in text


def test_tokens_can_be_encrypted_for_encrypted_columns_alone() -> None:
    assert repr(unsaved().encrypt("refresh_token", REFRESH)) == "<encrypted>"
    with pytest.raises(FieldError, match="bio is not encrypted"):
        unsaved().encrypt("bio", REFRESH)


@pytest.mark.parametrize(
    ("left", "period", "is_valid"),
    [
        (HOUR, timedelta(0), True),
        (HOUR, HOUR - timedelta(minutes=1), True),
        (HOUR, HOUR, False),
        (-HOUR, timedelta(0), False),
    ],
)
def test_access_token_is_valid_for_what_it_has_left(
    left: timedelta, period: timedelta, is_valid: bool
) -> None:
    account = unsaved(access_token_expires_at=timezone.now() + left)
    assert account.is_access_token_valid_for(period) is is_valid


def test_f17_unknown_expiry_is_not_valid() -> None:
    assert unsaved().is_access_token_valid_for(timedelta(0)) is False


def test_f17_naive_expiry_is_unknown() -> None:
    naive = datetime.now(UTC).replace(tzinfo=None) + 99 * DAY
    account = unsaved(access_token_expires_at=naive, refresh_token_expires_at=naive)
    assert account.is_access_token_valid_for(timedelta(0)) is False
    assert account.health == Health.HEALTHY
    account.refresh_token_expires_at = naive - 999 * DAY
    assert account.health == Health.HEALTHY


@pytest.mark.parametrize(
    ("configured", "is_other"), [(APP_ID, False), ("7000000000000000002", True), (None, False)]
)
def test_account_of_another_app_is_recognised_while_the_app_is_known(
    configured: str | None, is_other: bool
) -> None:
    with override_tiktok(APP_ID=configured):
        assert unsaved(app_id=APP_ID).is_of_another_app is is_other


def test_missing_scopes_are_those_asked_for_and_not_granted() -> None:
    account = unsaved(scopes=["video.list", "user.insights", "biz.spark.auth"])
    with override_tiktok(SCOPES=["video.list", "video.insights", "user.info.basic"]):
        assert account.missing_scopes == ["user.info.basic", "video.insights"]
        account.scopes = ["video.list", "video.insights", "user.info.basic"]
        assert account.missing_scopes == []


@pytest.mark.parametrize(
    "url",
    [
        "https://vm.tiktok.com/SIMabc123/",
        "https://www.tiktok.com/@harbour_bakery?is_from_webapp=1",
        "https://tiktok.com/@harbour_bakery",
        "HTTPS://WWW.TIKTOK.COM/@harbour_bakery",
    ],
)
def test_profile_link_is_tiktoks_own(url: str) -> None:
    assert unsaved(profile_url=url, username="harbour_bakery").profile_link == url


UNSAFE_URLS = [
    "",
    "javascript:alert(1)",
    "javascript://www.tiktok.com/%0aalert(1)",
    "java\nscript://www.tiktok.com/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "//www.tiktok.com/@x",
    "www.tiktok.com/@x",
    "/@x",
    "https:www.tiktok.com",
    "https:///www.tiktok.com",
    "http://www.tiktok.com/@x",
    "https://[::1",
    "https://[www.tiktok.com]/",
    "https://www.tiktok.com\\@evil.example/",
    "https://evil.example\\@www.tiktok.com/",
    "https://evil.example\\.tiktok.com/",
    "https://user@www.tiktok.com/",
    "https://www.tiktok.com@evil.example/",
    "https://evil.example\t.tiktok.com/",
    "https://evil.example .tiktok.com/",
    " https://www.tiktok.com/",
    "https://www.tiktok.com/\u202egpj.exe",
    "https://\ud800.tiktok.com/",
    "ftp://www.tiktok.com/",
    "https://",
]


FOREIGN_URLS = [
    "https://evil.example/@harbour_bakery",
    "https://tiktok.com.evil.example/",
    "https://eviltiktok.com/",
    "https://evil.example/https://www.tiktok.com/",
    "https://evil.example?x=.tiktok.com",
    "https://evil.example#.tiktok.com",
    "https://ｔiktok.com/",
]


@pytest.mark.parametrize("url", [*UNSAFE_URLS, *FOREIGN_URLS])
def test_profile_link_goes_nowhere_else(url: str) -> None:
    assert unsaved(profile_url=url).profile_link == ""
    by_name = unsaved(profile_url=url, username="harbour_bakery").profile_link
    assert by_name == "https://www.tiktok.com/@harbour_bakery"


@pytest.mark.parametrize(
    ("username", "path"),
    [
        ("a.b_c", "a.b_c"),
        ('"><script>', "%22%3E%3Cscript%3E"),
        ("../../login?next=//evil.example#", "..%2F..%2Flogin%3Fnext%3D%2F%2Fevil.example%23"),
        ("bäcker", "b%C3%A4cker"),
    ],
)
def test_username_cannot_leave_the_path_of_the_link(username: str, path: str) -> None:
    assert unsaved(username=username).profile_link == f"https://www.tiktok.com/@{path}"


PICTURE = "https://p16-sign-va.tiktokcdn.com/tos-sim-avt-0068/aa11~c5_168x168.jpeg"


def in_seconds(delta: timedelta) -> int:
    return int((timezone.now() + delta).timestamp())


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?x-signature=SIMsig%3D",
        # With an id, so that each process collects it under the same name.
        pytest.param(f"?x-expires={in_seconds(99 * DAY)}&x-signature=SIMsig%3D", id="in 99 days"),
        "?x-expires=&x-signature=s",
        "?x-expires=soon",
        "?x-expires=-1",
        "?x-expires=1e3",
        "?x-expires=99999999999999999999999",
    ],
)
def test_picture_is_shown_until_its_address_expires(query: str) -> None:
    assert unsaved(profile_image_url=PICTURE + query).picture_url == PICTURE + query


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(f"?x-expires={in_seconds(-HOUR)}&x-signature=SIMsig%3D", id="an hour ago"),
        "?x-expires=0",
        "?x-expires=1&x-expires=99999999999",
        "?x-expires=١٢",
        f"?x-expires={'9' * 5000}",  # more digits than Python converts
    ],
)
def test_picture_whose_address_has_expired_is_not_shown(query: str) -> None:
    assert unsaved(profile_image_url=PICTURE + query).picture_url == ""


@pytest.mark.parametrize("url", UNSAFE_URLS)
def test_picture_comes_over_https_alone(url: str) -> None:
    assert unsaved(profile_image_url=url).picture_url == ""


def test_picture_of_the_simulator_needs_no_https() -> None:
    url = "http://127.0.0.1:8420/pictures/harbour_bakery.svg"
    assert unsaved(profile_image_url=url).picture_url == ""
    with override_tiktok(API_BASE_URL="http://127.0.0.1:8420/open_api/v1.3"):
        assert unsaved(profile_image_url=url).picture_url == url
        assert unsaved(profile_image_url=f"{url}?x-expires=1").picture_url == ""
        for other in (
            "javascript://127.0.0.1:8420/%0aalert(1)",
            "http://127.0.0.1:8421/pictures/x.svg",
            "http://127.0.0.1/pictures/x.svg",
            "//127.0.0.1:8420/pictures/x.svg",
            "http://127.0.0.1:8420@evil.example/x.svg",
        ):
            assert unsaved(profile_image_url=other).picture_url == ""


@pytest.mark.parametrize("scheme", ["javascript", "http", "data", "ftp"])
def test_picture_of_the_api_host_is_no_exception(scheme: str) -> None:
    url = f"{scheme}://business-api.tiktok.com/%0aalert(1)"
    assert unsaved(profile_image_url=url).picture_url == ""
