"""What the scopes mean in words."""

from __future__ import annotations

from django.utils import translation

from django_tiktok_business.scopes import describe
from django_tiktok_business.simulator.accounts import SCOPES


def test_every_scope_has_words() -> None:
    assert [scope for scope in SCOPES if describe([scope]) == [scope]] == []


def test_descriptions_keep_the_order_and_an_unknown_scope_stands_for_itself() -> None:
    assert describe(["video.list", "brand.new", "user.info.username"]) == [
        "See your public videos",
        "brand.new",
        "See your username",
    ]


def test_descriptions_are_translated() -> None:
    with translation.override("de"):
        (text,) = describe(["video.list"])
    assert isinstance(text, str)
    assert text != "See your public videos"
