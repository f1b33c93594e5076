"""How answers are read: their code, message and request id, and what is made of odd ``data``."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from django_tiktok_business.api.envelope import is_token
from django_tiktok_business.api.errors import REFRESH_ERRORS
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    APIError,
    AppConfigurationError,
    InvalidResponseError,
    RateLimitError,
    ServerError,
)
from tests.support.clients import ACCESS_TOKEN, REFRESH_TOKEN
from tests.support.envelopes import NO_TOKENS, REQUEST_ID, answer_of, answer_with, error_of, refusal

# Codes


@pytest.mark.parametrize("code", [0, "0", " 0 ", 0.0, 20001, "20001"])
def test_success_and_partial_success_are_no_errors(code: Any) -> None:
    assert refusal(code).error({}) is None


@pytest.mark.parametrize("code", ["40105", " 40105", 40105.0, 40105])
def test_code_as_text_or_float_is_understood(code: Any) -> None:
    assert type(error_of(refusal(code))) is AccessTokenRejectedError


@pytest.mark.parametrize(
    "code",
    [
        *(None, "", "OK", "--5", "1e3", "0x0", "٠", "0" * 21, [], {}, False, True),
        *(0.5, 2**63, -(2**63), 10**30, float("nan"), float("inf"), 1e300),
    ],
)
def test_code_that_is_no_number_is_neither_success_nor_a_rejection(code: Any) -> None:
    error = error_of(refusal(code), REFRESH_ERRORS)
    assert type(error) is InvalidResponseError
    assert str(error) == (
        f"TikTok's answer cannot be used: it has no code. (request id {REQUEST_ID})"
    )
    assert error.code is None


def test_code_wins_over_the_http_status() -> None:
    assert refusal(0, status=500).error({}) is None
    error = error_of(refusal(40105, status=401))
    assert type(error) is AccessTokenRejectedError
    assert str(error).startswith("No. (code 40105, HTTP 401, ")


# Answers without a code


HTML = b"<!DOCTYPE html><html><body>Please wait</body></html>"


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (200, InvalidResponseError, "TikTok's answer cannot be used: it is not a JSON object."),
        (302, InvalidResponseError, "TikTok's answer cannot be used: it is not a JSON object."),
        (400, InvalidResponseError, "TikTok's answer cannot be used: it is not a JSON object."),
        (401, InvalidResponseError, "TikTok's answer cannot be used: it is not a JSON object."),
        (403, InvalidResponseError, "TikTok's answer cannot be used: it is not a JSON object."),
        (404, AppConfigurationError, "There is no such endpoint; check API_BASE_URL."),
        (405, AppConfigurationError, "There is no such endpoint; check API_BASE_URL."),
        (429, RateLimitError, "TikTok asks for fewer calls."),
        (500, ServerError, "TikTok's server failed."),
        (502, ServerError, "TikTok's server failed."),
        (503, ServerError, "TikTok's server failed."),
        (504, ServerError, "TikTok's server failed."),
    ],
)
@pytest.mark.parametrize("content", [HTML, b"", b"null", b"[]", b"{", b'{"message": "no code"}'])
def test_f7_answer_without_a_code_is_classified_by_its_status(
    status: int, kind: type[APIError], message: str, content: bytes
) -> None:
    error = error_of(answer_of(content, status=status), REFRESH_ERRORS)
    assert type(error) is kind
    assert error.message.replace("it has no code", "it is not a JSON object") == message
    assert (error.code, error.http_status) == (None, status)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\xfd",
        b'{"code": 0, "data": {"access_token": "act.cut',
        b'{"code": 0}{"code": 0}',
        b'{"code": ' + b"9" * 5000 + b"}",
        b"[" * 200_000,
        b'{"data":' * 200_000,
        b'"code"',
        b"0",
    ],
)
def test_content_that_is_no_json_object_is_an_invalid_response(content: bytes) -> None:
    error = error_of(answer_of(content))
    assert type(error) is InvalidResponseError
    assert error.message == "TikTok's answer cannot be used: it is not a JSON object."


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_and_other_unicode_encodings_are_read(encoding: str) -> None:
    answer = answer_of('{"code": 0, "data": {"bio": "Bäckerei"}}'.encode(encoding))
    assert answer.error({}) is None
    assert answer.text("bio") == "Bäckerei"


def test_last_of_duplicate_keys_counts() -> None:
    answer = answer_of(b'{"code": 0, "code": 40105, "data": {"a": 1}, "data": {"a": 2}}')
    assert error_of(answer).code == 40105
    assert answer.data == {"a": 2}


@pytest.mark.parametrize("status", [200, 429])
def test_rate_limit_error_holds_retry_after(status: int) -> None:
    with_envelope = error_of(refusal(40100, status=status, retry_after=7.0))
    without = error_of(answer_of(HTML, status=429, retry_after=7.0))
    unknown = error_of(refusal(40100, status=status))
    assert isinstance(with_envelope, RateLimitError)
    assert isinstance(without, RateLimitError)
    assert isinstance(unknown, RateLimitError)
    assert (with_envelope.retry_after, without.retry_after, unknown.retry_after) == (7.0, 7.0, None)


# The message and the request id


@pytest.mark.parametrize("message", [None, "", "   ", "\0", 7, [], {"text": "no"}])
def test_missing_message_is_replaced(message: Any) -> None:
    assert error_of(refusal(40002, message)).message == "TikTok gave no reason."


def test_message_is_one_line_of_printable_text_of_bounded_length() -> None:
    message = "First\r\n2026-11-22 forged record\0\u202e\ud800\t" + "x" * 1000
    text = error_of(refusal(40002, message)).message
    assert text.startswith("First 2026-11-22 forged record ?")
    assert text.isprintable()
    assert len(text) == 500


@pytest.mark.parametrize(
    ("request_id", "shown"),
    [(None, ""), (12, ""), ([], ""), ("a\nb", "a b"), ("x" * 300, "x" * 100), ("A1\0", "A1")],
)
def test_odd_request_id_is_made_fit_for_a_log(request_id: Any, shown: str) -> None:
    assert error_of(answer_of({"code": 40002, "request_id": request_id})).request_id == shown
    assert answer_of({"request_id": request_id}).invalid("so").request_id == shown


SECRETS = [
    ACCESS_TOKEN,
    "SIMcode_aa-BB22*0!5413.e1",
    'odd"secret\\with/slashes+and%41',
    "geheimer-schlüssel-ß",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "spell",
    [
        str,
        str.upper,
        lambda secret: secret[:-1],
        lambda secret: secret[:9],
        lambda secret: quote(secret, safe=""),
        lambda secret: quote(secret, safe="").lower(),
        quote_plus,
        lambda secret: json.dumps(secret)[1:-1],
        lambda secret: json.dumps(json.dumps(secret))[1:-1],
        lambda secret: json.dumps(secret).replace("/", "\\/"),
        lambda secret: "".join(f"\\u{ord(sign):04X}" for sign in secret),
        lambda secret: "".join(f"\\u{{{ord(sign):x}}}" for sign in secret),
        lambda secret: "".join(f"&#{ord(sign)};" for sign in secret),
        lambda secret: "".join(f"&amp;#x{ord(sign):x};" for sign in secret),
        lambda secret: quote(quote(quote(secret, safe=""))),
        lambda secret: f"{secret[:5]}\n{secret[5:]}",
        lambda secret: re.sub("[^A-Za-z0-9]", " ", secret),
        lambda secret: f"****{secret[4:]}",
        lambda secret: f"Invalid token:{secret}",
        lambda secret: f'{{"access_token":"{secret}"}}',
    ],
)
def test_f34_secret_that_tiktok_repeats_is_masked(secret: str, spell: Any) -> None:
    answer = answer_of(
        {"code": 40002, "message": f"Bad {spell(secret)} given", "request_id": spell(secret)},
        secrets=["", secret],
    )
    for error in (error_of(answer), answer.invalid("so")):
        shown = f"{error} {error!r} {vars(error)}".lower()
        assert "<secret>" in shown
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
            assert form.lower() not in shown
        letters = re.sub("[^a-z0-9]", "", secret.lower())
        shown_letters = re.sub("[^a-z0-9]", "", shown)
        pieces = {letters[at : at + 8] for at in range(len(letters) - 7)}
        assert [piece for piece in pieces if piece in shown_letters] == []


@pytest.mark.parametrize(
    ("secret", "message"),
    [("short", "Bad <secret>"), ("x", "Bad <secret>"), ("\ud800", "Bad ?-value")],
)
def test_f34_secret_that_is_short_or_odd_is_masked_too(secret: str, message: str) -> None:
    assert error_of(refusal(40002, f"Bad {secret}-value", secrets=[secret])).message == message


def test_f34_tokens_are_cut_from_messages_even_when_nobody_sent_them() -> None:
    error = error_of(refusal(40002, f"Use {REFRESH_TOKEN}, not {ACCESS_TOKEN[:14]}"))
    assert error.message == "Use <secret> not <secret>"


def test_words_that_only_resemble_tokens_stay() -> None:
    message = "No permission to operate tiktok creator id: _000act.x of contract.something"
    assert error_of(refusal(40001, message)).message == message


def test_f34_base64_of_a_secret_is_in_no_error() -> None:
    error = error_of(refusal(40002, f"Bad {ACCESS_TOKEN}", secrets=[ACCESS_TOKEN]))
    assert base64.b64encode(ACCESS_TOKEN.encode()).decode() not in f"{error!r} {vars(error)}"


# data


@pytest.mark.parametrize("data", [None, [], {}])
def test_missing_data_is_empty_and_not_malformed(data: Any) -> None:
    answer = answer_with(data)
    assert answer.data == {}
    assert not answer.has_malformed_data


@pytest.mark.parametrize("data", ["text", "", [1], 7, 0, True, False, 1.5])
def test_data_of_another_type_is_malformed(data: Any) -> None:
    answer = answer_with(data)
    assert answer.data == {}
    assert answer.has_malformed_data


@pytest.mark.parametrize("token", [*NO_TOKENS, "", None])
def test_value_that_fits_in_no_header_is_no_token(token: Any) -> None:
    assert not is_token(token)


@pytest.mark.parametrize("value", [7, True, [], {}, 1.5])
def test_open_id_of_another_type_is_unknown(value: Any) -> None:
    assert answer_with({"open_id": value}).open_id() is None


def test_open_id_is_kept_verbatim() -> None:
    open_id = "_0aA-" + "x" * 250
    assert answer_with({"open_id": open_id}).open_id() == open_id


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("b,a", ["a", "b"]),
        ("b, a ,,b", ["a", "b"]),
        (["b", "a", "a"], ["a", "b"]),
        (["a", 4, None, {"b": 1}, ""], ["a"]),
        ("a\0b", ["ab"]),
        ("", None),
        (" , ", None),
        ([], None),
        ([1, 2], None),
        (7, None),
        ({"a": 1}, None),
        (None, None),
        (True, None),
    ],
)
def test_scopes_are_a_sorted_set_or_unknown(value: Any, scopes: list[str] | None) -> None:
    assert answer_with({"scope": value}).scopes() == scopes


@pytest.mark.parametrize(
    ("value", "app_id"),
    [("700", "700"), (700, "700"), (None, ""), ([], ""), (1.5, "")],
)
def test_app_id_is_text_or_empty(value: Any, app_id: str) -> None:
    assert answer_with({"app_id": value}).app_id() == app_id


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Harbour Bakery", "Harbour Bakery"),
        ("", ""),
        ("two\nlines", "two\nlines"),
        ("NUL\0here", "NULhere"),
        ("half \ud83d emoji", "half ? emoji"),
        ("whole \U0001f35e emoji", "whole \U0001f35e emoji"),
        (7, None),
        (None, None),
        (["text"], None),
    ],
)
def test_text_is_what_every_database_can_store(value: Any, text: str | None) -> None:
    assert answer_with({"bio": value}).text("bio") == text


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), (False, False), (1, None), ("true", None), (None, None), ([], None)],
)
def test_boolean_is_one_or_unknown(value: Any, flag: bool | None) -> None:
    assert answer_with({"flag": value}).boolean("flag") is flag


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (1532, 1532),
        ("1532", 1532),
        (1532.0, 1532),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (-1, None),
        (True, None),
        (1.5, None),
        ("many", None),
        (None, None),
    ],
)
def test_count_fits_its_column_or_is_unknown(value: Any, count: int | None) -> None:
    assert answer_with({"followers_count": value}).count("followers_count") == count


def test_scopes_and_texts_are_bounded() -> None:
    scopes = ",".join(f"{number:03}" + "x" * 200 for number in range(1000))
    answer = answer_with({"scope": scopes, "bio_description": "y" * 50_000})
    read = answer.scopes()
    assert read is not None
    assert (len(read), len(read[0])) == (300, 100)
    assert len(answer.text("bio_description") or "") == 10_000
