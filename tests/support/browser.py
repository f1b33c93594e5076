"""Chromium on the test site, with the simulator as its TikTok: the fixture `site`.

``SCREENSHOTS=folder`` keeps a picture of each page that a test looks at.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from django.conf import settings
from django.test import Client, override_settings
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from django_tiktok_business.simulator import Simulator
from tests.support.requires import require
from tests.support.simulator import override_tiktok

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from selenium.webdriver.remote.webelement import WebElement

__all__ = ["Site", "chromium", "site"]

# Without these, Chromium contacts Google's hosts at every start.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    require("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


class Site:
    """The test site in a browser, with a TikTok that answers over HTTP."""

    def __init__(
        self, driver: webdriver.Chrome, url: str, simulator: Simulator, scratch: Path
    ) -> None:
        self.scratch = scratch
        self.driver = driver
        self.url = url
        self.simulator = simulator
        self.simulator_url = ""  # "" unless it serves

    def log_in(self, username: str) -> None:
        self.open("/admin/login/?next=/admin/")
        self.driver.find_element(By.NAME, "username").send_keys(username)
        self.driver.find_element(By.NAME, "password").send_keys("correct horse")
        self.press("Log in")

    def let_in(self, user: User) -> None:
        """Log in without a form: themes have forms of their own."""
        client = Client()
        client.force_login(user)
        self.open("/static/tiktok_business/pages.css")  # a cookie can only be set for the open site
        name = settings.SESSION_COOKIE_NAME
        self.driver.add_cookie({"name": name, "value": client.cookies[name].value})

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def press(self, words: str) -> None:
        """Press the button or link with these words."""
        xpath = (
            f"//button[normalize-space()='{words}'] | //input[@value='{words}'] | "
            f"//a[normalize-space()='{words}']"
        )
        # A page of another site is empty at first, and looks complete.
        with suppress(TimeoutException):
            WebDriverWait(self.driver, 15).until(
                lambda driver: driver.find_elements(By.XPATH, xpath)
            )
        buttons = self.driver.find_elements(By.XPATH, xpath)
        assert buttons, f"no {words!r} on {self.driver.current_url}: {self.text}"
        button = buttons[0]
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button
        )
        self.driver.execute_script("window.isLeft = true")
        button.click()
        # Querying a page during navigation raises one error or another.
        WebDriverWait(self.driver, 15, ignored_exceptions=[WebDriverException]).until(
            lambda driver: driver.execute_script(
                "return !window.isLeft && document.readyState === 'complete'"
            )
        )

    def go_to(self, words: str) -> WebElement:
        """Press the tab key until the focus is on the button or link with these words."""

        def press(driver: webdriver.Chrome) -> WebElement | Literal[False]:
            focused = driver.switch_to.active_element
            if focused.text.partition("\n")[0].strip() == words:
                return focused
            focused.send_keys(Keys.TAB)
            return False

        return WebDriverWait(self.driver, 30, poll_frequency=0).until(press)

    def wait_until(self, happens: Callable[[], bool]) -> None:
        WebDriverWait(self.driver, 15, ignored_exceptions=[WebDriverException]).until(
            lambda _driver: happens()
        )

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    @property
    def path(self) -> str:
        return self.driver.current_url.removeprefix(self.url)

    def look(self, name: str) -> None:
        """Check the page at desktop and phone width; keep pictures, light and dark, if wanted."""
        wanted = os.environ.get("SCREENSHOTS")
        folder = Path(wanted or self.scratch)
        for width, height in (DESKTOP, PHONE):
            for scheme in ("light", "dark") if wanted else ("light",):
                self.show_as(width, height, scheme)
                needed = self.driver.execute_script("return document.body.scrollWidth")
                assert needed <= width, f"{name} does not fit into {width} pixels"
                (folder / f"{name}-{width}-{scheme}.png").write_bytes(self.picture(width))
        self.show_as(*DESKTOP, "light")

    def picture(self, width: int, kind: str = "png", *, scale: float = 1) -> bytes:
        """A picture of the whole page, including what is below the window."""
        height = self.driver.execute_script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
        options = {"clip": clip, "captureBeyondViewport": True, "format": kind}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        return base64.b64decode(shot["data"])

    def show_as(self, width: int, height: int, scheme: str) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def complaints(self) -> list[Any]:
        """The messages of the console, except about the missing favicon."""
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
        # Of all hosts: a sign-in at the simulator left by another test would skip its page.
        chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
        chromium.get_log("browser")  # type: ignore[no-untyped-call] # of the test before
        site = Site(chromium, live_server.url, simulator, tmp_path)
        site.simulator_url = tiktok
        yield site
        chromium.get("about:blank")
