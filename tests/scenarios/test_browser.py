"""In Chromium: from the site to TikTok's consent page and back, and what the admin shows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.administrators import make_unreadable
from tests.support.browser import Site
from tests.support.factories import connect, make_user

Status = BusinessAccount.Status

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_connect_from_the_admin_and_land_on_the_account(site: Site) -> None:
    make_user("ada", is_staff=True, is_superuser=True)
    site.log_in("ada")
    site.open("/admin/tiktok_business/businessaccount/")
    site.look("admin-empty")
    site.press("Connect an account")
    assert "TikTok simulator" in site.text
    site.look("consent")
    site.press("Approve")

    account = BusinessAccount.objects.get()
    assert site.path == f"/admin/tiktok_business/businessaccount/{account.pk}/change/"
    assert account.display_name in site.text
    assert "is connected" in site.text
    picture = site.driver.find_element(By.CSS_SELECTOR, f"img[src='{account.picture_url}']")
    WebDriverWait(site.driver, 15).until(
        lambda driver: driver.execute_script("return arguments[0].naturalWidth > 0", picture)
    )
    assert (account.access_token, account.refresh_token) == site.simulator.live_tokens(
        account.open_id
    )
    site.look("admin-account")
    assert site.complaints() == []


def test_denying_ends_on_a_friendly_page_and_trying_again_works(site: Site) -> None:
    make_user("ada", is_staff=True, is_superuser=True)
    site.log_in("ada")
    site.open("/tiktok/")
    site.look("accounts-empty")
    site.open("/tiktok/connect/")
    site.look("connect-confirm")
    site.press("Continue to TikTok")
    site.press("Deny")
    assert "No access was given" in site.text
    assert not BusinessAccount.objects.exists()
    site.look("denied")
    site.press("Try again")
    site.press("Approve")
    assert BusinessAccount.objects.get().owner is not None
    assert site.path == "/tiktok/"
    site.look("accounts")
    assert site.complaints() == []


def test_f44_going_back_to_the_callback_uses_nothing_up(site: Site) -> None:
    make_user("ada", is_staff=True, is_superuser=True)
    site.log_in("ada")
    site.open("/tiktok/connect/")
    site.press("Continue to TikTok")
    consent = site.driver.current_url
    site.press("Approve")
    account = BusinessAccount.objects.get()
    site.driver.get(consent)  # TikTok has a grant already and redirects at once
    assert "connected already" in site.text or "used already" in site.text
    row = BusinessAccount.objects.get()
    assert row.access_token == account.access_token


def test_every_state_of_health_is_readable_in_the_admin(site: Site) -> None:
    owner = make_user("ada", is_staff=True, is_superuser=True)
    make_accounts_in_every_state(site.simulator, owner)
    site.log_in("ada")
    site.open("/admin/tiktok_business/businessaccount/")
    for words in ("healthy", "expires soon", "retrying", "reconnect needed", "revoked"):
        assert words in site.text.lower()
    assert "cannot decrypt" in site.text.lower()
    site.look("admin-list")
    broken = BusinessAccount.objects.get(status=Status.REAUTHORIZATION_REQUIRED)
    site.open(f"/admin/tiktok_business/businessaccount/{broken.pk}/change/")
    site.look("admin-broken")
    healthy = BusinessAccount.objects.get(username="harbour_bakery")
    site.open(f"/admin/tiktok_business/businessaccount/{healthy.pk}/change/")
    site.press("Refresh now")
    assert site.simulator.count("/tt_user/oauth2/refresh_token/") == 1
    site.look("admin-refreshed")
    site.open(f"/tiktok/{healthy.pk}/disconnect/")
    site.look("disconnect")
    site.open("/tiktok/")
    site.look("accounts-every-state")
    assert site.complaints() == []


def make_accounts_in_every_state(simulator: Simulator, owner: Any) -> None:
    now = timezone.now()
    states: dict[str, dict[str, Any]] = {
        "harbour_bakery": {},
        "galaxy.gadgets": {"refresh_token_expires_at": now + timedelta(days=12)},
        "mika_bakes": {
            "consecutive_failures": 3,
            "last_error_at": now - timedelta(minutes=20),
            "last_error_code": 50000,
            "last_error_message": "System error",
            "last_error_request_id": "2026112212000000FFEE",
        },
        "lena.draws": {
            "last_error_at": now - timedelta(hours=5),
            "last_error_code": 40107,
            "last_error_message": "The refresh token is not valid.",
            "last_error_request_id": "2026112212000000FFEF",
        },
        "tea_and_code": {},
        "alpine_velo": {},
    }
    for username, overrides in states.items():
        account = connect(simulator, username, owner=owner, **overrides)
        services.sync_profile(account)
    rows = BusinessAccount.objects
    rows.filter(username="lena.draws").update(status=Status.REAUTHORIZATION_REQUIRED)
    services.disconnect_account(rows.get(username="tea_and_code"))
    make_unreadable(rows.get(username="alpine_velo"))
