"""What a `BusinessAccount` knows about itself, and which rows its queries find."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import FieldError, ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import F, QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount, Health
from django_tiktok_business.models.health import health_in_database
from tests.support.factories import make_account, make_user
from tests.support.simulator import override_tiktok

ACCESS = "act.models-Aa11!4711.e1"
REFRESH = "rft.models-Bb22!4712.e1"
APP_ID = "7000000000000000001"
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
Status = BusinessAccount.Status

rows = BusinessAccount.objects
pytestmark = pytest.mark.django_db


def unsaved(**values: Any) -> BusinessAccount:
    return BusinessAccount(**{"app_id": APP_ID, "open_id": "_000Open", **values})


# Rows


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


# Names


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


# Expiry


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


# Health, one by one and as queries


@pytest.mark.parametrize(
    ("values", "health"),
    [
        ({}, Health.HEALTHY),
        ({"refresh_token_expires_at": None}, Health.HEALTHY),
        ({"access_token_expires_at": None}, Health.HEALTHY),
        ({"consecutive_failures": 1}, Health.RETRYING),
        ({"status": Status.REAUTHORIZATION_REQUIRED}, Health.RECONNECT_NEEDED),
        ({"status": Status.REVOKED, "consecutive_failures": 4}, Health.REVOKED),
    ],
)
def test_health_follows_the_state(values: dict[str, Any], health: Health) -> None:
    assert make_account(**values).health == health


@pytest.mark.parametrize(
    ("left", "health"),
    [
        (-DAY, Health.RECONNECT_NEEDED),
        (29 * DAY, Health.EXPIRES_SOON),
        (31 * DAY, Health.HEALTHY),
    ],
)
def test_f18_end_of_the_consent_is_told_early(left: timedelta, health: Health) -> None:
    account = make_account(refresh_token_expires_at=timezone.now() + left)
    assert account.health == health
    assert rows.in_health(health).get() == account
    assert rows.needs_attention().exists() is (health != Health.HEALTHY)
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=0):
        assert account.health == (
            Health.RECONNECT_NEEDED if left < timedelta(0) else Health.HEALTHY
        )


@pytest.mark.parametrize("column", ["access_token", "refresh_token"])
def test_f22_unreadable_account_says_so(column: str) -> None:
    account = make_account()
    stranger = make_account(open_id="stranger")
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE tiktok_business_businessaccount SET {column} = 'x' WHERE id = %s", [account.pk]
        )
    listed = {row.pk: row.health for row in rows.all()}
    assert listed == {account.pk: Health.UNDECRYPTABLE, stranger.pk: Health.HEALTHY}


@pytest.mark.parametrize("keys", [["models-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"], "no list"])
def test_f22_without_the_key_every_account_says_so(keys: Any) -> None:
    account = make_account()
    make_account(open_id="blank", access_token="", refresh_token="")
    with override_tiktok(ENCRYPTION_KEYS=keys):
        assert [row.health for row in rows.order_by("pk")] == [
            Health.UNDECRYPTABLE,
            Health.HEALTHY,
        ]
        assert not rows.get(pk=account.pk).is_decryptable()


def every_state() -> Iterator[BusinessAccount]:
    """One row for each combination of what decides about health and due time."""
    now = timezone.now()
    access_ends = [None, now - DAY, now + HOUR, now + DAY]
    consent_ends = [None, now - DAY, now + 10 * DAY, now + 300 * DAY]
    combinations = itertools.product(Status, access_ends, consent_ends, [0, 1, 9])
    for number, (status, access, consent, failures) in enumerate(combinations):
        yield unsaved(
            open_id=f"account {number}",
            status=status,
            access_token_expires_at=access,
            refresh_token_expires_at=consent,
            consecutive_failures=failures,
        )


def open_ids(accounts: Any) -> set[str]:
    return {account.open_id for account in accounts}


@pytest.mark.parametrize("warning_days", [0, 5, 30, 365])
def test_f22_query_by_health_finds_the_accounts_of_that_health(warning_days: int) -> None:
    accounts = rows.bulk_create(every_state())
    with override_tiktok(REAUTHORIZATION_WARNING_DAYS=warning_days):
        for health in Health:
            expected = open_ids(account for account in accounts if account.health == health)
            assert open_ids(rows.in_health(health)) == expected
            assert open_ids(rows.in_health(health.value)) == expected
        found = [account for health in Health for account in rows.in_health(health)]
    assert len(found) == len(accounts) == 144


def test_f22_query_by_health_finds_tokens_under_keys_that_are_not_configured() -> None:
    account, other = make_account(), make_account(open_id="other", refresh_token="")
    make_account(open_id="blank", access_token="", refresh_token="")
    make_account(open_id="gone", status=Status.REVOKED)
    for keys in (["models-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"], "no list"):
        with override_tiktok(ENCRYPTION_KEYS=keys):
            assert set(rows.in_health(Health.UNDECRYPTABLE)) == {account, other}
            assert open_ids(rows.in_health(Health.HEALTHY)) == {"blank"}
            listed = dict(rows.values_list("open_id", health_in_database()))
            assert listed[account.open_id] == listed["other"] == Health.UNDECRYPTABLE
            assert (listed["blank"], listed["gone"]) == (Health.HEALTHY, Health.REVOKED)
    assert not rows.in_health(Health.UNDECRYPTABLE).exists()


@pytest.mark.parametrize("column", ["access_token", "refresh_token"])
def test_f22_query_by_health_goes_by_the_key_and_not_by_what_is_behind_it(column: str) -> None:
    account, damaged = make_account(), make_account(open_id="damaged")
    key_id = account.stored()[column].key_id
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE tiktok_business_businessaccount SET {column} = %s WHERE id = %s",
            [f"ttb1:{key_id}:AAAA", damaged.pk],
        )
    assert set(rows.in_health(Health.HEALTHY)) == {account, damaged}
    assert {row.health for row in rows.without_tokens()} == {Health.HEALTHY}
    assert rows.get(pk=damaged.pk).health is Health.UNDECRYPTABLE
    loaded = rows.without_tokens().get(pk=damaged.pk)
    loaded.refresh_from_db(fields=["access_token", "refresh_token"])
    assert loaded.health is Health.UNDECRYPTABLE


def test_accounts_without_tokens_know_their_health_and_load_no_token() -> None:
    rows.bulk_create(every_state())
    with CaptureQueriesContext(connection) as queries:
        listed = {row.open_id: row.health for row in rows.without_tokens()}
    assert len(queries) == 1
    assert listed == {row.open_id: row.health for row in rows.all()}
    quote = connection.ops.quote_name
    selected = queries[0]["sql"].partition(" FROM ")[0]
    for column in ("access_token", "refresh_token"):
        bare = f"{quote(BusinessAccount._meta.db_table)}.{quote(column)}"
        assert selected.count(bare) == selected.count(f"({bare}, 1, 14)") == 1


def test_health_in_the_database_is_that_of_the_account() -> None:
    rows.bulk_create(every_state())
    found = dict(rows.values_list("open_id", health_in_database()))
    assert found == {row.open_id: row.health for row in rows.all()}


@pytest.mark.parametrize(
    ("values", "is_overdue"),
    [
        ({"access_token_expires_at": timezone.now() - 2 * HOUR}, True),
        ({"access_token_expires_at": timezone.now() - HOUR / 2}, False),
        ({"access_token_expires_at": None}, False),
        ({"next_attempt_at": timezone.now() + HOUR}, False),
        ({"next_attempt_at": timezone.now() - HOUR / 2}, False),
        ({"next_attempt_at": timezone.now() - 2 * HOUR, "consecutive_failures": 7}, True),
        ({"refresh_token_expires_at": timezone.now() - DAY}, False),
        ({"refresh_token_expires_at": None}, True),
        ({"status": Status.REVOKED}, False),
        ({"status": Status.REAUTHORIZATION_REQUIRED}, False),
        ({"app_id": "7000000000000000002"}, False),
    ],
)
def test_overdue_are_accounts_that_a_batch_should_have_refreshed(
    values: dict[str, Any], is_overdue: bool
) -> None:
    make_account(**{"access_token_expires_at": timezone.now() - 2 * HOUR, **values})
    assert rows.overdue().exists() is is_overdue
    with override_tiktok(ENCRYPTION_KEYS=["models-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"]):
        assert not rows.overdue().exists()


def test_query_by_health_refuses_an_unknown_one() -> None:
    with pytest.raises(ValueError, match="poorly"):
        rows.in_health("poorly")


@pytest.mark.parametrize("within", [timedelta(0), 6 * HOUR, 2 * DAY])
def test_f17_due_are_the_active_accounts_that_expire_or_may(within: timedelta) -> None:
    accounts = rows.bulk_create(every_state())
    limit = timezone.now() + within
    expected = open_ids(
        account
        for account in accounts
        if account.status == Status.ACTIVE
        and (account.access_token_expires_at is None or account.access_token_expires_at <= limit)
    )
    assert open_ids(rows.due_for_refresh(within)) == expected
    assert open_ids(rows.filter(consecutive_failures=0).due_for_refresh(within=within)) < expected


def test_f18_attention_is_needed_where_only_a_person_can_help() -> None:
    accounts = rows.bulk_create(every_state())
    soon = timezone.now() + 30 * DAY
    assert open_ids(rows.needs_attention()) == open_ids(
        account
        for account in accounts
        if account.health in (Health.RECONNECT_NEEDED, Health.EXPIRES_SOON)
        or (
            account.health == Health.RETRYING
            and account.refresh_token_expires_at is not None
            and account.refresh_token_expires_at <= soon
        )
    )


def test_active_accounts_are_those_that_are_renewed() -> None:
    accounts = rows.bulk_create(every_state())
    assert open_ids(rows.active()) == open_ids(
        account for account in accounts if account.status == Status.ACTIVE
    )


@pytest.mark.parametrize("name", ["active", "needs_attention"])
def test_queries_are_lazy(name: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        getattr(rows, name)()
        rows.due_for_refresh(HOUR)
        for health in Health:
            rows.in_health(health)
    assert len(queries) == 0


def plan(queryset: QuerySet[BusinessAccount]) -> str:
    return queryset.explain()


@pytest.fixture
def many_accounts() -> None:
    """Enough rows for PostgreSQL to prefer an index, of which a few are due or ending."""
    now = timezone.now()
    rows.bulk_create(
        unsaved(
            open_id=f"account {number}",
            status=Status.REAUTHORIZATION_REQUIRED if number % 500 == 1 else Status.ACTIVE,
            access_token_expires_at=now + (HOUR if number % 500 == 2 else 20 * HOUR),
            refresh_token_expires_at=now + (DAY if number % 500 == 3 else 300 * DAY),
            consecutive_failures=0,
            bio="Bread " * 20,
        )
        for number in range(5000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tiktok_business_businessaccount")


@pytest.mark.databases("postgresql")
@pytest.mark.usefixtures("many_accounts")
def test_due_attention_and_newest_queries_use_an_index() -> None:
    due = rows.filter(app_id=APP_ID).due_for_refresh(6 * HOUR)
    assert due.count() == rows.needs_attention().count() / 2 == 10
    for queryset, index in (
        (due, "tiktok_business_due"),
        (due.order_by("access_token_expires_at", "pk")[:100], "tiktok_business_due"),
        (rows.needs_attention(), "tiktok_business_attention"),
        (rows.in_health(Health.RECONNECT_NEEDED), "tiktok_business_attention"),
        (
            rows.order_by(F("connected_at").desc(nulls_last=True), "-pk")[:100],
            "tiktok_business_newest",
        ),
    ):
        assert index in plan(queryset)
        assert "Seq Scan" not in plan(queryset)


def test_indexes_and_constraint_are_in_the_database() -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "tiktok_business_businessaccount")
    due = ["app_id", "status", "access_token_expires_at", "id"]
    assert found["tiktok_business_due"]["columns"] == due
    assert found["tiktok_business_attention"]["columns"] == ["status", "refresh_token_expires_at"]
    assert found["tiktok_business_newest"]["columns"] == ["connected_at", "id"]
    assert found["tiktok_business_newest"]["orders"] == ["DESC", "DESC"]
    unique = found["tiktok_business_one_row_per_account"]
    assert (unique["columns"], unique["unique"]) == (["app_id", "open_id"], True)


# What TikTok says


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
        # Named, so that each process collects it under the same name.
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
