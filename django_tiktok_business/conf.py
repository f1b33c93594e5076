"""The one reader of ``settings.TIKTOK_BUSINESS``.

``conf.REFRESH_MARGIN_SECONDS`` and its like are looked up on each access: nothing is read at
import and nothing is kept, so ``override_settings`` and late configuration simply work. A missing
or wrong value raises `ConfigurationError` instead of becoming a default; the system checks report
the same problems, from the same table, when the project starts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, Final, Protocol

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .exceptions import ConfigurationError
from .masking import Secret
from .setting import (
    REQUIRED,
    Setting,
    is_base_url,
    is_dotted,
    is_path,
    is_plain,
    is_recipient,
    is_scopes,
    is_text,
    is_texts,
    is_url,
    number,
    optional,
    parse_flag,
    parse_list,
    parse_secrets,
    read_base_url,
    read_secrets,
)

__all__ = [
    "REQUIRED",
    "SETTINGS",
    "Setting",
    "configured",
    "encryption_secrets",
    "from_env",
    "or_default",
]

_DAY: Final = 86_400  # seconds; also how long an access token lives
_YEAR: Final = 31_536_000  # seconds; also how long a refresh token lives

SETTINGS: Final[Mapping[str, Setting]] = {
    # The developer app. TikTok calls the id client_key, client_id or app_id, depending on the call.
    "APP_ID": Setting(
        REQUIRED,
        lambda value: is_text(value) and "\0" not in value,  # databases refuse that
        "a string without spaces around it (write the digits in quotes)",
        '"7000000000000000001"',
        str,
    ),
    "APP_SECRET": Setting(
        REQUIRED,
        is_text,
        "a string without spaces around it",
        '"the secret that TikTok\'s developer portal shows"',
        Secret,
        read=Secret,
        masked=True,
    ),
    # Secrets, newest first: the first encrypts, all decrypt. Rotate by putting a new one in front.
    # Empty: SECRET_KEY, then SECRET_KEY_FALLBACKS.
    "ENCRYPTION_KEYS": Setting(
        (),
        is_texts,
        "a list of non-empty strings without spaces around them",
        '["a long random string"]',
        parse_secrets,
        read=read_secrets,
        masked=True,
    ),
    # The redirect URL exactly as registered with TikTok; None builds it from the request. What
    # TikTok asks of it is the business of the checks: a local simulator may be less strict.
    "REDIRECT_URI": optional(is_text, "an absolute URL", '"https://YOUR-HOST/tiktok/callback/"'),
    # The consent page: bare, or the whole URL that TikTok's portal issues, with its parameters.
    "AUTHORIZATION_URL": Setting(
        "https://www.tiktok.com/v2/auth/authorize",
        is_url,
        "an absolute http or https URL without fragment",
        '"https://www.tiktok.com/v2/auth/authorize"',
        str,
        masked=True,
    ),
    # Where the API lives. A slash at the end is taken off here, so paths begin with one.
    "API_BASE_URL": Setting(
        "https://business-api.tiktok.com/open_api/v1.3",
        is_base_url,
        "an absolute http or https URL without query and fragment",
        '"https://business-api.tiktok.com/open_api/v1.3"',
        str,
        read=read_base_url,
        masked=True,
    ),
    # Scopes to ask for. TikTok refuses the whole consent page for one that the app does not have.
    "SCOPES": Setting(
        (
            "user.info.basic",
            "user.info.username",
            "user.info.profile",
            "user.info.stats",
            "user.account.type",
            "user.insights",
            "video.list",
            "video.insights",
        ),
        is_scopes,
        "a list of at least one scope, each a string without commas and spaces",
        '["user.info.basic", "user.info.username"]',
        parse_list,
        read=list,
    ),
    # Ask TikTok to show the consent page even to who has granted the same scopes before.
    "DISABLE_AUTO_AUTH": Setting(
        False, lambda value: isinstance(value, bool), "True or False", "False", parse_flag
    ),
    # The permission that connecting takes; None (an empty environment variable): to be logged in.
    "CONNECT_PERMISSION": optional(
        is_dotted,
        'a permission as "app_label.codename"',
        '"tiktok_business.add_businessaccount"',
        default="tiktok_business.add_businessaccount",
        empty=None,
    ),
    # Where connect and disconnect end without a safe `next`: a URL, a path or the name of a URL
    # pattern. None: the accounts page.
    "CONNECT_REDIRECT_URL": optional(
        is_text, "a URL, a path or the name of a URL pattern", '"/settings/"'
    ),
    # Seconds from leaving for the consent page to coming back. TikTok's code lives 600.
    "STATE_MAX_AGE_SECONDS": number(600, 1, _DAY),
    # Seconds that connecting may take, and again each wait for bytes, in one HTTP call.
    "REQUEST_TIMEOUT_SECONDS": number(20, 1, 600),
    # Tries of one call that is safe to repeat, the first included.
    "MAX_ATTEMPTS": number(3, 1, 10),
    # Calls a minute of the whole app, all processes together; 0: no ceiling.
    "REQUESTS_PER_MINUTE": number(600, 0),
    # The Django cache through which processes share that ceiling.
    "CACHE_ALIAS": Setting("default", is_text, "the name of a cache in CACHES", '"default"', str),
    # Seconds: the command refreshes the access tokens that expire within this time.
    "REFRESH_WITHIN_SECONDS": number(21_600, 0, _YEAR),
    # Seconds: a token with less left is refreshed before it is handed out. As long as a token
    # lives, each use would refresh.
    "REFRESH_MARGIN_SECONDS": number(300, 0, _DAY - 1),
    # Calls in flight in one process; each holds a thread and a connection.
    "REFRESH_CONCURRENCY": number(8, 1, 128),
    # Seconds until the claim of a worker that died is free again.
    "CLAIM_SECONDS": number(120, 1, _DAY),
    # Days before its end at which a refresh token is reported; it cannot be prolonged.
    "REAUTHORIZATION_WARNING_DAYS": number(30, 0, 365),
    # Who is sent a mail when an account has to be connected again, now or soon; empty: nobody.
    "NOTIFY": Setting(
        (),
        lambda value: is_texts(value) and all(map(is_recipient, value)),
        'a list of e-mail addresses, or "owner" for that of the account\'s owner',
        '["owner", "ops@example.com"]',
        parse_list,
        read=list,
    ),
    # Days, and number for each account, that the events of a connection are kept; 0 keeps none.
    "EVENTS_KEPT_DAYS": number(90, 1, 36_500),
    "EVENTS_KEPT_PER_ACCOUNT": number(200, 0, 100_000),
    # Seconds: age of the oldest webhook signature that is accepted.
    "WEBHOOK_TOLERANCE_SECONDS": number(300, 1, _DAY),
    # Dotted path of a callable without arguments that returns a requests.Session (for proxies,
    # for the simulator in tests). None: a plain session.
    "SESSION_FACTORY_PATH": optional(
        is_path, "the dotted path of a callable", '"myproject.tiktok.session"'
    ),
}

# For type checkers: annotations alone create no attribute, so the properties below are met.
APP_ID: str
APP_SECRET: str
ENCRYPTION_KEYS: list[str]
REDIRECT_URI: str | None
AUTHORIZATION_URL: str
API_BASE_URL: str
SCOPES: list[str]
DISABLE_AUTO_AUTH: bool
CONNECT_PERMISSION: str | None
CONNECT_REDIRECT_URL: str | None
STATE_MAX_AGE_SECONDS: int
REQUEST_TIMEOUT_SECONDS: int
MAX_ATTEMPTS: int
REQUESTS_PER_MINUTE: int
CACHE_ALIAS: str
REFRESH_WITHIN_SECONDS: int
REFRESH_MARGIN_SECONDS: int
REFRESH_CONCURRENCY: int
CLAIM_SECONDS: int
REAUTHORIZATION_WARNING_DAYS: int
NOTIFY: list[str]
EVENTS_KEPT_DAYS: int
EVENTS_KEPT_PER_ACCOUNT: int
WEBHOOK_TOLERANCE_SECONDS: int
SESSION_FACTORY_PATH: str | None


def _current(name: str) -> Any:
    """Return the present value of a setting; raise ConfigurationError if it is missing or wrong."""
    setting = SETTINGS[name]
    value = configured().get(name, setting.default)
    if value is REQUIRED:
        raise ConfigurationError(
            f"TIKTOK_BUSINESS[{name!r}] is missing. "
            f'Set it in your settings: TIKTOK_BUSINESS = {{"{name}": {setting.example}, ...}}.'
        )
    if not setting.accepts(value):
        problem = setting.problem(value)
        del value  # an error report shows the variables, and this may be a secret with a blank
        raise ConfigurationError(
            f"TIKTOK_BUSINESS[{name!r}] {problem}. A good value: {setting.example}."
        )
    return value if setting.read is None else setting.read(value)


def or_default(name: str) -> Any:
    """The value of a setting that has a default, or that default while another is not usable.

    For pages that show accounts all the same: the checks report what is wrong.
    """
    try:
        return _current(name)
    except ConfigurationError:
        return SETTINGS[name].default


class _Conf(ModuleType):
    """This module, with a property for each setting: a module's ``__getattr__`` takes longer."""


