"""`from_env` builds the settings from environment variables, and shows no secret."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import environ
import pytest
from django.test import override_settings
from environ.fileaware_mapping import FileAwareMapping

from django_tiktok_business.conf import conf
from django_tiktok_business.conf.env import from_env
from django_tiktok_business.conf.settings import SETTINGS
from django_tiktok_business.exceptions import ConfigurationError

APP_SECRET = "app-secret-of-the-conf-tests"
KEY = "conf-tests-Vn4sKq8ZtLw2XhBd7RyMgPc5FjUe3Ta9"
OLDER_KEY = "conf-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"


def environment(**variables: str) -> Any:
    env = environ.Env()
    env.ENVIRON = variables
    return env


FROM_ENV = [
    ("APP_ID", "7000000000000000001", "7000000000000000001"),
    ("APP_SECRET", APP_SECRET, APP_SECRET),
    ("APP_SECRET", f"{APP_SECRET}\n", APP_SECRET),
    ("ENCRYPTION_KEYS", KEY, [KEY]),
    ("ENCRYPTION_KEYS", f"{KEY}, {OLDER_KEY},", [KEY, OLDER_KEY]),
    ("REDIRECT_URI", "https://example.com/cb/", "https://example.com/cb/"),
    ("AUTHORIZATION_URL", "https://example.com/?a=b%2Cc", "https://example.com/?a=b%2Cc"),
    ("API_BASE_URL", "http://127.0.0.1:8420/open_api", "http://127.0.0.1:8420/open_api"),
    ("SCOPES", "user.info.basic, video.list", ["user.info.basic", "video.list"]),
    ("DISABLE_AUTO_AUTH", "True", True),
    ("DISABLE_AUTO_AUTH", "0", False),
    ("CONNECT_PERMISSION", "social.connect", "social.connect"),
    ("CONNECT_PERMISSION", "", None),
    ("CONNECT_REDIRECT_URL", "/done/", "/done/"),
    ("STATE_MAX_AGE_SECONDS", "60", 60),
    ("REQUEST_TIMEOUT_SECONDS", "5", 5),
    ("MAX_ATTEMPTS", " 2 ", 2),
    ("REQUESTS_PER_MINUTE", "0", 0),
    ("CACHE_ALIAS", "limits", "limits"),
    ("REFRESH_WITHIN_SECONDS", "3600", 3600),
    ("REFRESH_MARGIN_SECONDS", "60", 60),
    ("REFRESH_CONCURRENCY", "16", 16),
    ("CLAIM_SECONDS", "240", 240),
    ("REJECTION_CONFIRM_SECONDS", "60", 60),
    ("REAUTHORIZATION_WARNING_DAYS", "14", 14),
    ("NOTIFY", "owner, ops@example.com", ["owner", "ops@example.com"]),
    ("EVENTS_KEPT_DAYS", "30", 30),
    ("EVENTS_KEPT_PER_ACCOUNT", "0", 0),
    ("WEBHOOK_TOLERANCE_SECONDS", "60", 60),
    ("SESSION_FACTORY_PATH", "tests.support.simulator.session", "tests.support.simulator.session"),
]


def test_from_env_cases_cover_every_setting() -> None:
    assert {key for key, _, _ in FROM_ENV} == set(SETTINGS)


@pytest.mark.parametrize(("key", "text", "expected"), FROM_ENV)
def test_from_env_casts_each_variable(key: str, text: str, expected: object) -> None:
    values = from_env(environment(**{f"TIKTOK_BUSINESS_{key}": text}))
    assert values == {key: expected}
    assert type(values[key]) is type(expected) or key == "APP_SECRET"
    assert SETTINGS[key].problem(values[key]) is None


def test_from_env_of_an_empty_environment_is_empty() -> None:
    assert from_env(environment(PATH="/bin")) == {}


@pytest.mark.parametrize("key", [key for key in SETTINGS if key != "CONNECT_PERMISSION"])
def test_from_env_treats_an_empty_variable_as_unset(key: str) -> None:
    assert from_env(environment(**{f"TIKTOK_BUSINESS_{key}": ""})) == {}


def test_from_env_builds_a_dict_that_works_as_the_setting() -> None:
    values = from_env(
        environment(
            TIKTOK_BUSINESS_APP_ID="7", TIKTOK_BUSINESS_APP_SECRET="s", TIKTOK_BUSINESS_SCOPES="a"
        )
    )
    with override_settings(TIKTOK_BUSINESS=values):
        assert (conf.APP_ID, conf.APP_SECRET, conf.SCOPES) == ("7", "s", ["a"])
        assert conf.MAX_ATTEMPTS == 3


def test_from_env_reads_the_process_environment_of_a_plain_env(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONF_TESTS_MAX_ATTEMPTS", "4")
    assert from_env(environ.Env(), prefix="CONF_TESTS_") == {"MAX_ATTEMPTS": 4}


def test_from_env_honours_the_prefix_of_the_env_itself() -> None:
    env = environment(SITE_TIKTOK_BUSINESS_APP_ID="7", TIKTOK_BUSINESS_APP_ID="8")
    env.prefix = "SITE_"
    assert from_env(env) == {"APP_ID": "7"}


def test_from_env_without_prefix_takes_known_names_only() -> None:
    assert from_env(environment(APP_ID="7", PATH="/bin"), prefix="") == {"APP_ID": "7"}


def test_from_env_follows_a_variable_that_names_another() -> None:
    env = environment(TIKTOK_BUSINESS_APP_SECRET="$VAULT_SECRET", VAULT_SECRET=APP_SECRET)
    assert from_env(env) == {"APP_SECRET": APP_SECRET}


def test_f34_from_env_does_not_show_a_secret_that_begins_with_a_dollar_sign() -> None:
    env = environment(TIKTOK_BUSINESS_APP_SECRET=f"${APP_SECRET}")
    with pytest.raises(ConfigurationError) as caught:
        from_env(env)
    assert str(caught.value) == (
        "The environment variable TIKTOK_BUSINESS_APP_SECRET begins with $ and so names another "
        "variable, which is not set."
    )
    assert APP_SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_f34_from_env_masks_the_secrets_in_the_dict() -> None:
    values = from_env(
        environment(TIKTOK_BUSINESS_APP_SECRET=APP_SECRET, TIKTOK_BUSINESS_ENCRYPTION_KEYS=KEY)
    )
    assert repr(values) == "{'APP_SECRET': <secret>, 'ENCRYPTION_KEYS': [<secret>]}"


@pytest.mark.parametrize(
    ("key", "text"),
    [("MAX_ATTEMPTS", "three"), ("REFRESH_WITHIN_SECONDS", "6h"), ("DISABLE_AUTO_AUTH", "ture")],
)
def test_from_env_raises_for_text_that_cannot_be_parsed(key: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_env(environment(**{f"TIKTOK_BUSINESS_{key}": text}))
    assert str(caught.value) == (
        f"The environment variable TIKTOK_BUSINESS_{key} must be {SETTINGS[key].expected}."
    )


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "on", "y", "yes", "ok"])
def test_from_env_reads_words_for_true(text: str) -> None:
    env = environment(TIKTOK_BUSINESS_DISABLE_AUTO_AUTH=text)
    assert from_env(env) == {"DISABLE_AUTO_AUTH": True}


@pytest.mark.parametrize("text", ["0", "false", "False", "off", "n", "no"])
def test_from_env_reads_words_for_false(text: str) -> None:
    env = environment(TIKTOK_BUSINESS_DISABLE_AUTO_AUTH=text)
    assert from_env(env) == {"DISABLE_AUTO_AUTH": False}


def test_from_env_keeps_a_misspelt_variable_without_its_value() -> None:
    env = environment(TIKTOK_BUSINESS_APP_SECERT=APP_SECRET)
    assert from_env(env) == {"APP_SECERT": ""}


def test_from_env_reads_secrets_from_files(tmp_path: Path) -> None:
    secret_file = tmp_path / "app_secret"
    secret_file.write_text(f"{APP_SECRET}\n", encoding="utf-8")
    env = environ.FileAwareEnv()
    env.ENVIRON = FileAwareMapping(env={"TIKTOK_BUSINESS_APP_SECRET_FILE": str(secret_file)})
    assert from_env(env) == {"APP_SECRET": APP_SECRET}


def test_from_env_keeps_a_file_variable_that_a_plain_env_does_not_read() -> None:
    env = environment(TIKTOK_BUSINESS_APP_SECRET_FILE="/run/secrets/app_secret")
    assert from_env(env) == {"APP_SECRET_FILE": ""}
