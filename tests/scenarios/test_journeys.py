"""What people do, in Chromium, under the strictest policy and with an empty console.

Each page on the way is looked at by axe-core as well. See ``test_browser`` for the plain way there
and back, and ``test_hostile_profiles`` for accounts that mean harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from tests.support.browser import Site
from tests.support.factories import connect, make_user
from tests.support.visits import LIST

Status = BusinessAccount.Status
ADMIN = "/admin/tiktok_business/businessaccount/"
AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def strict(site: Site) -> Iterator[Site]:
    """The site under a policy that allows its own files and TikTok's pictures only."""
    tiktok = site.simulator_url
    policy = {"default-src": ["'self'"], "img-src": ["'self'", tiktok]}
    with override_settings(SECURE_CSP=policy):
        yield site
        assert site.complaints() == []


def problems(site: Site) -> list[str]:
    """The serious problems that axe-core finds on the open page."""
    site.driver.execute_script(AXE)
    results: dict[str, Any] = site.driver.execute_async_script(
        "axe.run(document).then(arguments[arguments.length - 1])"
    )
    return [
        f"{site.path}: {found['id']}: {node['html']}"
        for found in results["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
        if node["target"] != ["#searchbar"]  # it is Django's
    ]


def administrator(site: Site) -> Any:
    user = make_user("ada", is_staff=True, is_superuser=True)
    site.let_in(user)
    return user


def test_every_page_is_fit_for_screen_readers(strict: Site) -> None:
    user = administrator(strict)
    account = connect(strict.simulator, owner=user, metrics_synced_at=None)
    services.sync_profile(account)
    broken = connect(strict.simulator, "lena.draws", owner=user, scopes=["user.info.basic"])
    services.sync_profile(broken)
    BusinessAccount.objects.filter(pk=broken.pk).update(
        status=Status.REAUTHORIZATION_REQUIRED, last_error_at=timezone.now(), last_error_code=40107
    )
    paths = [LIST, f"{LIST}{account.pk}/", f"{LIST}{broken.pk}/", f"{LIST}connect/"]
    paths += [f"{LIST}{account.pk}/disconnect/", ADMIN]
    paths += [f"{ADMIN}{account.pk}/change/", f"{ADMIN}{broken.pk}/change/"]
    paths += [f"{ADMIN}{account.pk}/disconnect/", "/admin/tiktok_business/connectionevent/"]
    found = []
    for width, height, scheme in ((1280, 900, "light"), (390, 844, "dark")):
        strict.show_as(width, height, scheme)
        for path in paths:
            strict.open(path)
            found += problems(strict)
    strict.show_as(1280, 900, "light")
    assert found == []


def test_permissions_that_were_not_granted_are_asked_for_again(strict: Site) -> None:
    administrator(strict)
    strict.open(f"{LIST}connect/")
    strict.press("Continue to TikTok")
    strict.driver.find_element(By.CSS_SELECTOR, "input[value='video.list']").send_keys(" ")
    strict.press("Approve")
    account = BusinessAccount.objects.get()
    assert "Not granted: video.list" in strict.text
    strict.open(f"{ADMIN}{account.pk}/change/")
    strict.press("Reconnect for the missing permissions")
    strict.press("Approve")
    assert strict.path == f"{ADMIN}{account.pk}/change/"
    account.refresh_from_db()
    assert account.missing_scopes == []


def test_f43_two_tabs_connect_two_accounts(strict: Site) -> None:
    administrator(strict)
    driver = strict.driver
    first = driver.current_window_handle
    strict.open(f"{LIST}connect/")
    strict.press("Continue to TikTok")
    driver.switch_to.new_window("tab")
    strict.open(f"{LIST}connect/")
    strict.press("Continue to TikTok")
    driver.find_element(By.CSS_SELECTOR, "input[value='galaxy.gadgets']").send_keys(" ")
    strict.press("Approve")
    assert "Galaxy Gadgets is connected" in strict.text
    driver.close()
    driver.switch_to.window(first)
    strict.press("Approve")
    assert "Harbour Bakery is connected" in strict.text
    assert BusinessAccount.objects.count() == 2


def test_broken_account_is_connected_again(strict: Site) -> None:
    user = administrator(strict)
    account = connect(strict.simulator, owner=user)
    services.sync_profile(account)
    strict.simulator.revoke_grant(account.open_id)
    strict.open(f"{ADMIN}{account.pk}/change/")
    strict.press("Refresh now")
    assert "The account has to be connected again." in strict.text
    assert "reconnect needed" in strict.text.lower()
    strict.press("Reconnect")
    strict.press("Approve")
    assert "is connected" in strict.text
    account.refresh_from_db()
    assert account.status == Status.ACTIVE
    tokens = (account.access_token, account.refresh_token)
    assert strict.simulator.live_tokens(account.open_id) == tokens


def test_selected_accounts_are_refreshed(strict: Site) -> None:
    user = administrator(strict)
    for name in ("harbour_bakery", "galaxy.gadgets", "mika_bakes"):
        connect(strict.simulator, name, owner=user)
    strict.open(ADMIN)
    strict.driver.find_element(By.ID, "action-toggle").click()
    select = strict.driver.find_element(By.NAME, "action")
    select.find_element(By.CSS_SELECTOR, "option[value='refresh_selected']").click()
    strict.press("Run" if strict.driver.find_elements(By.XPATH, "//button[text()='Run']") else "Go")
    assert "3 accounts are refreshed." in strict.text
    assert strict.simulator.count("/tt_user/oauth2/refresh_token/") == 3


def test_account_is_disconnected_and_then_deleted(strict: Site) -> None:
    user = administrator(strict)
    account = connect(strict.simulator, owner=user)
    strict.open(f"{ADMIN}{account.pk}/change/")
    strict.press("Disconnect")
    assert "TikTok is told to end this site's access to the account" in strict.text
    strict.press("Disconnect")
    assert "is disconnected, and TikTok has confirmed it" in strict.text
    assert strict.simulator.live_tokens(account.open_id) is None
    strict.open(f"{ADMIN}{account.pk}/delete/")
    strict.press("Yes, I’m sure")
    assert not BusinessAccount.objects.exists()


def test_customer_disconnects_outside_of_the_admin(strict: Site) -> None:
    owner = make_user("grace")
    account = connect(strict.simulator, owner=owner)
    strict.let_in(owner)
    strict.open(f"{LIST}{account.pk}/disconnect/")
    strict.press("Disconnect")
    assert strict.path == LIST
    assert "is disconnected, and TikTok has confirmed it" in strict.text
    account.refresh_from_db()
    assert account.status == Status.REVOKED


def test_user_without_the_permission_is_told_what_to_do(strict: Site) -> None:
    strict.let_in(make_user("grace"))
    strict.open(f"{LIST}connect/")
    assert "Ask an administrator of this site for the permission." in strict.text
    strict.look("not-allowed")
    # The console reports only the status 403.
    assert all(" 403 " in entry["message"] for entry in strict.complaints())


def test_connecting_works_with_the_keyboard_alone_on_a_phone_in_the_dark(strict: Site) -> None:
    administrator(strict)
    strict.show_as(390, 844, "dark")
    strict.open(f"{LIST}connect/")
    strict.go_to("Continue to TikTok").send_keys(Keys.ENTER)
    strict.wait_until(lambda: "TikTok simulator" in strict.text)
    strict.go_to("Approve").send_keys(Keys.ENTER)
    strict.wait_until(lambda: "is connected" in strict.text)
    focused = strict.go_to("Disconnect")
    outline = strict.driver.execute_script(
        "return getComputedStyle(arguments[0]).outlineStyle", focused
    )
    assert outline != "none"
    focused.send_keys(Keys.ENTER)
    strict.wait_until(lambda: "/disconnect/" in strict.path)
    assert strict.driver.execute_script("return document.body.scrollWidth") <= 390
    strict.show_as(1280, 900, "light")
