"""What is made of text and URLs from strangers."""

from __future__ import annotations

from typing import Any

import pytest

from django_tiktok_business.untrusted import (
    https_host,
    is_visible,
    single_line,
    storable_text,
    visible_line,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Bäckerei \U0001f35e", "Bäckerei \U0001f35e"),
        ("two\nlines", "two\nlines"),
        ("NUL\0here", "NULhere"),
        ("half \ud83d emoji", "half ? emoji"),
        ("", ""),
        *((value, "") for value in (None, 7, True, ["text"], {"text": 1}, b"text")),
    ],
)
def test_storable_text_is_what_every_database_accepts(value: Any, text: str) -> None:
    assert storable_text(value) == text


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("one\r\n2026-11-22 forged record", "one 2026-11-22 forged record"),
        ("a\u2028b\u2029c\x0bd\x85e", "a b c d e"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("right\u202eleft", "right left"),
        ("  spaces\t\tand tabs ", "spaces and tabs"),
        ("NUL\0here", "NULhere"),
        ("half \ud83d", "half ?"),
        (None, ""),
        (7, ""),
    ],
)
def test_single_line_forges_no_log_record(value: Any, line: str) -> None:
    assert single_line(value) == line
    assert line.isprintable()


@pytest.mark.parametrize("character", [*"aZß9é漢ا!$~", "\U0001f35e"])
def test_letters_digits_punctuation_and_symbols_are_visible(character: str) -> None:
    assert is_visible(character)


@pytest.mark.parametrize(
    "character",
    [
        *" \t\n\0",
        *"\u00a0\u00ad\u200b\u200d\u202e\u2028\u3000\ufeff",
        *"\u115f\u1160\u2800\u3164\uffa0",
    ],
)
def test_spaces_controls_formats_and_fillers_are_not_visible(character: str) -> None:
    assert not is_visible(character)


def test_bare_combining_mark_is_not_visible() -> None:
    assert not is_visible("\u0301")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Harbour\n  Bakery", "Harbour Bakery"),
        ("safe\u202etxt.exe", "safetxt.exe"),
        ("\u2066isolated\u2069", "isolated"),
        ("zero\u200bwidth\ufeff\u00ad", "zerowidth"),
        ("bell\x07", "bell"),
        ("\U0001f468\u200d\U0001f373", "\U0001f468\u200d\U0001f373"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("", ""),
    ],
)
def test_visible_line_keeps_only_the_invisible_characters_that_scripts_need(
    text: str, line: str
) -> None:
    assert visible_line(text) == line


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://www.tiktok.com/@ada", "www.tiktok.com"),
        ("HTTPS://WWW.TikTok.com", "www.tiktok.com"),
        ("https://www.tiktok.com:8443/x?y#z", "www.tiktok.com"),
        ("https://[::1]/", "::1"),
    ],
)
def test_host_of_an_https_url_is_returned(url: str, host: str) -> None:
    assert https_host(url) == host


@pytest.mark.parametrize(
    "url",
    [
        *("", "www.tiktok.com", "//www.tiktok.com", "https:", "https://", "text"),
        *("http://www.tiktok.com/", "javascript:alert(1)", "data:text/html,x"),
        *(
            "https://www.tiktok.com@elsewhere.example/",
            "https://elsewhere.example\\@www.tiktok.com",
        ),
        *("https:\\\\elsewhere.example", "https://www.tiktok.com\n.elsewhere.example/"),
        *("https://www.tiktok.com /", "https://www.tiktok.com\u202e/", "https://[::1"),
    ],
)
def test_url_that_browsers_may_read_differently_has_no_host(url: str) -> None:
    assert https_host(url) == ""
