"""The admin under popular themes: pages render and buttons work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from django_tiktok_business.simulator import Simulator
from tests.support.browser import Site

ROOT = Path(__file__).resolve().parents[2]
ADMIN = "/admin/tiktok_business/businessaccount/"

pytestmark = pytest.mark.browser


@contextmanager
def themed(
    theme: str, tiktok: str, grant: dict[str, Any], folder: Path
) -> Iterator[dict[str, Any]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.themed_site", theme, tiktok],
        cwd=ROOT,
        env={**os.environ, "THEMED_DATABASE": str(folder / "themed.sqlite3")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(grant) + "\n")
        process.stdin.flush()
        yield json.loads(process.stdout.readline())
        process.stdin.close()


@pytest.mark.parametrize("theme", ["unfold", "jazzmin"])
def test_pages_render_and_buttons_work(
    chromium: webdriver.Chrome, theme: str, tmp_path: Path
) -> None:
    simulator = Simulator()
    with simulator.serve() as tiktok:
        simulator.configure(image_base_url=tiktok)
        issued = simulator.issue_grant("harbour_bakery")
        grant = {name: issued[name] for name in ("open_id", "access_token", "refresh_token")}
        grant["scopes"] = sorted(issued["scope"].split(","))
        with themed(theme, tiktok, grant, tmp_path) as served:
            site = Site(chromium, f"http://127.0.0.1:{served['port']}", simulator, tmp_path)
            site.open("/static/tiktok_business/admin.css")
            chromium.delete_all_cookies()
            chromium.add_cookie({"name": "sessionid", "value": served["session"]})
            site.open(ADMIN)
            assert "Harbour Bakery" in site.text
            site.look(f"{theme}-list")
            site.open(f"{ADMIN}{served['account']}/change/")
            site.look(f"{theme}-account")
            for words in ("Sync profile", "Reconnect", "Disconnect"):
                xpath = f"//*[normalize-space()='{words}']"
                assert chromium.find_elements(By.XPATH, xpath), words
            site.press("Refresh now")
            assert "The tokens are refreshed." in site.text
            assert simulator.count("/tt_user/oauth2/refresh_token/") == 1
            chromium.get("about:blank")