def _property(name: str) -> property:
    return property(lambda _: _current(name))


for _name in SETTINGS:
    setattr(_Conf, _name, _property(_name))
sys.modules[__name__].__class__ = _Conf


def configured() -> Mapping[str, Any]:
    """Return ``settings.TIKTOK_BUSINESS`` as it stands; raise ConfigurationError if it is no dict.

    The values are unchecked. Code that uses a setting asks for ``conf.NAME`` instead.
    """
    values = getattr(settings, "TIKTOK_BUSINESS", None)
    if not isinstance(values, dict):
        found = "missing" if values is None else f"a {type(values).__name__}, not a dict"
        raise ConfigurationError(
            f"The setting TIKTOK_BUSINESS is {found}. "
            'Set TIKTOK_BUSINESS = {"APP_ID": "...", "APP_SECRET": "..."} in your settings.'
        )
    return values


def encryption_secrets() -> Sequence[str]:
    """Return the secrets to derive encryption keys from: the first encrypts, all decrypt.

    Without ENCRYPTION_KEYS these are SECRET_KEY and SECRET_KEY_FALLBACKS, so that a trial needs no
    further set-up; a check warns. Raises ConfigurationError when SECRET_KEY is not a string.
    """
    keys = configured().get("ENCRYPTION_KEYS", ())
    try:
        own: Sequence[str] = _usable(*keys) if isinstance(keys, (list, tuple)) else ()
    except TypeError:
        own = ()
    del keys  # an error report shows the variables, and each is in the clear
    own = own or _current("ENCRYPTION_KEYS")  # which says what is wrong with them
    if own:
        return own
    problems = [_problem_with_secret_key(secret) for secret in _secret_keys()]
    if problem := next(filter(None, problems), ""):
        raise ConfigurationError(
            f"SECRET_KEY or one of SECRET_KEY_FALLBACKS is not {problem}, so tokens cannot be "
            "encrypted with it. Set TIKTOK_BUSINESS['ENCRYPTION_KEYS']."
        )
    return [Secret(secret) for secret in _secret_keys()]


