"""The pages for customers in Chromium: names of every kind, at desktop and phone width."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from django_tiktok_business.models import BusinessAccount
from tests.support.browser import Site
from tests.support.factories import connect, make_account, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LONG_WORD = "Donaudampfschifffahrtsgesellschaftskapitänsmützenfabrikverkaufsraum"
SCOPES = ["user.info.basic", "user.info.profile", "user.info.stats", "user.info.username"]
PROFILES: dict[str, dict[str, Any]] = {
    "long": {
        "display_name": f"{LONG_WORD} am Hafen, seit 1887",
        "username": "a" * 60,
        "bio": f"{LONG_WORD * 2}\nTwo lines\n\nand a fourth.",
        "followers_count": 152_300_411,
        "following_count": 1_204,
        "likes_count": 9_223_372_036_854_775_807,
        "videos_count": 0,
        "is_verified": True,
        "scopes": ["a.scope.that.nobody.knows." * 6, *SCOPES],
    },
    "right_to_left": {
        "display_name": "مخبز الميناء (القديم) 24",
        "username": "harbour.ar",
        "bio": "نخبز كل صباح، من 6 حتى 11!\nWe bake every morning, 6 to 11!",
        "followers_count": 12,
        "is_verified": True,
        "consecutive_failures": 2,
        "last_error_at": timezone.now() - timedelta(minutes=20),
        "last_error_code": 50000,
        "last_error_request_id": "20261122120000010245087FFEE" * 3,
        "scopes": SCOPES,
    },
    "unknown": {},
}


def test_account_is_readable_whatever_its_holder_is_called(site: Site) -> None:
    owner = make_user("ada", is_staff=True, is_superuser=True)
    accounts = {
        name: make_account(owner=owner, open_id=f"_000{name}", **profile)
        for name, profile in PROFILES.items()
    }
    site.log_in("ada")
    site.open("/tiktok/")
    site.look("list-of-all-kinds")
    for name, account in accounts.items():
        site.open(f"/tiktok/{account.pk}/")
        site.look(f"account-{name}")
        site.open(f"/tiktok/{account.pk}/disconnect/")
        site.look(f"disconnect-{name}")
    with override_settings(LANGUAGE_CODE="ar"):
        site.open(f"/tiktok/{accounts['right_to_left'].pk}/")
        site.look("account-in-arabic")
        site.open("/tiktok/")
        site.look("list-in-arabic")
    assert site.complaints() == []


def test_pages_of_many_accounts_have_links_to_each_other(site: Site) -> None:
    owner = make_user("ada", is_staff=True, is_superuser=True)
    for number in range(51):
        make_account(owner=owner, open_id=f"_000{number}", display_name=f"Shop {number}")
    site.log_in("ada")
    site.open("/tiktok/")
    site.press("Next")
    assert site.path == "/tiktok/?page=2"
    site.look("list-second-page")
    assert len(site.driver.find_elements(By.CSS_SELECTOR, ".account")) == 1


def test_permission_that_is_missing_is_granted_from_the_page_and_it_ends_there(
    site: Site,
) -> None:
    owner = make_user("ada", is_staff=True, is_superuser=True)
    account = connect(site.simulator, owner=owner, scopes=["user.info.basic"])
    site.log_in("ada")
    site.open("/tiktok/")
    site.press(account.label)
    assert site.path == f"/tiktok/{account.pk}/"
    site.press("Reconnect to grant them")
    site.press("Approve")
    assert site.path == f"/tiktok/{account.pk}/"
    assert "is connected" in site.text
    assert "Not granted" not in site.text
    site.look("account")
    site.press(f"Disconnect {BusinessAccount.objects.get().label}")
    site.press("Cancel")
    assert site.path == f"/tiktok/{account.pk}/"
    site.press(f"Disconnect {BusinessAccount.objects.get().label}")
    site.press("Disconnect")
    assert site.path == f"/tiktok/{account.pk}/"
    assert "TikTok has confirmed it" in site.text
    site.look("account-disconnected")
    assert site.complaints() == []


def test_everything_that_can_be_pressed_is_reached_by_the_keyboard_and_shows_it(
    site: Site,
) -> None:
    owner = make_user("ada", is_staff=True, is_superuser=True)
    account = make_account(owner=owner, display_name="Harbour", username="harbour")
    site.log_in("ada")
    site.open(f"/tiktok/{account.pk}/")
    pressable = site.driver.find_elements(By.CSS_SELECTOR, "a, button, summary")
    reached = []
    for _ in pressable:
        site.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = site.driver.switch_to.active_element
        reached.append(focused)
        assert focused.value_of_css_property("outline-style") == "solid", focused.text
    assert reached == pressable
