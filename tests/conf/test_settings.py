"""Each setting: its default, what it accepts, and what a wrong value raises."""

from __future__ import annotations

import os
import subprocess
import sys
from ast import literal_eval
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import RequestFactory, override_settings
from django.views.debug import ExceptionReporter

from django_tiktok_business.conf import conf
from django_tiktok_business.conf.settings import SETTINGS, Conf
from django_tiktok_business.encryption.keys import encryption_secrets
from django_tiktok_business.exceptions import ConfigurationError

APP_SECRET = "app-secret-of-the-conf-tests"
KEY = "conf-tests-Vn4sKq8ZtLw2XhBd7RyMgPc5FjUe3Ta9"
OLDER_KEY = "conf-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"
REQUIRED = {"APP_ID": "7000000000000000001", "APP_SECRET": APP_SECRET}
DAY = 86_400


# The value of each key that is not in the dict, as documented.
DEFAULTS: dict[str, object] = {
    "ENCRYPTION_KEYS": [],
    "REDIRECT_URI": None,
    "AUTHORIZATION_URL": "https://www.tiktok.com/v2/auth/authorize",
    "API_BASE_URL": "https://business-api.tiktok.com/open_api/v1.3",
    "SCOPES": [
        "user.info.basic",
        "user.info.username",
        "user.info.profile",
        "user.info.stats",
        "user.account.type",
        "user.insights",
        "video.list",
        "video.insights",
    ],
    "DISABLE_AUTO_AUTH": False,
    "CONNECT_PERMISSION": "tiktok_business.add_businessaccount",
    "CONNECT_REDIRECT_URL": None,
    "STATE_MAX_AGE_SECONDS": 600,
    "REQUEST_TIMEOUT_SECONDS": 20,
    "MAX_ATTEMPTS": 3,
    "REQUESTS_PER_MINUTE": 600,
    "CACHE_ALIAS": "default",
    "REFRESH_WITHIN_SECONDS": 21_600,
    "REFRESH_MARGIN_SECONDS": 300,
    "REFRESH_CONCURRENCY": 8,
    "CLAIM_SECONDS": 120,
    "REJECTION_CONFIRM_SECONDS": 600,
    "REAUTHORIZATION_WARNING_DAYS": 30,
    "NOTIFY": [],
    "EVENTS_KEPT_DAYS": 90,
    "EVENTS_KEPT_PER_ACCOUNT": 200,
    "WEBHOOK_TOLERANCE_SECONDS": 300,
    "SESSION_FACTORY_PATH": None,
}


# key -> values that are returned unchanged
ACCEPTED: dict[str, list[Any]] = {
    "APP_ID": ["7000000000000000001", "x"],
    "APP_SECRET": ["s", "with spaces inside"],
    "ENCRYPTION_KEYS": [[], ["a"], [KEY, OLDER_KEY]],
    "REDIRECT_URI": [None, "https://example.com/tiktok/callback/", "http://localhost:8000/"],
    "AUTHORIZATION_URL": [
        "http://127.0.0.1:8420/v2/auth/authorize",
        "https://www.tiktok.com/v2/auth/authorize?client_key=7&scope=a%2Cb&response_type=code",
        "https://[::1]:8420/authorize",
    ],
    "API_BASE_URL": ["http://127.0.0.1:8420/open_api/v1.3", "https://example.com"],
    "SCOPES": [["user.info.basic"], ["video.list", "user.info.basic"]],
    "DISABLE_AUTO_AUTH": [True, False],
    "CONNECT_PERMISSION": [None, "social.connect"],
    "CONNECT_REDIRECT_URL": [None, "/done/", "tiktok_business:account_list"],
    "STATE_MAX_AGE_SECONDS": [1, DAY],
    "REQUEST_TIMEOUT_SECONDS": [1, 600],
    "MAX_ATTEMPTS": [1, 10],
    "REQUESTS_PER_MINUTE": [0, 100_000],
    "CACHE_ALIAS": ["limits"],
    "REFRESH_WITHIN_SECONDS": [0, 31_536_000],
    "REFRESH_MARGIN_SECONDS": [0, DAY - 1],
    "REFRESH_CONCURRENCY": [1, 128],
    "CLAIM_SECONDS": [1, DAY],
    "REJECTION_CONFIRM_SECONDS": [0, DAY],
    "REAUTHORIZATION_WARNING_DAYS": [0, 365],
    "NOTIFY": [[], ["owner"], ["owner", "ops@example.com"], ["Ops <ops@example.com>"]],
    "EVENTS_KEPT_DAYS": [1, 36_500],
    "EVENTS_KEPT_PER_ACCOUNT": [0, 100_000],
    "WEBHOOK_TOLERANCE_SECONDS": [1, DAY],
    "SESSION_FACTORY_PATH": [None, "tests.support.simulator.simulator_session"],
}


