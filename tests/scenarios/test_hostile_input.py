"""No input of visitors, databases or command lines crashes us or wrongly changes an account.

Properties; see `tests.support.hostile`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, quote_from_bytes

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from hypothesis import example, given
from hypothesis import strategies as st

from django_tiktok_business import services
from django_tiktok_business.checks.encryption import check_stored_tokens
from django_tiktok_business.encryption import cipher
from django_tiktok_business.exceptions import DecryptionError
from django_tiktok_business.management.commands.refresh_tokens import EVER, Command
from django_tiktok_business.models import BusinessAccount
from tests.scenarios.test_hostile_answers import GRANT
from tests.support import hostile, servers
from tests.support.factories import make_account, make_user
from tests.support.hostile import Reply, answering, case, cases
from tests.support.visits import CALLBACK, LIST, leave, value_in

# SQLite only: the others refuse to store what is tried here.
pytestmark = [pytest.mark.django_db, pytest.mark.databases("sqlite"), pytest.mark.once]

ADMIN = "/admin/tiktok_business/businessaccount/"
MARKUP = "<b id=hostile>"


@pytest.fixture
def user() -> User:
    return make_user("ada", is_staff=True, is_superuser=True)


@pytest.fixture
def client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


# The callback

_NAMES = st.sampled_from(
    [*("code", "auth_code", "state", "scopes", "error", "error_code", "error_description"), "next"]
)
_QUERY_TEXTS = st.one_of(
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=20),
    st.sampled_from(
        [
            *(
                MARKUP.encode(),
                b"%3Cb+id%3Dhostile%3E",
                b"\0",
                b"%00",
                b"\xed\xa0\x80",
                b"%",
                b"%u00",
            ),
            *(b"a" * 100_000, b"&" * 90, b"=", b";", b"'\"><", b"\r\nSet-Cookie: a=b", b"%FF"),
        ]
    ),
)
_PARAMETERS = st.lists(
    st.tuples(_NAMES.map(str.encode) | _QUERY_TEXTS, _QUERY_TEXTS, st.booleans()), max_size=5
).map(
    lambda parameters: b"&".join(
        name + b"=" + (quote_from_bytes(value).encode() if is_quoted else value)
        for name, value, is_quoted in parameters
    )
)
QUERIES = (_PARAMETERS | st.binary(max_size=60)).map(lambda query: query.decode("latin-1"))
# Without "base64" and the like: Django fails on them before it resolves the view.
CONTENT_TYPES = st.sampled_from(
    [
        *("", "text/html; charset=utf-16", "text/plain; charset=utf-7", "a/b; charset=latin-1"),
        *("a/b; charset=none", ";;;", "multipart/form-data", "a/b; charset="),
    ]
)
GRANTED = {"/oauth2/token/": Reply(servers.envelope(data=GRANT)), "": Reply(b"")}


@cases(60)
@given(query=QUERIES, content_type=CONTENT_TYPES, is_logged_in=st.booleans())
@example("&" * 2_000 + "code=a&state=b", "", True)
def test_callback_survives_any_query_and_the_attempt_survives_it(
    client: Client, query: str, content_type: str, is_logged_in: bool
) -> None:
    with case(), hostile.from_hostile_tiktok(), answering(GRANTED):
        state = value_in(leave(client), "state")
        browser = client if is_logged_in else Client()
        page = browser.get(CALLBACK, QUERY_STRING=query, CONTENT_TYPE=content_type)
        assert 400 <= page.status_code < 500
        assert MARKUP not in page.content.decode()
        assert not BusinessAccount.objects.exists()
        page = client.get(CALLBACK, {"state": state, "code": "*0!5413"})
        assert page.status_code == 302
        assert BusinessAccount.objects.get().access_token == GRANT["access_token"]


@cases(40)
@given(query=QUERIES, other=QUERIES)
@example("", "code=*0!5413")
@example("", "")
def test_right_state_with_any_query_connects_with_a_code_alone(
    client: Client, query: str, other: str
) -> None:
    with case(), hostile.from_hostile_tiktok(), answering(GRANTED):
        state = value_in(leave(client), "state")
        page = client.get(CALLBACK, QUERY_STRING=f"{query}&state={state}&{other}")
        # A refusal is not an error.
        assert page.status_code in (200, 302) or 400 <= page.status_code < 500
        is_connected = BusinessAccount.objects.exists()
        assert is_connected == (page.status_code == 302)
        parameters = parse_qs(f"{query}&{other}", max_num_fields=None)
        assert not is_connected or {"code", "auth_code"} & set(parameters)


# Stored ciphertext

ACCESS_TOKEN, REFRESH_TOKEN = "act.stored-access-token", "rft.stored-refresh-token"


@pytest.fixture
def account(user: User) -> BusinessAccount:
    return make_account(
        access_token=ACCESS_TOKEN,
        refresh_token=REFRESH_TOKEN,
        access_token_expires_at=None,
        owner=user,
    )


def stored_in(column: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM tiktok_business_businessaccount")
        return cursor.fetchone()[0]


def store(column: str, value: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE tiktok_business_businessaccount SET {column} = %s", [value])


_KEY_ID = cipher.key_id("test-only-Zr8vN2kXq5TgWb9YhJ4mLc7PdFs3RuEa")
STORED = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(max_size=40).map(lambda text: f"ttb1:{_KEY_ID}:{text.encode(errors='replace')!r}"),
    st.from_regex(r"ttb1:[0-9a-f]{8}:\S*", fullmatch=True).map(
        lambda text: text.encode(errors="replace").decode()
    ),
    st.binary(min_size=1),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)


@cases(30)
@given(value=STORED, column=st.sampled_from(["access_token", "refresh_token"]))
@example(b"ttb1:\xff", "refresh_token")
@example(b"\0", "access_token")
@example(0, "refresh_token")
def test_column_that_holds_anything_is_reported_and_left_alone(
    account: BusinessAccount, client: Client, value: Any, column: str
) -> None:
    with case(), hostile.from_hostile_tiktok(), answering({"": Reply(b"")}):
        store(column, value)
        before = stored_in("access_token"), stored_in("refresh_token")
        row = BusinessAccount.objects.get()
        with pytest.raises(DecryptionError):
            getattr(row, column)
        for path in (LIST, ADMIN, f"{ADMIN}{account.pk}/change/"):
            assert client.get(path).status_code == 200
        report = services.refresh_due_accounts(concurrency=1)
        is_sent = column == "access_token"
        assert (report.retry_later, report.undecryptable) == (is_sent, not is_sent)
        with pytest.raises(CommandError):
            call_command("rotate_encryption_keys", stdout=StringIO(), stderr=StringIO())
        (warning,) = check_stored_tokens(None, databases=["default"])
        assert warning.id == "tiktok_business.W014"
        assert (stored_in("access_token"), stored_in("refresh_token")) == before


@cases(40)
@given(data=st.data(), column=st.sampled_from(["access_token", "refresh_token"]))
def test_ciphertext_that_was_tampered_with_gives_the_token_or_an_error(
    account: BusinessAccount, data: st.DataObject, column: str
) -> None:
    with case():
        text = stored_in(column)
        place = data.draw(st.integers(0, len(text) - 1))
        end = data.draw(st.integers(place, len(text)))
        put = data.draw(st.sampled_from(["", "A", "=", "\n", "é", stored_in("refresh_token")]))
        store(column, (text[:place] + put + text[end:]) or "x")
        plain = {"access_token": ACCESS_TOKEN, "refresh_token": REFRESH_TOKEN}[column]
        with suppress(DecryptionError):
            assert getattr(BusinessAccount.objects.get(), column) == plain


def test_columns_that_are_swapped_give_errors(account: BusinessAccount) -> None:
    texts = stored_in("access_token"), stored_in("refresh_token")
    store("access_token", texts[1])
    store("refresh_token", texts[0])
    assert len(BusinessAccount.objects.get().unreadable()) == 2


# Options of refresh_tokens

_WORDS = st.one_of(
    st.text(st.characters(), max_size=12),
    st.from_regex(r"-?[0-9]{1,12}[smhd]?", fullmatch=True),
    st.sampled_from(
        [
            *(
                "0",
                "1",
                "-1",
                "+1",
                "1e3",
                "1_0",
                "٣",
                "²",
                "9" * 30,
                "9" * 5000,
                "1.5",
                " 7 ",
                "\n",
            ),
            *("999999999d", "6h", "0h", "nan", "--all", "-", "\0", "\ud800", "_000TestOpenId0001"),
        ]
    ),
)
_OPTIONS = ["--within", "--limit", "--concurrency", "--rate-limit", "--account"]


@cases(80)
@given(options=st.lists(st.tuples(st.sampled_from(_OPTIONS), _WORDS), min_size=1, max_size=3))
@example([("--limit", "9" * 5000)])
@example([("--rate-limit", "9" * 400)])
@example([("--concurrency", "9" * 30)])
@example([("--account", "\ud800")])
@example([("--account", "\0")])
@example([("--account", "_000TestOpenId0001"), ("--limit", "1")])
def test_any_option_is_refused_in_one_line_or_obeyed(
    account: BusinessAccount, options: list[tuple[str, str]]
) -> None:
    granted = Reply(servers.envelope(data={**GRANT, "open_id": account.open_id}))
    with case(), hostile.from_hostile_tiktok(), answering({"": granted}):
        arguments = [f"{name}={text}" for name, text in options]
        out = StringIO()
        status, output = 0, ""
        try:
            call_command("refresh_tokens", *arguments, "--json", stdout=out, stderr=StringIO())
        except CommandError as error:
            status, output = error.returncode, str(error)
        assert output.isprintable()
        if out.getvalue():
            assert status in (0, 1, 2)
            assert json.loads(out.getvalue())["stopped"] is None
        else:
            assert status == 1
            assert BusinessAccount.objects.get().access_token == ACCESS_TOKEN


@cases(20)
@given(text=_WORDS)
@example("15m")
@example("")
def test_any_interval_is_refused_in_one_line_or_a_time(text: str) -> None:
    parser = Command().create_parser("manage.py", "refresh_tokens")
    with suppress(CommandError):
        every = parser.parse_args([f"--every={text}"]).every
        assert 1 <= every.total_seconds() <= EVER.total_seconds()
        return
    with pytest.raises(CommandError, match=r"^Error: argument --every: ") as refused:
        parser.parse_args([f"--every={text}"])
    assert str(refused.value).isprintable()
