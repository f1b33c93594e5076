"""What the doctor examines: each problem is found, named, and reported with advice."""

from __future__ import annotations

from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import requests
from django.db import OperationalError
from django.test import override_settings
from django.urls import include, path
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.doctor import WELL, examine, troubles
from tests.support.factories import connect, make_account
from tests.support.simulator import (
    next_statement,
    override_tiktok,
    simulator_session,
)

Status = BusinessAccount.Status

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("examined")]


def test_account_that_tiktok_confirms(examined: Simulator) -> None:
    account = connect(examined)
    with override_tiktok(SCOPES=account.scopes):
        assert examine("--account", account.open_id) == (
            0,
            [*WELL, f"✓ {account.open_id}: TikTok accepts the token, with the stored scopes."],
        )


def test_wrong_settings_end_the_examination(examined: Simulator) -> None:
    with override_tiktok(REQUEST_TIMEOUT_SECONDS="20", APP_IDD="7"):
        status, lines = examine()
    assert status == 2
    assert any("(tiktok_business.E003)" in line for line in lines)
    assert any("(tiktok_business.E004)" in line for line in lines)
    assert lines[-2:] == [
        "✗ The rest was not looked at.",
        "    Mend the settings and run it again.",
    ]
    assert examined.count("/tt_user/oauth2/refresh_token/") == 0


@override_settings(SILENCED_SYSTEM_CHECKS=[])
def test_warnings_of_the_checks_are_passed_on(examined: Simulator) -> None:
    with override_tiktok(REQUESTS_PER_MINUTE=600):
        status, lines = troubles()
    assert status == 1
    assert lines[0].startswith("! The cache of TIKTOK_BUSINESS['CACHE_ALIAS'] is a LocMemCache")
    assert lines[0].endswith("(tiktok_business.W013)")
    assert lines[1].startswith("    Use Redis")


urlpatterns = [path("elsewhere/", include("django_tiktok_business.urls"))]


@override_settings(ROOT_URLCONF=__name__)
def test_redirect_uri_that_leads_elsewhere() -> None:
    assert troubles() == (
        1,
        [
            "! REDIRECT_URI leads to /tiktok/callback/, and the callback is /elsewhere/callback/.",
            "    Make the two equal, here and in TikTok's portal, unless a proxy changes the path.",
        ],
    )


class WithoutOurUrls:
    urlpatterns: tuple[()] = ()


@override_settings(ROOT_URLCONF=WithoutOurUrls)
def test_urls_that_are_not_included() -> None:
    status, lines = troubles()
    assert (status, lines[0]) == (2, "✗ The callback has no URL.")
    assert "include(" in lines[1]


def test_redirect_uri_from_the_request() -> None:
    with (
        override_tiktok(REDIRECT_URI=None),
        override_settings(SILENCED_SYSTEM_CHECKS=["tiktok_business.W011", "tiktok_business.W013"]),
    ):
        status, lines = examine()
    assert status == 0
    assert lines[1] == "✓ The callback is /tiktok/callback/, on whichever host the site is visited."


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("dummy.DummyCache", "! Cache 'default' does not keep what is"),
        (
            "redis.RedisCache",
            "! Cache 'default' fails (ConnectionError)",
        ),
    ],
)
def test_cache_that_processes_cannot_share(backend: str, message: str) -> None:
    caches = {
        "default": {
            "BACKEND": f"django.core.cache.backends.{backend}",
            "LOCATION": "redis://127.0.0.1:9",
        }
    }
    with override_settings(CACHES=caches):
        status, lines = troubles()
    assert status == 1
    assert lines[0].startswith(message)
    assert lines[1].startswith("    ")


SILENCED = [f"tiktok_business.{each}" for each in ("W002", "W003", "W013")]


