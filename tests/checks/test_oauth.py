"""System checks on what the OAuth flow needs: redirect URI, TikTok's URLs, session cookie."""

from __future__ import annotations

import pytest
from django.core.checks import Error, Tags, run_checks
from django.core.checks import Warning as CheckWarning

from tests.support.checks import (
    Case,
    reported,
)


def redirect_uri(uri: str, *problems: str) -> list[Case]:
    """Two cases: errors while DEBUG is off, warnings with the same text while it is on."""
    levels: list[tuple[bool, type[Error | CheckWarning], str]] = [
        (False, Error, "tiktok_business.E005"),
        (True, CheckWarning, "tiktok_business.W001"),
    ]
    return [
        Case(
            f"redirect URI {problems[0]}, DEBUG={debug}",
            [
                level(
                    f"TikTok does not accept TIKTOK_BUSINESS['REDIRECT_URI']: it {problem}.",
                    hint="Use a URL like https://YOUR-HOST/tiktok/callback/, here and at TikTok.",
                    id=message_id,
                )
                for problem in problems
            ],
            keys={"REDIRECT_URI": uri},
            django={"DEBUG": debug},
        )
        for debug, level, message_id in levels
    ]


def not_tiktoks(key: str, url: str, consequence: str, default: str, message_id: str) -> Case:
    return Case(
        f"{key} {url}",
        [
            CheckWarning(
                f"TIKTOK_BUSINESS['{key}'] is not an https URL of TikTok, although DEBUG is off: "
                f"{consequence}.",
                hint=f"Remove the key to use the default, {default}.",
                id=message_id,
            )
        ],
        keys={key: url},
    )


def foreign_api(url: str) -> Case:
    return not_tiktoks(
        "API_BASE_URL",
        url,
        "the app's secret and all tokens are sent there",
        "https://business-api.tiktok.com/open_api/v1.3",
        "tiktok_business.W002",
    )


