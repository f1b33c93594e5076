"""What the validators accept and how environment variables are parsed, each by itself.

`test_settings` has what each setting accepts and refuses.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from django_tiktok_business.conf import validators
from django_tiktok_business.masking import Secret

SURROGATE = "caf\udce9"  # the byte E9 of an environment variable that is not UTF-8
TEXT_VALIDATORS = [
    validators.is_plain,
    validators.is_text,
    validators.is_url,
    validators.is_base_url,
    validators.is_dotted,
    validators.is_path,
]


@pytest.mark.parametrize("accepts", TEXT_VALIDATORS, ids=lambda validator: validator.__name__)
@pytest.mark.parametrize(
    "value",
    [None, 5, b"a.b", ["a.b"], SURROGATE, f"a.{SURROGATE}", f"https://example.com/{SURROGATE}"],
)
def test_only_text_that_can_be_encoded_is_accepted(
    accepts: Callable[[object], bool], value: object
) -> None:
    assert accepts(value) is False


def test_plain_text_may_be_empty_and_have_spaces_around_it() -> None:
    assert validators.is_plain(" ")
    assert validators.is_plain("")
    assert not validators.is_text(" a")
    assert not validators.is_text("")
    assert validators.is_text("a b")


@pytest.mark.parametrize("url", ["https://example.com:0/", "https://:443/", "https://"])
def test_url_needs_a_host_and_a_possible_port(url: str) -> None:
    assert not validators.is_url(url)


def test_base_url_takes_no_query() -> None:
    assert validators.is_url("https://example.com/?a=b")
    assert not validators.is_base_url("https://example.com/?a=b")
    assert validators.read_base_url("https://example.com/v1//") == "https://example.com/v1"


def test_path_is_dotted_and_of_identifiers() -> None:
    assert validators.is_dotted("app.add-account")
    assert not validators.is_path("app.add-account")
    assert validators.is_path("app.add_account")
    assert not validators.is_dotted("app")


@pytest.mark.parametrize(
    ("item", "is_recipient"),
    [("owner", True), ("a@b", True), ("@b", False), ("a@", False), ("a@b,c@d", False), ("", False)],
)
def test_recipient_is_the_owner_or_one_address(item: str, is_recipient: bool) -> None:
    assert validators.is_recipient(item) is is_recipient


def test_lists_are_of_texts_and_scopes_are_not_empty() -> None:
    assert validators.is_texts([])
    assert validators.is_texts(("a", "b c"))
    assert not validators.is_texts(["a", SURROGATE])
    assert not validators.is_texts({"a"})
    assert not validators.is_scopes([])
    assert not validators.is_scopes(["a b"])
    assert not validators.is_scopes(["a,b"])
    assert validators.is_scopes(("a", "b"))


@pytest.mark.parametrize("text", ["", "ture", "2", "none"])
def test_flag_that_is_no_known_word_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        validators.parse_flag(text)


def test_list_is_split_at_commas_and_empty_items_are_left_out() -> None:
    assert validators.parse_list(" a , b c,, ") == ["a", "b c"]
    assert validators.parse_list(",") == []


def test_secrets_are_masked() -> None:
    for secrets in (validators.parse_secrets("a, b"), validators.read_secrets(("a", "b"))):
        assert secrets == ["a", "b"]
        assert {type(secret) for secret in secrets} == {Secret}
        assert repr(secrets) == "[<secret>, <secret>]"
