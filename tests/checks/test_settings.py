from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, run_checks
from django.core.checks import Warning as CheckWarning
from django.core.checks.registry import registry
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from django_tiktok_business.checks import encryption as encryption_checks
from django_tiktok_business.checks import oauth as oauth_checks
from django_tiktok_business.checks import settings as settings_checks
from django_tiktok_business.conf.settings import SETTINGS
from tests.support.simulator import override_tiktok

TAG = "tiktok_business"
APP_SECRET = "app-secret-of-the-checks-tests"
KEY = "checks-tests-Kd8sVq3ZtLw6XhBn1RyMgPc9FjUe4Ta2"
OTHER_KEY = "checks-tests-Wb2vRz7NkTx5QcHf8JyLpGs1DmEu6Ya4"
DJANGO_KEY = "checks-tests-Mt4xYp9LgSb7VwJd2KzNrHc6QfAe3Ub8"
OLD_DJANGO_KEY = "checks-tests-Zn5wKm8QhPv3RtCy6XsBdLj9GfUa2Te7"
GOOD: dict[str, Any] = {
    "APP_ID": "7000000000000000001",
    "APP_SECRET": APP_SECRET,
    "ENCRYPTION_KEYS": [KEY],
    "REDIRECT_URI": "https://example.com/tiktok/callback/",
}
NEW_KEY_HINT = (
    'Print a new key with: python -c "import secrets; print(secrets.token_urlsafe(48))". '
    "Put it first in TIKTOK_BUSINESS['ENCRYPTION_KEYS'], and keep {} after it for as long as "
    "stored tokens are encrypted with it."
)


@dataclass
class Case:
    """A configuration with one fault, and everything that is reported about it."""

    name: str
    expected: list[CheckMessage]
    keys: dict[str, Any] = field(default_factory=dict)  # on top of GOOD
    without: str = ""  # the key of GOOD to leave out
    django: dict[str, Any] = field(default_factory=dict)
    deploy: bool = False

    @contextmanager
    def configured(self, **django: Any) -> Iterator[None]:
        values = {name: value for name, value in GOOD.items() if name != self.without}
        tiktok = {"TIKTOK_BUSINESS": values | self.keys}
        keys = {
            "SECRET_KEY": DJANGO_KEY,
            "SECRET_KEY_FALLBACKS": [OLD_DJANGO_KEY],
            "CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache"}},
        }
        with ExitStack() as stack:
            for layer in (tiktok, keys, self.django, django):
                stack.enter_context(override_settings(**layer))
            yield


def reported(*, deploy: bool = False) -> list[CheckMessage]:
    return run_checks(tags=[TAG], include_deployment_checks=deploy)


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
                    f"TikTok does not take TIKTOK_BUSINESS['REDIRECT_URI']: it {problem}.",
                    hint="Register and write a URL like https://YOUR-HOST/tiktok/callback/.",
                    id=message_id,
                )
                for problem in problems
            ],
            keys={"REDIRECT_URI": uri},
            django={"DEBUG": debug},
        )
        for debug, level, message_id in levels
    ]


