"""How TikTok's answers are read: error codes to types, and what is made of odd ``data``."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from django_tiktok_business.api.envelope import Envelope, is_token
from django_tiktok_business.api.errors import CODE_EXCHANGE_ERRORS, REFRESH_ERRORS
from django_tiktok_business.api.oauth import TokenGrant, read_grant
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    APIError,
    AppConfigurationError,
    AppCredentialsRejectedError,
    AuthorizationCodeRejectedError,
    InvalidResponseError,
    PermissionDeniedError,
    RateLimitError,
    ReauthorizationRequired,
    RetryableError,
    ServerError,
)
from django_tiktok_business.masking import SecretBytes

SENT_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
ACCESS_TOKEN = "act.SIMa1b2c3d4!4711.e1"
REFRESH_TOKEN = "rft.SIMz9y8x7w6!4712.e1"
REQUEST_ID = "202611221015304A7C19E2D0B85F6A3391"
GRANT = {
    "access_token": ACCESS_TOKEN,
    "token_type": "Bearer",
    "scope": "video.list,user.info.basic",
    "expires_in": 86400,
    "refresh_token": REFRESH_TOKEN,
    "refresh_token_expires_in": 31536000,
    "open_id": "_000SIMopenIdAlpha",
}


def answer_of(document: Any, *, status: int = 200, **options: Any) -> Envelope:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Envelope(status, SecretBytes(content), **options)


def failing(code: Any, message: Any = "No.", **options: Any) -> Envelope:
    return answer_of(
        {"code": code, "message": message, "request_id": REQUEST_ID, "data": {}}, **options
    )


def error_of(answer: Envelope, errors: Mapping[int, type[APIError]] | None = None) -> APIError:
    error = answer.error(errors or {})
    assert error is not None
    return error


def answer_with(data: Any) -> Envelope:
    return answer_of({"code": 0, "message": "OK", "request_id": REQUEST_ID, "data": data})


def grant_with(**changes: Any) -> TokenGrant:
    return read_grant(answer_with({**GRANT, **changes}), SENT_AT)


# Error codes

EVERYWHERE: dict[type[APIError], list[int]] = {
    APIError: [
        *(1, 20000, 20002, 40000, 40002, 40003, 40007, 40050, 40064, 40103, 40106, 40107, 40109),
        *(40110, 40112, 40115, 40120, 40200, 40201, 40700, 40900, 40901, 40907, 40908, 40916),
        *(49999, 54000, 60000, 99999, -1, 2**63 - 1),
    ],
    PermissionDeniedError: [40001, 40130],
    AccessTokenRejectedError: [40102, 40105, 40131],
    AppConfigurationError: [
        *(40006, 40008, 40010, 40051, 40104, 40108, 40116, 40117, 40118, 40400),
        *(41000, 41001, 41002),
    ],
    AppCredentialsRejectedError: [40101, 40113, 40124, 40125],
    RateLimitError: [40016, 40100, 40132, 40133, 61000],
    ServerError: [
        *(40202, 40902, 40903, 40913, 50000, 50002, 51000, 51010, 51030, 51039, 51065, 51099),
        *(51305, 52000, 52999, 53000, 53999, 60001),
    ],
}
EXCHANGE = {AuthorizationCodeRejectedError: [40110, 40115, 40120, 40131]}
REFRESH: dict[type[APIError], list[int]] = {
    ReauthorizationRequired: [40103, 40107, 40131],
    APIError: [40102, 40105, 40106],  # no verdict on the refresh token
    AppCredentialsRejectedError: [40101, 40113, 40124, 40125],
    RateLimitError: [40100],
    ServerError: [50000],
}


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in EVERYWHERE.items() for code in codes]
)
def test_f6_each_code_becomes_its_error_although_http_says_200(
    code: int, kind: type[APIError]
) -> None:
    error = error_of(failing(code, "TikTok's words."))
    assert type(error) is kind
    assert (error.code, error.message) == (code, "TikTok's words.")
    assert (error.request_id, error.http_status) == (REQUEST_ID, 200)
    assert str(error) == f"TikTok's words. (code {code}, request id {REQUEST_ID})"
    assert error.remedy


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in EXCHANGE.items() for code in codes]
)
def test_code_at_the_code_exchange_restarts_the_browser_flow(
    code: int, kind: type[APIError]
) -> None:
    assert type(error_of(failing(code), CODE_EXCHANGE_ERRORS)) is kind


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in REFRESH.items() for code in codes]
)
def test_f7_only_known_codes_at_a_refresh_require_reauthorization(
    code: int, kind: type[APIError]
) -> None:
    assert type(error_of(failing(code), REFRESH_ERRORS)) is kind


def test_f7_no_other_code_requires_reauthorization() -> None:
    kinds = {
        code
        for code in range(39_990, 62_000)
        if isinstance(failing(code).error(REFRESH_ERRORS), ReauthorizationRequired)
    }
    assert kinds == {40103, 40107, 40131}


@pytest.mark.parametrize("code", [0, "0", " 0 ", 0.0, 20001, "20001"])
def test_success_and_partial_success_are_no_errors(code: Any) -> None:
    assert failing(code).error({}) is None


@pytest.mark.parametrize("code", ["40105", " 40105", 40105.0, 40105])
def test_code_as_text_or_float_is_understood(code: Any) -> None:
    assert type(error_of(failing(code))) is AccessTokenRejectedError


@pytest.mark.parametrize(
    "code",
    [
        *(None, "", "OK", "--5", "1e3", "0x0", "٠", "0" * 21, [], {}, False, True),
        *(0.5, 2**63, -(2**63), 10**30, float("nan"), float("inf"), 1e300),
    ],
)
def test_code_that_is_no_number_is_neither_success_nor_a_verdict(code: Any) -> None:
    error = error_of(failing(code), REFRESH_ERRORS)
    assert type(error) is InvalidResponseError
    assert str(error) == (
        f"TikTok's answer cannot be used: it has no code. (request id {REQUEST_ID})"
    )
    assert error.code is None


def test_code_wins_over_the_http_status() -> None:
    assert failing(0, status=500).error({}) is None
    error = error_of(failing(40105, status=401))
    assert type(error) is AccessTokenRejectedError
    assert str(error).startswith("No. (code 40105, HTTP 401, ")


@pytest.mark.parametrize("error_class", [RateLimitError, ServerError, InvalidResponseError])
def test_errors_that_pass_are_retryable_and_api_errors(error_class: type[APIError]) -> None:
    assert issubclass(error_class, RetryableError)
    assert issubclass(error_class, APIError)
    assert error_class.remedy == "Try again later."


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
def test_f7_answer_without_a_code_is_judged_by_its_status(
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
def test_rate_limit_tells_how_long_to_wait(status: int) -> None:
    with_envelope = error_of(failing(40100, status=status, retry_after=7.0))
    without = error_of(answer_of(HTML, status=429, retry_after=7.0))
    unknown = error_of(failing(40100, status=status))
    assert isinstance(with_envelope, RateLimitError)
    assert isinstance(without, RateLimitError)
    assert isinstance(unknown, RateLimitError)
    assert (with_envelope.retry_after, without.retry_after, unknown.retry_after) == (7.0, 7.0, None)


# The message and the request id


@pytest.mark.parametrize("message", [None, "", "   ", "\0", 7, [], {"text": "no"}])
def test_missing_message_is_replaced(message: Any) -> None:
    assert error_of(failing(40002, message)).message == "TikTok gave no reason."


def test_message_is_one_line_of_printable_text_of_bounded_length() -> None:
    message = "First\r\n2026-11-22 forged record\0\u202e\ud800\t" + "x" * 1000
    told = error_of(failing(40002, message)).message
    assert told.startswith("First 2026-11-22 forged record ?")
    assert told.isprintable()
    assert len(told) == 500


@pytest.mark.parametrize(
    ("request_id", "told"),
    [(None, ""), (12, ""), ([], ""), ("a\nb", "a b"), ("x" * 300, "x" * 100), ("A1\0", "A1")],
)
def test_odd_request_id_is_made_fit_for_a_log(request_id: Any, told: str) -> None:
    assert error_of(answer_of({"code": 40002, "request_id": request_id})).request_id == told
    assert answer_of({"request_id": request_id}).invalid("so").request_id == told


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
def test_f34_secret_that_tiktok_repeats_is_not_told(secret: str, spell: Any) -> None:
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
        told = re.sub("[^a-z0-9]", "", shown)
        pieces = {letters[at : at + 8] for at in range(len(letters) - 7)}
        assert [piece for piece in pieces if piece in told] == []


@pytest.mark.parametrize(
    ("secret", "told"),
    [("short", "Bad <secret>"), ("x", "Bad <secret>"), ("\ud800", "Bad ?-value")],
)
def test_f34_secret_that_is_short_or_odd_is_not_told_either(secret: str, told: str) -> None:
    assert error_of(failing(40002, f"Bad {secret}-value", secrets=[secret])).message == told


def test_f34_tokens_are_cut_from_messages_even_when_nobody_sent_them() -> None:
    error = error_of(failing(40002, f"Use {REFRESH_TOKEN}, not {ACCESS_TOKEN[:14]}"))
    assert error.message == "Use <secret> not <secret>"


def test_words_that_only_resemble_tokens_stay() -> None:
    message = "No permission to operate tiktok creator id: _000act.x of contract.something"
    assert error_of(failing(40001, message)).message == message


# data


@pytest.mark.parametrize("data", [None, [], {}])
def test_missing_data_is_empty_and_not_foreign(data: Any) -> None:
    answer = answer_with(data)
    assert answer.data == {}
    assert not answer.has_malformed_data


@pytest.mark.parametrize("data", ["text", "", [1], 7, 0, True, False, 1.5])
def test_data_of_another_type_is_foreign(data: Any) -> None:
    answer = answer_with(data)
    assert answer.data == {}
    assert answer.has_malformed_data


def test_grant_holds_tokens_instants_and_sorted_scopes() -> None:
    grant = grant_with()
    assert grant == TokenGrant(
        access_token=ACCESS_TOKEN,
        refresh_token=REFRESH_TOKEN,
        access_token_expires_at=SENT_AT + timedelta(days=1),
        refresh_token_expires_at=SENT_AT + timedelta(days=365),
        open_id="_000SIMopenIdAlpha",
        scopes=["user.info.basic", "video.list"],
    )


def test_f34_grant_does_not_show_its_tokens() -> None:
    grant = grant_with()
    assert ACCESS_TOKEN not in repr(grant)
    assert REFRESH_TOKEN not in repr(grant)
    assert repr(grant.access_token) == repr(grant.refresh_token) == "<secret>"
    assert ACCESS_TOKEN not in repr(answer_with(GRANT))


def test_legacy_names_are_understood() -> None:
    legacy = {
        "access_token": ACCESS_TOKEN,
        "refresh_token": REFRESH_TOKEN,
        "creator_id": "_000SIMopenIdAlpha",
        "expires": 86400,
        "refresh_expires": "31536000",
        "scope": "video.list,user.info.basic",
    }
    assert read_grant(answer_with(legacy), SENT_AT) == grant_with()


def test_present_names_win_over_legacy_ones_unless_they_are_empty() -> None:
    legacy = {"creator_id": "_legacy", "expires": 60, "refresh_expires": 60}
    assert grant_with(**legacy) == grant_with()
    grant = grant_with(**legacy, open_id="", expires_in=None, refresh_token_expires_in=0)
    assert grant.open_id == "_legacy"
    assert grant.access_token_expires_at == SENT_AT + timedelta(seconds=60)
    assert grant.refresh_token_expires_at == SENT_AT + timedelta(seconds=60)


@pytest.mark.parametrize("missing", [None, ""])
@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("refresh_token", "refresh_token"),
        ("expires_in", "access_token_expires_at"),
        ("refresh_token_expires_in", "refresh_token_expires_at"),
        ("open_id", "open_id"),
        ("scope", "scopes"),
    ],
)
def test_f4_missing_or_empty_field_is_none_so_that_nothing_is_overwritten(
    name: str, attribute: str, missing: Any
) -> None:
    without = {key: value for key, value in GRANT.items() if key != name}
    assert getattr(read_grant(answer_with(without), SENT_AT), attribute) is None
    assert getattr(grant_with(**{name: missing}), attribute) is None


@pytest.mark.parametrize("token", [None, ""])
def test_f5_grant_without_an_access_token_is_refused(token: Any) -> None:
    with pytest.raises(InvalidResponseError, match=r"used: it has no access_token\. \(request"):
        grant_with(access_token=token)


NO_TOKENS = [
    *("act.a\nb", "act.a\0b", "act.a b", " act.a", "act.a\t", "act.\ud800", "act.ä", "\x7f"),
    *(7, True, ["act.a"], {"token": "act.a"}, 1.5),
]


@pytest.mark.parametrize("token", NO_TOKENS)
@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
def test_f5_token_that_cannot_be_one_refuses_the_whole_grant(name: str, token: Any) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        grant_with(**{name: token})
    assert caught.value.message == f"TikTok's answer cannot be used: {name} is not a token."


@pytest.mark.parametrize("token", [*NO_TOKENS, "", None])
def test_what_cannot_be_sent_is_no_token(token: Any) -> None:
    assert not is_token(token)


@pytest.mark.parametrize("token", [ACCESS_TOKEN, "a", "~!*_-.,;", "x" * 100_000])
def test_any_printable_word_can_be_a_token(token: str) -> None:
    assert is_token(token)
    assert grant_with(access_token=token, refresh_token=token).refresh_token == token


@pytest.mark.parametrize("name", ["expires_in", "refresh_token_expires_in"])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [(60, 60), ("60", 60), (" 60 ", 60), (60.0, 60), (1, 1), (366 * 86400, 31622400)],
)
def test_lifetime_is_read_from_numbers_and_numerals(name: str, value: Any, seconds: int) -> None:
    grant = grant_with(**{name: value})
    attribute = "access_token_expires_at" if name == "expires_in" else "refresh_token_expires_at"
    assert getattr(grant, attribute) == SENT_AT + timedelta(seconds=seconds)


@pytest.mark.parametrize("name", ["expires_in", "refresh_token_expires_in"])
@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, "-1", "--1", "1 000", "1e3", "soon", True, False, 0.5, float("nan")),
        *(float("inf"), -float("inf"), 1e300, 10**12, 10**30, "9" * 19, "9" * 30, [], {}, [60]),
        31_536_000_000,  # a year of milliseconds
    ],
)
def test_f17_lifetime_that_makes_no_sense_is_unknown(name: str, value: Any) -> None:
    grant = grant_with(**{name: value})
    attribute = "access_token_expires_at" if name == "expires_in" else "refresh_token_expires_at"
    assert getattr(grant, attribute) is None


def test_f17_day_of_milliseconds_is_no_lifetime_of_an_access_token() -> None:
    assert grant_with(expires_in=86_400_000).access_token_expires_at is None
    assert grant_with(refresh_token_expires_in=86_400_000).refresh_token_expires_at is not None


@pytest.mark.parametrize("name", ["open_id", "creator_id"])
@pytest.mark.parametrize("value", ["a b", "a\nb", "a\0", "ä", "\ud800", "x" * 256])
def test_open_id_that_cannot_be_one_refuses_the_grant(name: str, value: str) -> None:
    with pytest.raises(InvalidResponseError, match=f"{name} is not an id"):
        grant_with(**{"open_id": None, name: value})


@pytest.mark.parametrize("value", [7, True, [], {}, 1.5])
def test_open_id_of_another_type_is_not_told(value: Any) -> None:
    assert grant_with(open_id=value).open_id is None


def test_open_id_is_kept_verbatim() -> None:
    assert grant_with(open_id="_0aA-" + "x" * 250).open_id == "_0aA-" + "x" * 250


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
    assert grant_with(scope=value).scopes == scopes


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
def test_text_is_such_that_every_database_holds_it(value: Any, text: str | None) -> None:
    assert answer_with({"bio": value}).text("bio") == text


@pytest.mark.parametrize(
    ("value", "told"),
    [(True, True), (False, False), (1, None), ("true", None), (None, None), ([], None)],
)
def test_boolean_is_one_or_unknown(value: Any, told: bool | None) -> None:
    assert answer_with({"flag": value}).boolean("flag") is told


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


def test_f34_base64_of_a_secret_is_not_in_what_we_tell() -> None:
    error = error_of(failing(40002, f"Bad {ACCESS_TOKEN}", secrets=[ACCESS_TOKEN]))
    assert base64.b64encode(ACCESS_TOKEN.encode()).decode() not in f"{error!r} {vars(error)}"


def test_scopes_and_texts_are_bounded() -> None:
    scopes = ",".join(f"{number:03}" + "x" * 200 for number in range(1000))
    answer = answer_with({"scope": scopes, "bio_description": "y" * 50_000})
    told = answer.scopes()
    assert told is not None
    assert (len(told), len(told[0])) == (300, 100)
    assert len(answer.text("bio_description") or "") == 10_000