CASES = [
    *redirect_uri("http://example.com/tiktok/callback/", "does not begin with https://"),
    *redirect_uri("https://example.com/tiktok/callback", "does not end with /"),
    *redirect_uri("https://example.com", "does not end with /"),
    *redirect_uri("https://example.com/tiktok/callback/?id=1", "has a query string"),
    *redirect_uri("https://example.com/tiktok/callback/#1", "has a fragment"),
    *redirect_uri("https://example.com:3000/tiktok/callback/", "contains a port"),
    *redirect_uri("https://example.com:port/", "contains a port"),
    *redirect_uri("https://[2001:db8::1]:443/", "contains a port"),
    *redirect_uri("/tiktok/callback/", "is not an absolute URL"),
    *redirect_uri("https:///tiktok/callback/", "is not an absolute URL"),
    *redirect_uri("https://x", "does not end with /", "is 9 characters long, not 10 to 512"),
    *redirect_uri(f"https://example.com/{'a' * 492}/", "is 513 characters long, not 10 to 512"),
    *redirect_uri(
        "http://localhost:8000/tiktok/callback?a=b#c",
        "does not begin with https://",
        "contains a port",
        "does not end with /",
        "has a query string",
        "has a fragment",
    ),
    foreign_api("http://127.0.0.1:8420/open_api/v1.3"),
    foreign_api("http://business-api.tiktok.com/open_api/v1.3"),
    foreign_api("https://business-api.tiktok.com.example.com/open_api/v1.3"),
    foreign_api("https://business-api.tiktok.com@example.com/open_api/v1.3"),
    foreign_api("https://nottiktok.com/open_api/v1.3"),
    not_tiktoks(
        "AUTHORIZATION_URL",
        "http://127.0.0.1:8420/v2/auth/authorize",
        "users are sent there to give consent",
        "https://www.tiktok.com/v2/auth/authorize",
        "tiktok_business.W003",
    ),
    Case(
        "authorization URL of another app",
        [
            Error(
                "TIKTOK_BUSINESS['AUTHORIZATION_URL'] was issued for another app: its client_key "
                "is not TIKTOK_BUSINESS['APP_ID'].",
                hint="Copy both from the same app in TikTok's developer portal.",
                id="tiktok_business.E009",
            )
        ],
        keys={"AUTHORIZATION_URL": "https://www.tiktok.com/v2/auth/authorize?client_key=7"},
    ),
    Case(
        "authorization URL with another redirect URI",
        [
            CheckWarning(
                "The redirect_uri in TIKTOK_BUSINESS['AUTHORIZATION_URL'] differs from "
                "TIKTOK_BUSINESS['REDIRECT_URI'].",
                hint="Make them identical, character for character.",
                id="tiktok_business.W009",
            )
        ],
        keys={
            "AUTHORIZATION_URL": "https://www.tiktok.com/v2/auth/authorize"
            "?client_key=7000000000000000001"
            "&redirect_uri=https%3A%2F%2Fexample.com%2Fother%2F"
        },
    ),
    *(
        Case(
            f"session cookie {value}",
            [
                CheckWarning(
                    "SESSION_COOKIE_SAMESITE is 'Strict', so browsers do not send the session "
                    "cookie when TikTok redirects a visitor back: nobody can connect an account.",
                    hint='Set SESSION_COOKIE_SAMESITE = "Lax", which is Django\'s default.',
                    id="tiktok_business.W012",
                )
            ],
            django={"SESSION_COOKIE_SAMESITE": value},
        )
        for value in ("Strict", "strict")
    ),
    Case(
        "redirect URI from the request",
        [
            CheckWarning(
                "TIKTOK_BUSINESS['REDIRECT_URI'] is not set, so the redirect URI is built from "
                "the request. Behind a proxy, its scheme or host may differ from the registered "
                "one.",
                hint='Set "REDIRECT_URI": "https://YOUR-HOST/tiktok/callback/", exactly as '
                "registered with TikTok.",
                id="tiktok_business.W011",
            )
        ],
        without="REDIRECT_URI",
        deploy=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fault_is_reported_and_nothing_else(case: Case) -> None:
    with case.configured():
        assert reported(deploy=case.deploy) == case.expected


@pytest.mark.parametrize(
    "uri", ["https://a/", f"https://example.com/{'a' * 491}/", "https://[2001:db8::1]/", None]
)
def test_redirect_uri_within_the_rules_is_silent(uri: str | None) -> None:
    with Case("", [], keys={"REDIRECT_URI": uri}).configured():
        assert reported() == []


def test_simulator_urls_are_silent_while_debug_is_on() -> None:
    keys = {
        "AUTHORIZATION_URL": "http://127.0.0.1:8420/v2/auth/authorize",
        "API_BASE_URL": "http://127.0.0.1:8420/open_api/v1.3",
    }
    with Case("", [], keys=keys, django={"DEBUG": True}).configured():
        assert reported() == []


def test_portal_issued_url_of_the_same_app_is_silent() -> None:
    url = (
        "https://www.tiktok.com/v2/auth/authorize?client_key=7000000000000000001"
        "&scope=user.info.basic%2Cvideo.list&response_type=code"
        "&redirect_uri=https%3A%2F%2Fexample.com%2Ftiktok%2Fcallback%2F"
    )
    with Case("", [], keys={"AUTHORIZATION_URL": url}).configured():
        assert reported() == []
    with Case("", [], keys={"AUTHORIZATION_URL": url, "REDIRECT_URI": None}).configured():
        assert reported() == []


def test_f47_redirect_uri_from_the_request_is_reported_for_deployment_only() -> None:
    case = next(case for case in CASES if case.deploy)
    with case.configured():
        assert reported() == []
        assert reported(deploy=True) == case.expected


def test_f47_redirect_uri_checks_are_security_checks() -> None:
    (case, _) = redirect_uri("http://example.com/tiktok/callback/", "does not begin with https://")
    with case.configured():
        assert case.expected[0] in run_checks(tags=[Tags.security])