REFUSED: dict[str, list[Any]] = {
    "APP_ID": [None, 7_000_000_000_000_000_001, "", " 7", "7\n", b"7"],
    "APP_SECRET": [None, 5, "", " s", "s\n", b"s"],
    "ENCRYPTION_KEYS": [None, KEY, {KEY}, [""], [f" {KEY}"], [KEY.encode()], [KEY, None]],
    "REDIRECT_URI": ["", 5, b"https://example.com/", " https://example.com/"],
    "AUTHORIZATION_URL": [
        None,
        "",
        "/v2/auth/authorize",
        "www.tiktok.com/v2/auth/authorize",
        "ftp://www.tiktok.com/",
        "https:///authorize",
        "https://www.tiktok.com/#top",
        "https://www.tiktok.com/a b",
        "https://www.tiktok.com:port/",
        "https://www.tiktok.com:99999/",
        "https://[::1/",
        b"https://www.tiktok.com/",
    ],
    "API_BASE_URL": [None, "", "/open_api", "https://example.com/?a=b", "https://example.com/#a"],
    "SCOPES": [
        None,
        [],
        "user.info.basic",
        ["user.info.basic,video.list"],
        ["user.info.basic video.list"],
        [""],
        [1],
    ],
    "DISABLE_AUTO_AUTH": [None, 1, 0, "True"],
    "CONNECT_PERMISSION": ["", "connect", ".connect", "social.", 5],
    "CONNECT_REDIRECT_URL": ["", 5],
    "STATE_MAX_AGE_SECONDS": [None, 0, -1, DAY + 1, "600", 600.0, True],
    "REQUEST_TIMEOUT_SECONDS": [None, 0, 601, "20", 0.5, True],
    "MAX_ATTEMPTS": [None, 0, 11, "3", True],
    "REQUESTS_PER_MINUTE": [None, -1, "600", False],
    "CACHE_ALIAS": [None, "", 5],
    "REFRESH_WITHIN_SECONDS": [None, -1, 31_536_001, "6h"],
    "REFRESH_MARGIN_SECONDS": [None, -1, DAY, "300"],
    "REFRESH_CONCURRENCY": [None, 0, 129, "8", True],
    "CLAIM_SECONDS": [None, 0, DAY + 1, "120"],
    "REJECTION_CONFIRM_SECONDS": [None, -1, DAY + 1, "600"],
    "REAUTHORIZATION_WARNING_DAYS": [None, -1, 366, "30"],
    "NOTIFY": [
        None,
        "owner",
        ["Owner"],
        ["ops"],
        ["@example.com"],
        ["ops@"],
        [" ops@example.com"],
        ["ops@example.com,ada@example.com"],
        [b"ops@example.com"],
        [None],
    ],
    "EVENTS_KEPT_DAYS": [None, 0, 36_501, "90"],
    "EVENTS_KEPT_PER_ACCOUNT": [None, -1, 100_001, True],
    "WEBHOOK_TOLERANCE_SECONDS": [None, 0, DAY + 1, "300"],
    "SESSION_FACTORY_PATH": ["", "session", "tests.", "tests..session", "tests.a b", 5],
}


def configured_with(**keys: object) -> override_settings:
    return override_settings(TIKTOK_BUSINESS=REQUIRED | keys)


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(key, value) for key, values in table.items() for value in values]


def run_python(source: str) -> subprocess.CompletedProcess[str]:
    """Run `source` in a new process in which Django is not configured."""
    variables = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        env=variables | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_tables_of_these_tests_cover_every_setting() -> None:
    assert set(SETTINGS) == set(DEFAULTS) | set(REQUIRED) == set(ACCEPTED) == set(REFUSED)


def test_attribute_of_the_class_is_the_setting_itself() -> None:
    assert Conf.MAX_ATTEMPTS is SETTINGS["MAX_ATTEMPTS"]
    assert Conf.MAX_ATTEMPTS.name == "MAX_ATTEMPTS"