def _secret_keys() -> Sequence[Any]:
    return (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)


def _problem_with_secret_key(secret: Any) -> str:
    if is_plain(secret):
        return ""
    return "text that UTF-8 can hold" if isinstance(secret, str) else "a string"


@lru_cache(maxsize=16)  # each read of a token asks
def _usable(*keys: str) -> tuple[str, ...]:
    """ENCRYPTION_KEYS, masked; TypeError when one is wrong."""
    if not is_texts(keys):
        raise TypeError
    return tuple(map(Secret, keys))


class Environment(Protocol):
    """The part of ``environ.Env`` that is used; spares the import, which only projects need."""

    ENVIRON: Any  # a mapping of names to text
    prefix: str

    def get_value(self, var: str, cast: Any = ...) -> Any: ...


def from_env(env: Environment, prefix: str = "TIKTOK_BUSINESS_") -> dict[str, Any]:
    """Build the dict for ``settings.TIKTOK_BUSINESS`` from a django-environ ``Env``.

    Holds only what the environment sets, so the defaults stay here. An empty variable counts as
    not set, but for CONNECT_PERMISSION, where it means None. Lists are separated by commas; an
    encryption key therefore cannot hold one. A variable with the prefix but an unknown name is
    taken over without its value, for the checks to report as an unknown key. Raises
    ConfigurationError, naming the variable and never its text, for what cannot be read.
    """
    result: dict[str, Any] = {}
    start = f"{env.prefix}{prefix}"
    for name, setting in SETTINGS.items():
        variable = f"{start}{name}"
        if variable not in env.ENVIRON:
            continue
        try:
            # Ends are stripped because secrets that are mounted as files end in a newline.
            text: str | None = env.get_value(f"{prefix}{name}", cast=str).strip()
        except (ImproperlyConfigured, RecursionError):  # not there, or it names itself
            text = None
        if text is None:
            # Raised out here and without a cause, because django-environ's message is the text.
            raise ConfigurationError(
                f"The environment variable {variable} begins with $ and so names another "
                "variable, which is not set."
            )
        if text:
            try:
                result[name] = setting.parse(text)
            except ValueError:
                raise ConfigurationError(
                    f"The environment variable {variable} must be {setting.expected}."
                ) from None
        elif setting.empty is not REQUIRED:
            result[name] = setting.empty
    if start:
        for variable in env.ENVIRON:
            name = variable.removeprefix(start)
            if name == variable or name in SETTINGS:
                continue
            # NAME_FILE beside NAME: environ.FileAwareEnv has read the file.
            if name.removesuffix("_FILE") not in result:
                result[name] = ""
    return result
