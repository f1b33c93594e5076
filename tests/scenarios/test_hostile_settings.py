"""Whatever TIKTOK_BUSINESS and the environment hold, checks report it and pages still work.

Properties; see `tests.support.hostile`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import environ
import pytest
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings
from hypothesis import example, given, is_hypothesis_test
from hypothesis import strategies as st

from django_tiktok_business.checks import encryption as encryption_checks
from django_tiktok_business.checks import oauth as oauth_checks
from django_tiktok_business.checks import settings as settings_checks
from django_tiktok_business.conf import conf
from django_tiktok_business.conf.env import from_env
from django_tiktok_business.conf.settings import SETTINGS, Setting
from django_tiktok_business.conf.validators import REQUIRED
from tests.scenarios import test_hostile_answers, test_hostile_input
from tests.scenarios.test_hostile_answers import GRANT
from tests.support import hostile, servers
from tests.support.factories import make_account, make_user
from tests.support.hostile import CASES_IN_CI, TIMES_IN, Reply, answering, case, cases
from tests.support.visits import CALLBACK, CONNECT, LIST

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = [pytest.mark.django_db, pytest.mark.databases("sqlite"), pytest.mark.once]

SECRET = "s3cr3t-Zr8vN2kXq5TgWb9YhJ4mLc7PdFs3"
GOOD = {"APP_ID": "7000000000000000001", "APP_SECRET": SECRET, "ENCRYPTION_KEYS": [SECRET]}


def kind_of(setting: Setting[Any]) -> Any:
    """The type that reading a setting returns."""
    if setting.accepts(None):
        return str | None
    if setting.default is REQUIRED:
        return str
    return list if isinstance(setting.default, tuple) else type(setting.default)


ALL_CHECKS = [
    check
    for module in (settings_checks, oauth_checks, encryption_checks)
    for name, check in vars(module).items()
    if name.startswith("check_") and name != "check_stored_tokens"
]


class Unspeakable:
    """Whose repr fails."""

    def __repr__(self) -> str:
        raise LookupError(SECRET)


_TEXT = st.text(st.characters(), max_size=20)
_VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), _TEXT, st.binary(max_size=5)),
        st.sampled_from(
            [
                *(10**400, -(10**400), object, "\ud800", "\0", "a\0b"),
                *(
                    "http://\ud800",
                    "https://a.test/\ud800",
                    "http://[",
                    "http://a:99999",
                    "//a",
                    "a.b",
                ),
                *(
                    "javascript://a.b",
                    "http://a.test",
                    "https://a.test?redirect_uri=x",
                    "a." * 5000,
                ),
                *(["a,b"], ["\ud800"], [SECRET, SECRET], ("a",), {}, set(), [[]], "/next/", 600),
            ]
        ),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=4,
)
# Without SESSION_FACTORY_PATH: it names the project's code, and we do not swallow its errors.
_NAMES = st.sampled_from(sorted(set(SETTINGS) - {"SESSION_FACTORY_PATH"}))
DICTS = st.dictionaries(_NAMES | _NAMES | _TEXT, _VALUES, max_size=4).map(
    lambda changes: {**GOOD, "SESSION_FACTORY_PATH": "tests.support.hostile.session", **changes}
)
GRANTED = {"": Reply(servers.envelope(data=GRANT))}


def reported() -> list[CheckMessage]:
    return [message for check in ALL_CHECKS for message in check(None)]


def values_of(names: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of the readable settings, and the errors of the others."""
    values, problems = {}, []
    for name in names:
        try:
            values[name] = getattr(conf, name)
        except ImproperlyConfigured as error:
            problems.append(str(error))
    return values, problems


@cases(100)
@given(settings=DICTS | _VALUES)
@example({**GOOD, "ENCRYPTION_KEYS": ["\ud800" * 40]})
@example(None)
@example({**GOOD, "APP_ID": [SECRET]})
def test_any_settings_are_reported_or_of_their_documented_type(settings: Any) -> None:
    with override_settings(TIKTOK_BUSINESS=settings):
        messages = reported()
        values, problems = values_of(SETTINGS)
    for name, value in values.items():
        assert isinstance(value, kind_of(SETTINGS[name]))
    errors = [message for message in messages if message.is_serious()]
    assert bool(problems) <= bool(errors)
    if not is_where_no_secret_belongs(settings):
        assert not any(SECRET in text for text in [*problems, *map(str, messages)])