def test_package_answers_for_each_setting_as_the_object_does() -> None:
    package = import_module("django_tiktok_business.conf")
    for name in SETTINGS:
        assert getattr(package, name) == getattr(conf, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018 -- looking is the test


@pytest.mark.parametrize(("key", "expected"), DEFAULTS.items())
def test_default_is_the_documented_one(key: str, expected: object) -> None:
    with configured_with():
        assert getattr(conf, key) == expected


@pytest.mark.parametrize(("key", "value"), cases(ACCEPTED))
def test_accepted_value_is_returned_unchanged(key: str, value: object) -> None:
    with configured_with(**{key: value}):
        assert getattr(conf, key) == value


@pytest.mark.parametrize(("key", "value"), cases(REFUSED))
def test_wrong_value_raises_naming_the_key_and_a_good_value(key: str, value: object) -> None:
    setting = SETTINGS[key]
    with configured_with(**{key: value}), pytest.raises(ConfigurationError) as caught:
        getattr(conf, key)
    assert str(caught.value) == (
        f"TIKTOK_BUSINESS['{key}'] {setting.problem(value)}. A good value: {setting.example}."
    )


def test_wrong_value_of_a_harmless_setting_is_shown_cut_off() -> None:
    with configured_with(MAX_ATTEMPTS="3" * 200), pytest.raises(ConfigurationError) as caught:
        _ = conf.MAX_ATTEMPTS
    assert str(caught.value) == (
        "TIKTOK_BUSINESS['MAX_ATTEMPTS'] must be a whole number from 1 to 10, "
        f"not '{'3' * 79}. A good value: 3."
    )


class UnshowableError(Exception): ...


class Unshowable:
    def __repr__(self) -> str:
        raise UnshowableError


@pytest.mark.parametrize(
    ("value", "kind"), [(10**5000, "int"), (Unshowable(), "Unshowable")], ids=["digits", "repr"]
)
def test_wrong_value_that_cannot_be_shown_is_described_by_its_type(value: Any, kind: str) -> None:
    problem = SETTINGS["MAX_ATTEMPTS"].problem(value)
    assert problem == f"must be a whole number from 1 to 10, not of type {kind}"


@pytest.mark.parametrize("key", ["APP_SECRET", "ENCRYPTION_KEYS"])
def test_wrong_value_of_a_secret_is_not_shown(key: str) -> None:
    with (
        configured_with(**{key: b"a secret in bytes"}),
        pytest.raises(ConfigurationError) as caught,
    ):
        getattr(conf, key)
    assert "(its type is bytes)" in str(caught.value)
    assert "a secret in bytes" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        (REQUIRED | {"APP_SECRET": f" {APP_SECRET}"}, "APP_SECRET"),
        (REQUIRED | {"ENCRYPTION_KEYS": [APP_SECRET, ""]}, "ENCRYPTION_KEYS"),
        (REQUIRED | {"API_BASE_URL": f"https://user:{APP_SECRET}@/"}, "API_BASE_URL"),
        ([("APP_SECRET", APP_SECRET)], "APP_ID"),
        (f"APP_SECRET={APP_SECRET}", "APP_SECRET"),
    ],
    ids=["blank", "list", "url", "pairs", "text"],
)
def test_f34_error_report_of_a_wrong_secret_does_not_show_it(setting: object, key: str) -> None:
    request = RequestFactory().get("/")
    with override_settings(TIKTOK_BUSINESS=setting), pytest.raises(ConfigurationError) as caught:
        getattr(conf, key)
    # Without the frame of this test, which has the secret in its own variables.
    report = ExceptionReporter(request, caught.type, caught.value, caught.tb.tb_next)
    variables = str([frame["vars"] for frame in report.get_traceback_frames()])
    assert "instance" in variables
    assert APP_SECRET not in variables + str(caught.value)


@pytest.mark.parametrize("key", SETTINGS)
def test_example_of_each_setting_is_accepted_by_it(key: str) -> None:
    assert SETTINGS[key].problem(literal_eval(SETTINGS[key].example)) is None


@pytest.mark.parametrize("key", ["APP_ID", "APP_SECRET"])
def test_missing_required_key_raises_saying_how_to_set_it(key: str) -> None:
    values = {name: value for name, value in REQUIRED.items() if name != key}
    with (
        override_settings(TIKTOK_BUSINESS=values),
        pytest.raises(ConfigurationError) as caught,
    ):
        getattr(conf, key)
    assert str(caught.value) == (
        f"TIKTOK_BUSINESS['{key}'] is missing. Set it in your settings: "
        f'TIKTOK_BUSINESS = {{"{key}": {SETTINGS[key].example}, ...}}.'
    )


