"""System checks on the settings: keys, values, cache, session factory, time zone."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.core.checks import Error
from django.core.checks import Warning as CheckWarning

from django_tiktok_business.conf.settings import SETTINGS
from tests.support.checks import (
    GOOD_CASE,
    KEY,
    Case,
    reported,
)
from tests.support.simulator import override_tiktok

NO_DICT = Error(
    "The setting TIKTOK_BUSINESS is missing or not a dict.",
    hint='Set TIKTOK_BUSINESS = {"APP_ID": "...", "APP_SECRET": "..."}.',
    id="tiktok_business.E001",
)


def wrong_value(key: str, value: object, problem: str) -> Case:
    return Case(
        f"wrong {key} {type(value).__name__}",
        [
            Error(
                f"TIKTOK_BUSINESS['{key}'] {problem}.",
                hint=f'Set "{key}": {SETTINGS[key].example}.',
                id="tiktok_business.E004",
            )
        ],
        keys={key: value},
    )


def unknown_key(key: object, hint: str) -> Case:
    return Case(
        f"unknown key {key!r}",
        [
            Error(
                f"TIKTOK_BUSINESS has the unknown key {key!r}.",
                hint=hint,
                id="tiktok_business.E003",
            )
        ],
        keys={key: "x"},  # type: ignore[dict-item]
    )


def session_factory(path: str, problem: str) -> Case:
    return Case(
        f"session factory {path}",
        [
            Error(
                f"TIKTOK_BUSINESS['SESSION_FACTORY_PATH']: '{path}' {problem}.",
                hint="Set the dotted path of a function that returns a requests.Session.",
                id="tiktok_business.E007",
            )
        ],
        keys={"SESSION_FACTORY_PATH": path},
    )


CASES = [
    Case("no dict", [NO_DICT], django={"TIKTOK_BUSINESS": ["APP_ID"]}),
    Case(
        "no app id",
        [
            Error(
                "TIKTOK_BUSINESS['APP_ID'] is missing.",
                hint='Add "APP_ID": "7000000000000000001" with the value from TikTok\'s developer '
                "portal.",
                id="tiktok_business.E002",
            )
        ],
        without="APP_ID",
    ),
    Case(
        "no app secret",
        [
            Error(
                "TIKTOK_BUSINESS['APP_SECRET'] is missing.",
                hint='Add "APP_SECRET": "the secret that TikTok\'s developer portal shows" with '
                "the value from TikTok's developer portal.",
                id="tiktok_business.E002",
            )
        ],
        without="APP_SECRET",
    ),
    unknown_key("REFRESH_WITHIN", "Did you mean 'REFRESH_WITHIN_SECONDS'?"),
    unknown_key("app_secert", "Did you mean 'APP_SECRET'?"),
    unknown_key("ENCRYPTION_KEY", "Did you mean 'ENCRYPTION_KEYS'?"),
    unknown_key("FAVOURITE_COLOUR", "Remove it."),
    unknown_key(5, "Remove it."),
    wrong_value(
        "APP_ID",
        7000000000000000001,
        "must be a string without spaces around it (write the digits in quotes), "
        "not 7000000000000000001",
    ),
    wrong_value("APP_SECRET", 5, "must be a string without spaces around it (its type is int)"),
    wrong_value(
        "APP_SECRET", None, "must be a string without spaces around it (its type is NoneType)"
    ),
    wrong_value(
        "ENCRYPTION_KEYS",
        KEY,
        "must be a list of non-empty strings without spaces around them (its type is str)",
    ),
    wrong_value("REDIRECT_URI", 5, "must be an absolute URL, or None, not 5"),
    wrong_value(
        "AUTHORIZATION_URL",
        "/authorize",
        "must be an absolute http or https URL without fragment (its type is str)",
    ),
    wrong_value(
        "API_BASE_URL",
        "https://business-api.tiktok.com/?a=b",
        "must be an absolute http or https URL without query and fragment (its type is str)",
    ),
    wrong_value(
        "SCOPES",
        "video.list",
        "must be a list of at least one scope, each a string without commas and spaces, "
        "not 'video.list'",
    ),
    wrong_value("DISABLE_AUTO_AUTH", "False", "must be True or False, not 'False'"),
    wrong_value(
        "CONNECT_PERMISSION",
        "connect",
        "must be a permission as \"app_label.codename\", or None, not 'connect'",
    ),
    wrong_value(
        "CONNECT_REDIRECT_URL",
        "",
        "must be a URL, a path or the name of a URL pattern, or None, not ''",
    ),
    wrong_value("STATE_MAX_AGE_SECONDS", 0, "must be a whole number from 1 to 86400, not 0"),
    wrong_value("REQUEST_TIMEOUT_SECONDS", 0, "must be a whole number from 1 to 600, not 0"),
    wrong_value("MAX_ATTEMPTS", True, "must be a whole number from 1 to 10, not True"),
    wrong_value("REQUESTS_PER_MINUTE", -1, "must be a whole number of at least 0, not -1"),
    wrong_value("CACHE_ALIAS", None, "must be the name of a cache in CACHES, not None"),
    wrong_value(
        "REFRESH_WITHIN_SECONDS", "6h", "must be a whole number from 0 to 31536000, not '6h'"
    ),
    wrong_value(
        "REFRESH_MARGIN_SECONDS", 86400, "must be a whole number from 0 to 86399, not 86400"
    ),
    wrong_value("REFRESH_CONCURRENCY", 1000, "must be a whole number from 1 to 128, not 1000"),
    wrong_value("EVENTS_KEPT_DAYS", 0, "must be a whole number from 1 to 36500, not 0"),
    wrong_value("EVENTS_KEPT_PER_ACCOUNT", -1, "must be a whole number from 0 to 100000, not -1"),
    wrong_value("CLAIM_SECONDS", 0.5, "must be a whole number from 1 to 86400, not 0.5"),
    wrong_value("REJECTION_CONFIRM_SECONDS", -1, "must be a whole number from 0 to 86400, not -1"),
    wrong_value(
        "REAUTHORIZATION_WARNING_DAYS", 400, "must be a whole number from 0 to 365, not 400"
    ),
    wrong_value(
        "NOTIFY",
        ["ops"],
        'must be a list of e-mail addresses, or "owner" for that of the account\'s owner, '
        "not ['ops']",
    ),
    wrong_value("WEBHOOK_TOLERANCE_SECONDS", 0, "must be a whole number from 1 to 86400, not 0"),
    wrong_value(
        "SESSION_FACTORY_PATH",
        "session",
        "must be the dotted path of a callable, or None, not 'session'",
    ),
    Case(
        "unknown cache",
        [
            Error(
                "TIKTOK_BUSINESS['CACHE_ALIAS'] is 'elsewhere', which is not in CACHES.",
                hint="Use one of: 'default', 'shared'.",
                id="tiktok_business.E006",
            )
        ],
        keys={"CACHE_ALIAS": "elsewhere"},
        django={"CACHES": {"default": {}, "shared": {}}},
    ),
    session_factory(
        "no_such_module.session", "cannot be imported (No module named 'no_such_module')"
    ),
    session_factory(
        "requests.no_such_session",
        'cannot be imported (Module "requests" does not define a "no_such_session" '
        "attribute/class)",
    ),
    session_factory("requests.codes", "is not callable"),
    *(
        Case(
            f"{cache} cache",
            [
                CheckWarning(
                    f"The cache of TIKTOK_BUSINESS['CACHE_ALIAS'] is a {cache}, which cannot "
                    "share a rate limit: each process makes up to REQUESTS_PER_MINUTE calls.",
                    hint="Use Redis, Memcached or the database cache, or divide "
                    "REQUESTS_PER_MINUTE by the number of processes.",
                    id="tiktok_business.W013",
                )
            ],
            django={"CACHES": {"default": {"BACKEND": f"django.core.cache.backends.{path}"}}},
            deploy=True,
        )
        for cache, path in [
            ("LocMemCache", "locmem.LocMemCache"),
            ("DummyCache", "dummy.DummyCache"),
            ("FileBasedCache", "filebased.FileBasedCache"),
        ]
    ),
    Case(
        "short claim for a slow answer",
        [
            Error(
                "TIKTOK_BUSINESS['CLAIM_SECONDS'] is 94, but with REQUEST_TIMEOUT_SECONDS = 20 and "
                "MAX_ATTEMPTS = 3 one refresh can take 95 seconds, including pauses. A second "
                "worker could refresh the same account in the meantime.",
                hint='Set "CLAIM_SECONDS": 95, or a shorter timeout.',
                id="tiktok_business.E010",
            )
        ],
        keys={"CLAIM_SECONDS": 94},
    ),
    Case(
        "short claim for many tries",
        [
            Error(
                "TIKTOK_BUSINESS['CLAIM_SECONDS'] is 120, but with REQUEST_TIMEOUT_SECONDS = 20 "
                "and MAX_ATTEMPTS = 4 one refresh can take 125 seconds, including pauses. A second "
                "worker could refresh the same account in the meantime.",
                hint='Set "CLAIM_SECONDS": 125, or a shorter timeout.',
                id="tiktok_business.E010",
            )
        ],
        keys={"MAX_ATTEMPTS": 4},
    ),
    Case(
        "naive times",
        [
            Error(
                "USE_TZ is False. Local times repeat an hour when the clocks go back, so it would "
                "be ambiguous when a token expires.",
                hint="Set USE_TZ = True.",
                id="tiktok_business.E008",
            )
        ],
        django={"USE_TZ": False},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fault_is_reported_and_nothing_else(case: Case) -> None:
    with case.configured():
        assert reported(deploy=case.deploy) == case.expected


def test_every_wrong_value_has_a_case() -> None:
    wrong = {str(m.msg) for case in CASES for m in case.expected if m.id == "tiktok_business.E004"}
    assert {message.split("'")[1] for message in wrong} == set(SETTINGS)


def test_missing_setting_is_reported_once() -> None:
    with GOOD_CASE.configured():
        del settings.TIKTOK_BUSINESS
        assert reported(deploy=True) == [NO_DICT]


def test_empty_dict_misses_both_credentials() -> None:
    with GOOD_CASE.configured(TIKTOK_BUSINESS={}):
        assert sorted(str(message.id) for message in reported()) == [
            "tiktok_business.E002",
            "tiktok_business.E002",
            "tiktok_business.W004",
        ]


def test_working_session_factory_is_silent() -> None:
    with Case("", [], keys={"SESSION_FACTORY_PATH": "requests.Session"}).configured():
        assert reported() == []


def test_session_factory_in_a_module_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "failing_proxies.py"
    module.write_text("raise KeyError('http://user:canary@proxy')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with override_tiktok(SESSION_FACTORY_PATH="failing_proxies.session"):
        (message,) = [each for each in reported() if each.id == "tiktok_business.E007"]
    assert "cannot be imported (KeyError)" in message.msg
    assert "canary" not in str(message)
