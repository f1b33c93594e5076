"""A person with Chromium: the way to TikTok's consent page and back, and what the admin shows.

``SCREENSHOTS=folder`` keeps a picture of each page that a test looks at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from django_tiktok_business import services
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.factories import connect, make_user
from tests.utils import override_tiktok

Status = BusinessAccount.Status

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Without them Chromium looks for Google's hosts at each start.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


class Site:
    """The test site in one browser, beside a TikTok that answers over HTTP."""

    def __init__(
        self, driver: webdriver.Chrome, url: str, simulator: Simulator, scratch: Path
    ) -> None:
        self.scratch = scratch
        self.driver = driver
        self.url = url
        self.simulator = simulator

    def log_in(self, username: str) -> None:
        self.open("/admin/login/?next=/admin/")
        self.driver.find_element(By.NAME, "username").send_keys(username)
        self.driver.find_element(By.NAME, "password").send_keys("correct horse")
        self.press("Log in")

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def press(self, words: str) -> None:
        """Press the button or link with these words."""
        xpath = (
            f"//button[normalize-space()='{words}'] | //input[@value='{words}'] | "
            f"//a[normalize-space()='{words}']"
        )
        button = self.driver.find_element(By.XPATH, xpath)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        self.driver.execute_script("window.isLeft = true")
        button.click()
        # Asking a page that is just being left is an error of one kind or another.
        WebDriverWait(self.driver, 15, ignored_exceptions=[WebDriverException]).until(
            lambda driver: driver.execute_script(
                "return !window.isLeft && document.readyState === 'complete'"
            )
        )

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    @property
    def path(self) -> str:
        return self.driver.current_url.removeprefix(self.url)

    def look(self, name: str) -> None:
        """Check the page at desktop and phone width, light and dark, and take pictures."""
        folder = Path(os.environ.get("SCREENSHOTS") or self.scratch)
        for width, height in (DESKTOP, PHONE):
            for scheme in ("light", "dark"):
                self._show_as(width, height, scheme)
                needed = self.driver.execute_script("return document.body.scrollWidth")
                assert needed <= width, f"{name} does not fit into {width} pixels"
                assert self.driver.save_screenshot(folder / f"{name}-{width}-{scheme}.png")
        self._show_as(*DESKTOP, "light")

    def _show_as(self, width: int, height: int, scheme: str) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def complaints(self) -> list[Any]:
        """What the console says; a favicon that is not there does not count."""
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry for entry in log if "favicon.ico" not in entry["message"]]


@pytest.fixture
def site(chromium: webdriver.Chrome, live_server: Any, tmp_path: Path) -> Iterator[Site]:
    callback = f"{live_server.url}/tiktok/callback/"
    simulator = Simulator(redirect_uris=[callback])
    with (
        simulator.serve() as tiktok,
        override_settings(ALLOWED_HOSTS=["localhost"]),
        override_tiktok(
            SESSION_FACTORY_PATH=None,
            REDIRECT_URI=None,
            AUTHORIZATION_URL=f"{tiktok}/v2/auth/authorize",
            API_BASE_URL=f"{tiktok}/open_api/v1.3",
        ),
    ):
        simulator.configure(image_base_url=tiktok)
        chromium.delete_all_cookies()
        chromium.get_log("browser")  # type: ignore[no-untyped-call] # of the test before
        yield Site(chromium, live_server.url, simulator, tmp_path)
        chromium.get("about:blank")


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
    site.driver.get(consent)  # the grant is there already: TikTok answers at once
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
    rows.filter(username="alpine_velo").update(open_id="_000MovedAndNotReadable")