@pytest.mark.parametrize("key", SETTINGS)
def test_without_the_dict_every_setting_raises(key: str) -> None:
    with override_settings():
        del settings.TIKTOK_BUSINESS
        with pytest.raises(ConfigurationError) as caught:
            getattr(conf, key)
    assert str(caught.value) == (
        "The setting TIKTOK_BUSINESS is missing. "
        'Set TIKTOK_BUSINESS = {"APP_ID": "...", "APP_SECRET": "..."} in your settings.'
    )


def test_anything_but_a_dict_raises_naming_its_type() -> None:
    with (
        override_settings(TIKTOK_BUSINESS=["APP_ID"]),
        pytest.raises(ConfigurationError, match="TIKTOK_BUSINESS is a list, not a dict"),
    ):
        _ = conf.APP_ID


def test_unknown_attribute_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'REFRESH_WITHIN'"):
        _ = conf.REFRESH_WITHIN  # type: ignore[attr-defined]


def test_usable_setting_is_the_value_or_a_fallback_while_it_is_wrong() -> None:
    with configured_with(MAX_ATTEMPTS=5):
        assert conf.usable("MAX_ATTEMPTS") == conf.usable("MAX_ATTEMPTS", fallback=None) == 5
    with configured_with(MAX_ATTEMPTS=0):
        assert conf.usable("MAX_ATTEMPTS") == 3
        assert conf.usable("MAX_ATTEMPTS", fallback=None) is None
    with override_settings(TIKTOK_BUSINESS={}):
        assert conf.usable("MAX_ATTEMPTS") == 3
        assert conf.usable("APP_ID", fallback="") == ""


def test_changed_settings_are_read_at_once() -> None:
    with configured_with(MAX_ATTEMPTS=5):
        assert conf.MAX_ATTEMPTS == 5
        with configured_with(MAX_ATTEMPTS=7):
            assert conf.MAX_ATTEMPTS == 7
        assert conf.MAX_ATTEMPTS == 5


def test_changing_a_returned_list_changes_no_setting() -> None:
    with configured_with():
        conf.SCOPES.append("video.publish")
        conf.ENCRYPTION_KEYS.append("x")
        assert "video.publish" not in conf.SCOPES
        assert conf.ENCRYPTION_KEYS == []


def test_tuples_are_accepted_as_lists() -> None:
    with configured_with(SCOPES=("video.list",), ENCRYPTION_KEYS=(KEY,)):
        assert conf.SCOPES == ["video.list"]
        assert conf.ENCRYPTION_KEYS == [KEY]


def test_slash_at_the_end_of_the_base_url_is_removed() -> None:
    with configured_with(API_BASE_URL="https://example.com/open_api/v1.3/"):
        assert conf.API_BASE_URL == "https://example.com/open_api/v1.3"


def test_f34_secrets_show_in_no_repr() -> None:
    with configured_with(ENCRYPTION_KEYS=[KEY]):
        assert repr(conf.APP_SECRET) == "<secret>"
        assert repr(conf.ENCRYPTION_KEYS) == "[<secret>]"
        assert repr(encryption_secrets()) == "(<secret>,)"


def test_f29_importing_needs_no_settings_and_nothing_heavy() -> None:
    done = run_python(
        "import sys\n"
        "from django_tiktok_business import apps, checks, conf\n"
        "heavy = {'cryptography', 'requests', 'environ', 'django_tiktok_business.models'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_f29_build_commands_need_no_key(tmp_path: Path) -> None:
    done = run_python(
        "import django\n"
        "from django.conf import settings\n"
        "from django.core.management import call_command\n"
        "settings.configure(\n"
        "    INSTALLED_APPS=['django.contrib.auth', 'django.contrib.contenttypes',\n"
        "                    'django.contrib.staticfiles', 'django_tiktok_business'],\n"
        "    DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}},\n"
        f"    STATIC_URL='/static/', STATIC_ROOT={str(tmp_path)!r},\n"
        ")\n"
        "django.setup()\n"
        "call_command('collectstatic', interactive=False, verbosity=0)\n"
        "call_command('makemigrations', 'tiktok_business', dry_run=True, verbosity=0)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
