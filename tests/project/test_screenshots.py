"""``make screenshots``: pictures of the main pages, of which README shows some."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from django_tiktok_business import events, services
from django_tiktok_business.models import BusinessAccount
from tests.support.administrators import make_unreadable
from tests.support.browser import Site
from tests.support.factories import connect, make_user

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "screenshots"
ADMIN = "/admin/tiktok_business/businessaccount/"
LARGEST_BYTES = 120_000

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.once]


def fill(site: Site) -> BusinessAccount:
    """Accounts in every state; the account with the longest story."""
    owner = make_user("ada", is_staff=True, is_superuser=True)
    now = timezone.now()
    states: dict[str, dict[str, Any]] = {
        "alpine_velo": {"refresh_token_expires_at": now + timedelta(days=12)},
        "lena.draws": {"consecutive_failures": 2},
        "tea_and_code": {},
        "mika_bakes": {},
        "galaxy.gadgets": {},
        "harbour_bakery": {},
    }
    for name, values in states.items():
        account = connect(site.simulator, name, owner=owner, metrics_synced_at=None, **values)
        services.sync_profile(account)
    rows = BusinessAccount.objects
    rows.filter(username="mika_bakes").update(status="reauthorization_required")
    make_unreadable(rows.get(username="tea_and_code"))
    account = rows.get(username="harbour_bakery")
    events.record(account, events.Kind.CONNECTED, "default")
    services.refresh_account(account)
    services.refresh_account(account)
    site.let_in(owner)
    return account


def test_screenshots_are_made_and_small(site: Site, tmp_path: Path) -> None:
    wanted = os.environ.get("SCREENSHOTS")
    folder = ROOT / wanted if wanted else tmp_path
    account = fill(site)
    pictures = {
        "overview": (ADMIN, 1280, "light"),
        "account": (f"{ADMIN}{account.pk}/change/", 1280, "dark"),
        "accounts": ("/tiktok/", 1000, "light"),
        "phone": (f"/tiktok/{account.pk}/", 390, "light"),
    }
    with override_settings(TIME_ZONE="UTC"):
        for name, (path, width, scheme) in pictures.items():
            site.open(path)
            site.show_as(width, 900, scheme)
            picture = folder / f"{name}.webp"
            picture.write_bytes(site.picture(width, "webp", scale=0.75))
            assert 5_000 < picture.stat().st_size < LARGEST_BYTES, name
    site.show_as(1280, 900, "light")
    assert {path.stem for path in FOLDER.iterdir()} == set(pictures)


def test_readme_shows_pictures_that_there_are() -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    shown = [line.partition("image:: ")[2] for line in text.splitlines() if "image:: " in line]
    assert len(shown) >= 2
    assert [path for path in shown if not (ROOT / path).is_file()] == []
