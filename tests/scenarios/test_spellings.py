"""The search for secrets finds them in every spelling."""

from __future__ import annotations

import base64
import json
import pickle
import pprint
from collections.abc import Callable
from html import escape
from urllib.parse import quote, quote_plus

import pytest
from django.utils.html import escapejs

from tests.support.leaks import SHORTEST, WINDOW, Search

SECRET = "aZ+9/<b>q'\"é&\\~x 7.K*!=mR5_tW-0z%Y"
DERIVED = bytes(range(120, 152))

WAYS: dict[str, Callable[[str], str | bytes]] = {
    "plain": str,
    "bytes": str.encode,
    "pickled": pickle.dumps,
    "repr": repr,
    "repr of bytes": lambda secret: repr(secret.encode()),
    "pretty": lambda secret: pprint.pformat({"key": [secret] * 5}),
    "JSON": json.dumps,
    "JSON in JSON": lambda secret: json.dumps(json.dumps([secret])),
    "script": escapejs,
    "HTML": escape,
    "percent-encoded": quote,
    "percent-encoded, slash too": lambda secret: quote(secret, safe=""),
    "percent-encoded in small letters": lambda secret: quote(secret, safe="").lower(),
    "form": quote_plus,
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
    "its beginning": lambda secret: secret[:WINDOW],
    "its middle": lambda secret: secret[9 : 9 + WINDOW],
    "its end": lambda secret: secret[-WINDOW:],
}


def in_base64(secret: str, before: str) -> bytes:
    return base64.b64encode(f"{before}{secret} and more".encode())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "abcd"])
def test_search_finds_a_secret_in_every_writing(way: str, before: str) -> None:
    secret = SECRET.lower() if way.endswith("small letters") else SECRET
    written = WAYS[way](secret)
    text = written if isinstance(written, bytes) else written.encode()
    assert Search([secret]).found_in(before.encode() + text + b" and more")


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "abcd"])
@pytest.mark.parametrize("secret", [SECRET, SECRET[:14], SECRET[:SHORTEST]])
def test_search_finds_a_secret_anywhere_inside_base64(secret: str, before: str) -> None:
    search = Search([secret])
    assert search.found_in(in_base64(secret, before))
    assert search.found_in(in_base64(secret, before).translate(bytes.maketrans(b"+/", b"-_")))


@pytest.mark.parametrize("before", [b"", b"a", b"ab"])
def test_search_finds_a_key_that_is_no_text(before: bytes) -> None:
    search = Search([DERIVED])
    for written in (DERIVED, DERIVED[16:], repr(DERIVED).encode(), DERIVED.hex().encode()):
        assert search.found_in(before + written)
    assert search.found_in(base64.urlsafe_b64encode(before + DERIVED))
    assert search.found_in(base64.urlsafe_b64encode(before + DERIVED[:16]))


def test_search_names_what_it_has_found_and_nothing_else() -> None:
    search = Search([SECRET, "another-secret-of-ours", DERIVED])
    assert search.found_in(f"see {SECRET[5:]}") == {f"{SECRET[:WINDOW]!r}..."}
    assert search.found_in("nothing of that sort, and another-sec") == set()


def test_what_is_too_short_to_be_told_from_chance_is_refused() -> None:
    with pytest.raises(AssertionError):
        Search([SECRET[: SHORTEST - 1]])
