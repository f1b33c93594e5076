from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings
from django.utils import timezone, translation

from django_tiktok_business import presentation
from django_tiktok_business.exceptions import (
    AppCredentialsRejectedError,
    ConfigurationError,
    ConnectionFailedError,
    DecryptionError,
    PermissionDeniedError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount

IMAGE = "https://p16-sign-va.tiktokcdn.com/a.jpeg?x-expires=99999999999&x-signature=a%3D"


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (timedelta(0), "now"),
        (timedelta(seconds=40), "in 1 minute"),
        (timedelta(minutes=90), "in 90 minutes"),
        (timedelta(hours=5), "in 5 hours"),
        (timedelta(hours=24), "in 24 hours"),
        (timedelta(hours=-30), "30 hours ago"),
        (timedelta(days=-2, minutes=-1), "2 days ago"),
        (timedelta(days=29), "in 29 days"),
        (timedelta(days=365), "in 12 months"),
        (timedelta(days=-3_000), "99 months ago"),
    ],
)
def test_relative_time_is_rounded_to_the_unit_that_fits(distance: timedelta, expected: str) -> None:
    assert presentation.relative_time(timezone.now() + distance) == expected


def test_relative_time_uses_djangos_translations() -> None:
    with translation.override("de"):
        assert "5 Stunden" in presentation.relative_time(timezone.now() + timedelta(hours=5))


def test_time_element_shows_the_exact_time_on_hover() -> None:
    instant = datetime.fromisoformat("2026-11-22T10:00:00+00:00")
    with timezone.override("Europe/Berlin"):
        element = presentation.time_element(instant)
    assert element.startswith(
        '<time datetime="2026-11-22T10:00:00+00:00" title="Nov. 22, 2026, 11 a.m. CET">'
    )


def test_times_without_time_zones_are_shown_as_they_are() -> None:
    with override_settings(USE_TZ=False):
        shown = presentation.time_in_full(timezone.now() + timedelta(hours=3))
    assert ">in 3 hours</time>" in shown
    assert "UTC" not in shown


@pytest.mark.parametrize(
    ("instant", "zone"),
    [
        (datetime.max.replace(tzinfo=UTC), "Asia/Tokyo"),
        (datetime.min.replace(tzinfo=UTC), "America/New_York"),
    ],
    ids=["last", "first"],
)
def test_times_at_the_ends_of_the_calendar_are_shown(instant: datetime, zone: str) -> None:
    with timezone.override(ZoneInfo(zone)):
        assert " UTC" in presentation.time_in_full(instant)


def test_unknown_time_is_labelled() -> None:
    assert presentation.time_element(None) == "unknown"
    assert presentation.time_element(None, unknown="never") == "never"
    assert presentation.time_in_full(None) == "unknown"


def test_count_has_thousands_separators_and_distinguishes_none_from_zero() -> None:
    assert presentation.format_count(152_300_411) == "152,300,411"
    assert presentation.format_count(0) == "0"
    assert presentation.format_count(None) == "-"


@pytest.mark.parametrize(
    ("name", "initials"),
    [
        ("Harbour Bakery", "HB"),
        ("Lena", "L"),
        ('Tea & Code <b>"Club"</b>', "TC"),
        ("田中 美香のパン工房", "田美"),
        ("élan", "É"),
        ("\N{PARTY POPPER} \N{SNOWMAN}", "?"),
    ],
)
def test_picture_has_initials_where_there_is_no_image(name: str, initials: str) -> None:
    shown = presentation.picture(BusinessAccount(display_name=name, open_id="_000"))
    assert shown == f'<span class="tiktok-picture" aria-hidden="true">{initials}</span>'


def test_picture_lies_over_the_initials_and_sends_no_referrer() -> None:
    shown = presentation.picture(
        BusinessAccount(display_name="Harbour Bakery", profile_image_url=IMAGE)
    )
    source = IMAGE.replace("&", "&amp;")
    assert f'HB<img src="{source}" alt="" loading="lazy" referrerpolicy="no-referrer">' in shown


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ReauthorizationRequired("Expired.", code=40103, request_id="2026A"),
            "Expired. (code 40103, request id 2026A) The account has to be connected again.",
        ),
        (
            DecryptionError("No key."),
            "No key. Restore the missing encryption key, or connect the account again.",
        ),
        (
            PermissionDeniedError("No.", code=40001),
            "No. (code 40001) Connect the account again and grant the missing permission.",
        ),
        (
            AppCredentialsRejectedError("No.", code=40113),
            "No. (code 40113) The configuration of the app has to be corrected.",
        ),
        (ConfigurationError("No."), "No. The configuration of the app has to be corrected."),
        (ConnectionFailedError("No."), "No. Nothing is lost: try again later."),
        (TikTokBusinessError("No."), "No."),
    ],
)
def test_explanation_says_what_to_do(error: Exception, expected: str) -> None:
    assert presentation.explanation(error) == expected