def is_where_no_secret_belongs(settings: Any) -> bool:
    """Whether the secret is the value of a setting that may be shown, such as APP_ID."""
    values = settings.items() if isinstance(settings, dict) else ()
    return any(
        SECRET in repr(value) and not (name in SETTINGS and SETTINGS[name].masked)
        for name, value in values
    )


@pytest.mark.parametrize("value", [10**5000, Unspeakable()], ids=["number", "object"])
def test_value_that_cannot_be_shown_is_reported_by_its_type(value: object) -> None:
    with override_settings(TIKTOK_BUSINESS={**GOOD, "MAX_ATTEMPTS": value}):
        (message,) = settings_checks.check_values(None)
        assert message.msg == (
            "TIKTOK_BUSINESS['MAX_ATTEMPTS'] must be a whole number from 1 to 10, "
            f"not of type {type(value).__name__}."
        )


@cases(30)
@given(settings=DICTS | _VALUES)
@example({**GOOD, "APP_ID": "\ud800"})
@example({**GOOD, "ENCRYPTION_KEYS": ["\ud800" * 40]})
@example({**GOOD, "AUTHORIZATION_URL": "https://a.test/\ud800"})
@example({**GOOD, "REQUESTS_PER_MINUTE": 10**400})
@example({**GOOD, "CONNECT_REDIRECT_URL": "http://["})
@example({**GOOD, "CONNECT_REDIRECT_URL": "javascript://a.b"})
@example(None)
def test_pages_stand_whatever_the_settings(settings: Any) -> None:
    factory = {"SESSION_FACTORY_PATH": "tests.support.hostile.session"}
    settings = {**settings, **factory} if isinstance(settings, dict) else settings
    with case(), answering(GRANTED):
        user = make_user(is_superuser=True)
        client = Client()
        client.force_login(user)
        account = make_account(owner=user)
        with override_settings(TIKTOK_BUSINESS=settings):
            started = client.post(CONNECT)
            state = started.headers.get("Location", "").partition("state=")[2].partition("&")[0]
            pages = [
                *(started, client.get(LIST), client.get(CONNECT)),
                client.get(CALLBACK, {"state": state, "code": "*0!5413"}),
                client.get(f"{LIST}{account.pk}/disconnect/"),
            ]
        for page in pages:
            assert page.status_code in (200, 302, 400, 403, 409, 500, 502, 503)
            assert SECRET not in page.content.decode()


@cases(60)
@given(
    environment=st.dictionaries(
        _NAMES.map(lambda name: f"TIKTOK_BUSINESS_{name}") | _TEXT,
        _TEXT | st.sampled_from(["$HOME", "$", "1", "9" * 5000, "on", "a,b", " ", "٣", "\ud800"]),
        max_size=5,
    )
)
@example({"TIKTOK_BUSINESS_MAX_ATTEMPTS": "9" * 5000})
@example({"TIKTOK_BUSINESS_APP_SECRET": f"${SECRET}"})
@example({"TIKTOK_BUSINESS_APP_ID": "$TIKTOK_BUSINESS_APP_ID"})
def test_any_environment_gives_settings_or_an_error_without_its_text(
    environment: dict[str, str],
) -> None:
    env = environ.Env()
    env.ENVIRON = environment
    problem = ""
    try:
        settings = from_env(env)
    except ImproperlyConfigured as error:
        settings, problem = {}, str(error)
    assert SECRET not in problem
    with override_settings(TIKTOK_BUSINESS=settings):
        reported()
        values_of(SETTINGS)


def test_properties_try_as_many_cases_as_they_should() -> None:
    modules = (test_hostile_answers, test_hostile_input)
    names = {
        f"{module.__name__}.{name}"
        for module in modules
        for name, test in vars(module).items()
        if is_hypothesis_test(test)
    }
    own = {f"{__name__}.{name}" for name, test in globals().items() if is_hypothesis_test(test)}
    assert names | own == set(CASES_IN_CI)
    total = sum(CASES_IN_CI.values())
    assert total * TIMES_IN["ci"] >= 500
    assert total * TIMES_IN["nightly"] >= 10_000
    assert hostile.PROFILE in TIMES_IN