def wrong_value(key: str, value: object, problem: str) -> Case:
    return Case(
        f"wrong {key} {type(value).__name__}",
        [
            Error(
                f"TIKTOK_BUSINESS['{key}'] {problem}.",
                hint=f'Write "{key}": {SETTINGS[key].example}.',
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


def not_tiktoks(key: str, url: str, consequence: str, default: str, message_id: str) -> Case:
    return Case(
        f"{key} {url}",
        [
            CheckWarning(
                f"TIKTOK_BUSINESS['{key}'] is not an https URL of TikTok although DEBUG is off: "
                f"{consequence}.",
                hint=f"Remove the key for the default: {default}.",
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


def weak_key(name: str, keys: list[str], *faults: tuple[int, str, str], **django: Any) -> Case:
    return Case(
        name,
        [
            CheckWarning(
                f"TIKTOK_BUSINESS['ENCRYPTION_KEYS'][{index}] {problem}.",
                hint="Remove it." if number == "W008" else NEW_KEY_HINT.format("this one"),
                id=f"tiktok_business.{number}",
            )
            for index, problem, number in faults
        ],
        keys={"ENCRYPTION_KEYS": keys},
        django=django,
    )


def session_factory(path: str, problem: str) -> Case:
    return Case(
        f"session factory {path}",
        [
            Error(
                f"TIKTOK_BUSINESS['SESSION_FACTORY_PATH']: '{path}' {problem}.",
                hint="Write the dotted path of a function that returns a requests.Session.",
                id="tiktok_business.E007",
            )
        ],
        keys={"SESSION_FACTORY_PATH": path},
    )


NO_DICT = Error(
    "The setting TIKTOK_BUSINESS is missing or not a dict.",
    hint='Write TIKTOK_BUSINESS = {"APP_ID": "...", "APP_SECRET": "..."}.',
    id="tiktok_business.E001",
)
SHORT = "is shorter than 32 characters"
GUESSABLE = "is easy to guess: it repeats itself or uses few different characters"
SHARED = "is also Django's (SECRET_KEY, SECRET_KEY_FALLBACKS): neither can be replaced alone"
REPEATED = "repeats an earlier key"

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
    unknown_key("REFRESH_WITHIN", "Write 'REFRESH_WITHIN_SECONDS'."),
    unknown_key("app_secert", "Write 'APP_SECRET'."),
    unknown_key("ENCRYPTION_KEY", "Write 'ENCRYPTION_KEYS'."),
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
    *redirect_uri("http://example.com/tiktok/callback/", "does not begin with https://"),
    *redirect_uri("https://example.com/tiktok/callback", "does not end in /"),
    *redirect_uri("https://example.com", "does not end in /"),
    *redirect_uri("https://example.com/tiktok/callback/?id=1", "has a query"),
    *redirect_uri("https://example.com/tiktok/callback/#1", "has a fragment"),
    *redirect_uri("https://example.com:3000/tiktok/callback/", "names a port"),
    *redirect_uri("https://example.com:port/", "names a port"),
    *redirect_uri("https://[2001:db8::1]:443/", "names a port"),
    *redirect_uri("/tiktok/callback/", "is not an absolute URL"),
    *redirect_uri("https:///tiktok/callback/", "is not an absolute URL"),
    *redirect_uri("https://x", "does not end in /", "is 9 characters long, not 10 to 512"),
    *redirect_uri(f"https://example.com/{'a' * 492}/", "is 513 characters long, not 10 to 512"),
    *redirect_uri(
        "http://localhost:8000/tiktok/callback?a=b#c",
        "does not begin with https://",
        "names a port",
        "does not end in /",
        "has a query",
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
                "The redirect_uri inside TIKTOK_BUSINESS['AUTHORIZATION_URL'] is not "
                "TIKTOK_BUSINESS['REDIRECT_URI'].",
                hint="Make the two equal, character by character.",
                id="tiktok_business.W009",
            )
        ],
        keys={
            "AUTHORIZATION_URL": "https://www.tiktok.com/v2/auth/authorize"
            "?client_key=7000000000000000001"
            "&redirect_uri=https%3A%2F%2Fexample.com%2Fother%2F"
        },
    ),
    Case(
        "no encryption key",
        [
            CheckWarning(
                "TIKTOK_BUSINESS['ENCRYPTION_KEYS'] is empty, so tokens are encrypted with "
                "SECRET_KEY: once SECRET_KEY is replaced and its old value has left "
                "SECRET_KEY_FALLBACKS, no stored token can be read and every account has to be "
                "connected again.",
                hint=NEW_KEY_HINT.format("the present SECRET_KEY (and SECRET_KEY_FALLBACKS)"),
                id="tiktok_business.W004",
            )
        ],
        without="ENCRYPTION_KEYS",
    ),
    weak_key("short key", [KEY[:31]], (0, SHORT, "W005")),
    weak_key("second key short", [KEY, "secret"], (1, SHORT, "W005")),
    weak_key("key of one character", ["a" * 64], (0, GUESSABLE, "W006")),
    weak_key("key of one word repeated", ["correcthorse" * 5], (0, GUESSABLE, "W006")),
    weak_key("key of a word cut off", [("change-me-" * 4)[:-1]], (0, GUESSABLE, "W006")),
    weak_key("key of few characters", ["abacabadabacabaaabbccddabcdabcda"], (0, GUESSABLE, "W006")),
    weak_key("key of Django", [DJANGO_KEY], (0, SHARED, "W007")),
    weak_key("old key of Django", [KEY, OLD_DJANGO_KEY], (1, SHARED, "W007")),
    weak_key(
        "short key of Django",
        ["django-insecure"],
        (0, SHARED, "W007"),
        (0, SHORT, "W005"),
        SECRET_KEY="django-insecure",
    ),
    weak_key("key twice", [KEY, OTHER_KEY, KEY], (2, REPEATED, "W008")),
    weak_key("short key twice", ["short", "short"], (0, SHORT, "W005"), (1, REPEATED, "W008")),
    Case(
        "unknown cache",
        [
            Error(
                "TIKTOK_BUSINESS['CACHE_ALIAS'] is 'ceiling', which is not in CACHES.",
                hint="Write one of: 'default', 'shared'.",
                id="tiktok_business.E006",
            )
        ],
        keys={"CACHE_ALIAS": "ceiling"},
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
                    f"The cache of TIKTOK_BUSINESS['CACHE_ALIAS'] is a {cache}, so each process "
                    "makes REQUESTS_PER_MINUTE calls by itself.",
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
                "MAX_ATTEMPTS = 3 one refresh may take 95 seconds, pauses included: a second "
                "worker could refresh the same account meanwhile.",
                hint='Write "CLAIM_SECONDS": 95, or shorten the time-out.',
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
                "and MAX_ATTEMPTS = 4 one refresh may take 125 seconds, pauses included: a second "
                "worker could refresh the same account meanwhile.",
                hint='Write "CLAIM_SECONDS": 125, or shorten the time-out.',
                id="tiktok_business.E010",
            )
        ],
        keys={"MAX_ATTEMPTS": 4},
    ),
    Case(
        "naive times",
        [
            Error(
                "USE_TZ is False: local times without a zone repeat an hour when the clocks go "
                "back, so it would be unknown when a token expires.",
                hint="Write USE_TZ = True.",
                id="tiktok_business.E008",
            )
        ],
        django={"USE_TZ": False},
    ),
    *(
        Case(
            f"session cookie {value}",
            [
                CheckWarning(
                    "SESSION_COOKIE_SAMESITE is 'Strict', so browsers do not send the session "
                    "cookie when TikTok sends a visitor back: nobody can connect an account in "
                    "the browser.",
                    hint='Write SESSION_COOKIE_SAMESITE = "Lax", which is Django\'s default.',
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
                "the request: behind a proxy its scheme or host may not be the registered one.",
                hint='Write "REDIRECT_URI": "https://YOUR-HOST/tiktok/callback/", exactly as '
                "registered with TikTok.",
                id="tiktok_business.W011",
            )
        ],
        without="REDIRECT_URI",
        deploy=True,
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
GOOD_CASE = Case("good", [])


@each_case
def test_fault_is_reported_and_nothing_else(case: Case) -> None:
    with case.configured():
        assert reported(deploy=case.deploy) == case.expected


@each_case
def test_check_command_reports_the_fault_until_it_is_silenced(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sorted({str(message.id) for message in case.expected})
    options: dict[str, Any] = {"tags": [TAG], "deploy": case.deploy, "fail_level": "WARNING"}
    with case.configured(), pytest.raises(SystemCheckError) as caught:
        call_command("check", **options)
    assert all(f"({message_id})" in str(caught.value) for message_id in ids)
    with case.configured(SILENCED_SYSTEM_CHECKS=ids):
        call_command("check", **options)
    assert "System check identified no issues" in capsys.readouterr().out


@each_case
def test_f34_no_message_shows_a_secret(case: Case) -> None:
    with case.configured():
        texts = "".join(f"{message}" for message in reported(deploy=True))
    secrets = {APP_SECRET, KEY, OTHER_KEY, DJANGO_KEY, OLD_DJANGO_KEY}
    assert [secret for secret in secrets if secret in texts] == []


def test_every_id_has_a_case() -> None:
    assert {message.id for case in CASES for message in case.expected} == {
        f"tiktok_business.{number}"
        for number in (
            *(f"E{number:03}" for number in range(1, 11)),
            *(f"W{number:03}" for number in range(1, 14) if number != 10),
        )
    }


def test_every_wrong_value_has_a_case() -> None:
    wrong = {str(m.msg) for case in CASES for m in case.expected if m.id == "tiktok_business.E004"}
    assert {message.split("'")[1] for message in wrong} == set(SETTINGS)


@pytest.mark.parametrize("debug", [True, False])
def test_good_configuration_is_silent(debug: bool) -> None:
    with GOOD_CASE.configured(DEBUG=debug):
        assert reported(deploy=True) == []


@pytest.mark.parametrize(
    "uri", ["https://a/", f"https://example.com/{'a' * 491}/", "https://[2001:db8::1]/", None]
)
def test_redirect_uri_within_the_rules_is_silent(uri: str | None) -> None:
    with Case("", [], keys={"REDIRECT_URI": uri}).configured():
        assert reported() == []


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


def test_working_session_factory_is_silent() -> None:
    with Case("", [], keys={"SESSION_FACTORY_PATH": "requests.Session"}).configured():
        assert reported() == []


def test_f30_key_of_django_is_reported_without_secret_key_crash() -> None:
    with GOOD_CASE.configured(SECRET_KEY=""):
        assert reported() == []


def test_f30_checks_about_keys_are_security_checks() -> None:
    case = next(case for case in CASES if case.name == "key of Django")
    with case.configured():
        found = run_checks(tags=[Tags.security])
    assert case.expected[0] in found


def test_f47_redirect_uri_from_the_request_is_reported_for_deployment_only() -> None:
    case = next(case for case in CASES if case.deploy)
    with case.configured():
        assert reported() == []
        assert reported(deploy=True) == case.expected


def test_f47_redirect_uri_checks_are_security_checks() -> None:
    (case, _) = redirect_uri("http://example.com/tiktok/callback/", "does not begin with https://")
    with case.configured():
        assert case.expected[0] in run_checks(tags=[Tags.security])


def test_every_check_is_registered() -> None:
    registered = registry.get_checks(include_deployment_checks=True)
    ours = {
        getattr(module, name)
        for module in (settings_checks, oauth_checks, encryption_checks)
        for name in module.__all__
    }
    assert ours <= set(registered)


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