@override_settings(SILENCED_SYSTEM_CHECKS=SILENCED)
def test_api_that_cannot_be_reached(examined: Simulator) -> None:
    account = connect(examined)
    api = "http://user:password-canary@127.0.0.1:9/open_api/v1.3"
    with examined.serve() as base_url:
        authorization_url = f"{base_url}/v2/auth/authorize"
        with override_tiktok(
            SESSION_FACTORY_PATH=None, AUTHORIZATION_URL=authorization_url, API_BASE_URL=api
        ):
            status, lines = troubles("--account", account.open_id)
    assert status == 2
    assert lines[0].startswith("✗ 127.0.0.1:9: TikTok cannot be reached: ConnectionError / ")
    assert lines[1:] == ["    Look at the firewall, at the proxy, and at SESSION_FACTORY_PATH."]
    assert "canary" not in str(lines)


@override_settings(SILENCED_SYSTEM_CHECKS=SILENCED)
def test_authorization_page_is_for_browsers(examined: Simulator) -> None:
    with (
        examined.serve() as base_url,
        override_tiktok(
            SESSION_FACTORY_PATH=None,
            AUTHORIZATION_URL="http://127.0.0.1:9/v2/auth/authorize",
            API_BASE_URL=f"{base_url}/open_api/v1.3",
        ),
    ):
        status, lines = examine()
    assert status == 1
    assert [line for line in lines if "browsers" in line] == [
        "    Only the browsers of account holders need it, not this machine."
    ]
    assert "✓ TikTok accepts APP_ID and APP_SECRET." in lines


def no_session() -> None:
    return None


def test_session_factory_that_returns_no_session() -> None:
    with override_tiktok(SESSION_FACTORY_PATH=f"{__name__}.no_session"):
        assert troubles() == (
            2,
            [
                "✗ SESSION_FACTORY_PATH gives no session (AttributeError).",
                "    Have it return a requests.Session.",
            ],
        )


@override_settings(ROOT_URLCONF="tests.no_such_urls")
def test_urls_that_cannot_be_loaded() -> None:
    status, lines = troubles()
    assert status == 2
    assert lines[0] == "✗ The project's URLs cannot be loaded (ModuleNotFoundError)."


def test_redirect_uri_that_is_not_a_url() -> None:
    with override_tiktok(REDIRECT_URI="https://[bad/tiktok/callback/"):
        status, lines = troubles()
    assert status == 2
    assert "✗ REDIRECT_URI is no URL." in lines


def test_no_key_at_all(settings: Any) -> None:
    settings.SECRET_KEY = ""
    with override_tiktok(ENCRYPTION_KEYS=[]):
        status, lines = troubles()
    assert status == 2
    assert any(line.startswith("✗ ") and "SECRET_KEY" in line for line in lines)
    assert lines[-2] == "✗ The rest was not looked at."


def test_clock_agrees_with_that_of_a_real_server(examined: Simulator) -> None:
    with (
        examined.serve() as base_url,
        override_tiktok(
            SESSION_FACTORY_PATH=None,
            AUTHORIZATION_URL=f"{base_url}/v2/auth/authorize",
            API_BASE_URL=f"{base_url}/open_api/v1.3",
        ),
        override_settings(SILENCED_SYSTEM_CHECKS=SILENCED),
    ):
        status, lines = examine()
    assert status == 0
    assert (
        f"✓ This machine's clock agrees with that of {base_url.removeprefix('http://')}." in lines
    )


_date = ""


def dated_session() -> requests.Session:
    session = simulator_session()

    def set_date(response: requests.Response, **kwargs: Any) -> None:
        response.headers["Date"] = _date

    session.hooks["response"].append(set_date)
    return session


