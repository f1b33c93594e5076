"""Secrets stay out of reprs, debug pages and access logs."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import requests
from django.template import Context, Template
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from django_tiktok_business.masking import RedactCallbackQuery, Secret, SecretBytes

TOKEN = "act.masking-Zx81!4711.e1"
CALLBACK = "/tiktok/callback/?code=SIMcode_aa-BB22%2A0%215413.e1&scopes=video.list&state=xyz"


@pytest.mark.parametrize(
    "show",
    [
        repr,
        ascii,
        pprint.pformat,
        "{!r}".format,
        lambda secret: f"{secret!r}",
        "%r".__mod__,
        lambda secret: str([secret]),
        lambda secret: str({"token": secret}),
        lambda secret: pprint.pformat({"deep": [(secret,) * 40]}),
    ],
)
@pytest.mark.parametrize("secret", [Secret(TOKEN), SecretBytes(TOKEN.encode())])
def test_f34_repr_of_a_secret_is_masked(
    show: Callable[[object], str], secret: Secret | SecretBytes
) -> None:
    shown = show(secret)
    assert "<secret>" in shown
    assert TOKEN not in shown


def test_secret_is_a_string_in_every_other_respect() -> None:
    secret = Secret(TOKEN)
    assert secret == TOKEN
    assert hash(secret) == hash(TOKEN)
    assert f"{secret}" == str(secret) == TOKEN
    assert type(str(secret)) is str
    assert json.loads(json.dumps({"token": secret})) == {"token": TOKEN}
    assert SecretBytes(b"body") == b"body"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("secret", [Secret(TOKEN), SecretBytes(TOKEN.encode())])
def test_secret_stays_masked_after_a_pickle(protocol: int, secret: Secret | SecretBytes) -> None:
    loaded = pickle.loads(pickle.dumps(secret, protocol))
    assert loaded == secret
    assert repr(loaded) == "<secret>"


@pytest.mark.parametrize("secret", [Secret(TOKEN), SecretBytes(TOKEN.encode())])
def test_secret_stays_masked_after_a_copy(secret: Secret | SecretBytes) -> None:
    for copied in (copy.copy(secret), copy.deepcopy([secret])[0]):
        assert copied == secret
        assert repr(copied) == "<secret>"


def test_part_of_a_secret_is_masked_too() -> None:
    """Some reports show the repr of the first 80 characters."""
    assert repr(Secret("act.SIM" * 20)[:80]) == repr(SecretBytes(b"secret")[1:]) == "<secret>"
    assert (str(Secret("abc")[1]), SecretBytes(b"abc")[1:], SecretBytes(b"abc")[0]) == (
        "b",
        b"bc",
        97,
    )


def test_secret_goes_into_headers_and_bodies_as_it_is() -> None:
    prepared = requests.Request(
        "POST",
        "https://business-api.tiktok.com/",
        headers={"Access-Token": Secret(TOKEN)},
        data=SecretBytes(b"body"),
    ).prepare()
    assert prepared.headers["Access-Token"] == TOKEN
    assert prepared.body == b"body"
    assert TOKEN not in repr(prepared.headers)
    assert "body" not in repr(prepared.body)


def _fail_with(**variables: Any) -> None:
    raise RuntimeError(f"a bug beside {len(variables)} secrets")


def test_f34_debug_page_does_not_show_a_secret_of_a_frame(settings: Any) -> None:
    settings.DEBUG = True
    report = ""
    try:
        _fail_with(token=Secret(TOKEN), body=SecretBytes(TOKEN.encode()), deep=[{1: Secret(TOKEN)}])
    except RuntimeError:
        reporter = ExceptionReporter(RequestFactory().get("/"), *sys.exc_info())
        report = reporter.get_traceback_html() + reporter.get_traceback_text()
    assert "a bug beside 3 secrets" in report
    assert "&lt;secret&gt;" in report
    assert TOKEN not in report
    assert settings.TIKTOK_BUSINESS["APP_SECRET"] not in report
    assert settings.TIKTOK_BUSINESS["ENCRYPTION_KEYS"][0] not in report


def test_secret_is_shown_where_its_value_is_asked_for() -> None:
    assert Template("{{ token }}").render(Context({"token": Secret("a<b")})) == "a&lt;b"


# The filter of access logs


def redacted(message: object, *args: Any) -> str:
    record = logging.LogRecord("django.server", logging.INFO, __file__, 1, message, args, None)
    assert RedactCallbackQuery().filter(record) is True
    return record.getMessage()


def test_f37_query_of_a_callback_is_cut_out_of_the_arguments() -> None:
    line = redacted('"%s" %s %s', f"GET {CALLBACK} HTTP/1.1", "302", "0")
    assert line == '"GET /tiktok/callback/?<redacted> HTTP/1.1" 302 0'


def test_f37_query_of_a_callback_is_cut_out_of_the_message() -> None:
    assert redacted(f"GET {CALLBACK} HTTP/1.1") == "GET /tiktok/callback/?<redacted> HTTP/1.1"


@pytest.mark.parametrize(
    "query",
    [
        "code=abc",
        "auth_code=abc&state=xyz",
        "state=xyz",
        "scopes=video.list&code=abc",
        "error=access_denied&error_code=-2&state=xyz",
    ],
)
def test_f37_each_parameter_that_is_secret_counts(query: str) -> None:
    assert redacted("%s", f"GET /tiktok/callback/?{query} HTTP/1.1") == (
        "GET /tiktok/callback/?<redacted> HTTP/1.1"
    )


@pytest.mark.parametrize(
    "line", ["GET /?page=2&error_code=-2 HTTP/1.1", "GET /code=1 HTTP/1.1", "Not found", ""]
)
def test_other_records_are_left_alone(line: str) -> None:
    assert redacted("%s", line) == line


def test_values_that_are_not_text_are_left_alone() -> None:
    record = logging.LogRecord("django.server", logging.INFO, __file__, 1, "100 %", None, None)
    assert RedactCallbackQuery().filter(record) is True
    assert record.getMessage() == "100 %"
    assert redacted("%s %d", None, 302) == "None 302"
    assert redacted(RuntimeError("boom")) == "boom"


class _Atoms(dict[str, Any]):
    """As of Gunicorn: the atoms of an access-log line, "-" for those that it does not know."""

    def __missing__(self, name: str) -> str:
        return "-"


def test_f37_query_of_a_callback_is_cut_out_of_named_arguments() -> None:
    atoms: Mapping[str, Any] = _Atoms(
        r=f"GET {CALLBACK} HTTP/1.1", s=302, f=f"https://testserver.example{CALLBACK}"
    )
    line = redacted('%(u)s "%(r)s" %(s)d "%(f)s"', atoms)
    assert line == (
        '- "GET /tiktok/callback/?<redacted> HTTP/1.1" 302 '
        '"https://testserver.example/tiktok/callback/?<redacted>"'
    )
    assert atoms["r"] == f"GET {CALLBACK} HTTP/1.1"  # other handlers have their own filters


def test_query_inside_of_another_query_is_cut_out() -> None:
    line = "GET /login/?next=/tiktok/callback/%3Fcode%3DSECRET%26state%3dX HTTP/1.1"
    record = logging.makeLogRecord({"msg": line, "args": ()})
    RedactCallbackQuery().filter(record)
    assert record.msg == "GET /login/?<redacted> HTTP/1.1"


def test_line_of_nothing_but_question_marks_takes_no_time() -> None:
    """Tried from each of them to the end, this one would take a quarter of an hour."""
    line = "GET /" + "?" * 200_000
    record = logging.makeLogRecord({"msg": line, "args": ()})
    RedactCallbackQuery().filter(record)
    assert record.msg == line