@pytest.mark.parametrize(
    ("seconds", "difference"), [(-120, "120 seconds ahead of"), (180, "180 seconds behind")]
)
def test_clock_that_is_off(seconds: int, difference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host_time = timezone.now() + timedelta(seconds=seconds, milliseconds=500)
    monkeypatch.setitem(globals(), "_date", format_datetime(host_time.replace(microsecond=0)))
    with override_tiktok(SESSION_FACTORY_PATH=f"{__name__}.dated_session"):
        status, lines = troubles()
    assert status == 1
    value, _, direction = difference.partition(" seconds ")
    (line, hint) = lines[:2]
    assert f" seconds {direction} that of www.tiktok.com." in line
    reported = int(line.removeprefix("! This machine's clock is ").split()[0])
    assert abs(reported - int(value)) <= 20, "some seconds pass on a busy machine"
    assert "NTP" in hint


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_host_without_a_usable_date(date: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "_date", date)
    with override_tiktok(SESSION_FACTORY_PATH=f"{__name__}.dated_session"):
        status, lines = examine()
    assert status == 0
    assert not any("clock" in line for line in lines)


def test_f09_wrong_secret(examined: Simulator) -> None:
    connect(examined)
    with override_tiktok(APP_SECRET="canary-of-a-secret"):
        status, lines = troubles()
    assert status == 2
    assert lines[0].startswith("✗ TikTok refuses the app: ")
    assert "portal" in lines[1]
    assert "canary" not in str(lines)
    assert BusinessAccount.objects.get().status == Status.ACTIVE


def test_credentials_that_cannot_be_checked(examined: Simulator) -> None:
    examined.fail_next(http_status=502)
    status, lines = troubles()
    assert status == 1
    assert lines[0].startswith("! Whether TikTok accepts the app could not be found out: ")


def test_accounts_in_trouble(examined: Simulator) -> None:
    now = timezone.now()
    make_account(open_id="foreign", app_id="another app")
    make_account(open_id="lost", status=Status.REAUTHORIZATION_REQUIRED)
    make_account(open_id="overdue", access_token_expires_at=now - timedelta(hours=1))
    make_account(open_id="failing", consecutive_failures=3)
    make_account(open_id="stuck", claim_id="dead", claim_expires_at=now - timedelta(hours=1))
    make_account(open_id="gone", status=Status.REVOKED, access_token="", refresh_token="")
    status, lines = examine()
    assert status == 1
    assert [line for line in lines[6:] if not line.startswith(" ")] == [
        "✓ Accounts: 3 active, 1 reauthorization_required, 1 revoked.",
        "! 1 accounts belong to another app than APP_ID and are never refreshed.",
        "! 1 accounts have to be connected again, now or soon.",
        "! 1 active accounts have an expired access token.",
        "! 1 active accounts could not be refreshed the last time.",
        "! 1 accounts are still claimed by a worker that is gone.",
    ]


def test_tokens_that_no_configured_key_decrypts(examined: Simulator) -> None:
    connect(examined)
    with override_tiktok(ENCRYPTION_KEYS=["another-key-another-key-another-key-012345"]):
        status, lines = troubles()
    assert status == 1
    assert lines[0].endswith("(tiktok_business.W014)")


def test_account_with_other_scopes_than_stored(examined: Simulator) -> None:
    account = connect(examined, scopes=["video.publish"])
    status, lines = troubles("--account", account.open_id)
    assert status == 1
    assert f"! {account.open_id}: TikTok says that the token is for {account.open_id}, " in lines[0]
    assert lines[0].endswith("; stored are video.publish.")
    assert lines[1].endswith("which stores what TikTok grants.")


def test_account_without_a_scope_that_the_site_requests(examined: Simulator) -> None:
    account = connect(examined)
    with override_tiktok(SCOPES=[*account.scopes, "some.new.scope"]):
        assert troubles("--account", account.open_id) == (
            1,
            [
                f"! {account.open_id}: its holder has not granted some.new.scope.",
                "    Have it connected again, or take these out of SCOPES.",
            ],
        )


def test_account_that_is_unknown_or_rejected(examined: Simulator) -> None:
    account = connect(examined)
    examined.revoke_grant(account.open_id)
    status, lines = troubles("--account", "nobody", "--account", account.open_id)
    assert status == 2
    assert lines[0] == "✗ nobody is not connected to the configured app."
    assert lines[2].startswith(f"✗ {account.open_id}: ")


def test_database_that_is_down() -> None:
    with next_statement("SELECT", OperationalError("row: act.canary")) as fail:
        fail()
        status, lines = troubles()
    assert status == 2
    assert lines == [
        "✗ The database failed (OperationalError).",
        "    Is it up, and is `migrate` done?",
    ]
