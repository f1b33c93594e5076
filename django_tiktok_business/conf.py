"""The one reader of ``settings.TIKTOK_BUSINESS``.

``conf.REFRESH_MARGIN_SECONDS`` and its like are looked up on each access: nothing is read at
import and nothing is kept, so ``override_settings`` and late configuration simply work. A missing
or wrong value raises `ConfigurationError` instead of becoming a default; the system checks report
the same problems, from the same table, when the project starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .exceptions import ConfigurationError
from .masking import Secret

__all__ = ["REQUIRED", "SETTINGS", "Setting", "configured", "encryption_secrets", "from_env"]

REQUIRED: Final = object()  # the default of a setting that has none


@dataclass(frozen=True, slots=True)
class Setting:
    """What one key may hold, and how it is read from the dict and from the environment."""

    default: Any
    accepts: Callable[[Any], bool]
    expected: str  # completes the sentence "TIKTOK_BUSINESS[...] must be"
    example: str  # Python source of a good value, for hints
    parse: Callable[[str], Any]  # the text of an environment variable; raises ValueError
    read: Callable[[Any], Any] | None = None  # what an accepted value is handed out as
    empty: Any = REQUIRED  # what an empty environment variable stands for; REQUIRED: not set
    masked: bool = False  # the value may hold a secret, so no message shows it

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with ``value``, None when nothing is."""
        if self.accepts(value):
            return None
        if self.masked:
            # The type alone helps (bytes, a bare string for a list) and gives nothing away.
            return f"must be {self.expected} (its type is {type(value).__name__})"
        return f"must be {self.expected}, not {value!r:.80}"


def _is_text(value: object) -> bool:
    # Spaces at the ends come from copying out of a browser and never belong to the value.
    return isinstance(value, str) and value != "" and value == value.strip()


def _is_url(value: object) -> bool:
    if not isinstance(value, str) or any(char.isspace() for char in value) or "#" in value:
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, a broken IPv6 address
        return False


def _is_base_url(value: object) -> bool:
    return _is_url(value) and "?" not in str(value)


def _is_dotted(value: object) -> bool:
    return isinstance(value, str) and len(parts := value.split(".")) > 1 and all(parts)


def _is_path(value: object) -> bool:
    return _is_dotted(value) and all(part.isidentifier() for part in str(value).split("."))


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_scopes(value: object) -> bool:
    # "a,b" as one item is the usual mistake; TikTok would take it for two scopes and we for one.
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(_is_text(scope) and "," not in scope and " " not in scope for scope in value)
    )


def _parse_flag(text: str) -> bool:
    # Env.bool() takes any word that it does not know for False; a typo has to be an error.
    word = text.lower()
    if word in ("1", "true", "on", "y", "yes", "ok"):
        return True
    if word in ("0", "false", "off", "n", "no"):
        return False
    raise ValueError


def _parse_list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _parse_secrets(text: str) -> list[str]:
    return [Secret(item) for item in _parse_list(text)]


def _read_secrets(value: list[str] | tuple[str, ...]) -> list[str]:
    return [Secret(item) for item in value]


def _read_base_url(value: str) -> str:
    return value.rstrip("/")


def _optional(
    accepts: Callable[[Any], bool],
    expected: str,
    example: str,
    *,
    default: str | None = None,
    empty: Any = REQUIRED,
) -> Setting:
    return Setting(
        default,
        lambda value: value is None or accepts(value),
        f"{expected}, or None",
        example,
        str,
        empty=empty,
    )


def _number(default: int, minimum: int, maximum: int | None = None) -> Setting:
    # type() and not isinstance(): True is an int as well.
    if maximum is None:
        return Setting(
            default,
            lambda value: type(value) is int and value >= minimum,
            f"a whole number of at least {minimum}",
            str(default),
            int,
        )
    return Setting(
        default,
        lambda value: type(value) is int and minimum <= value <= maximum,
        f"a whole number from {minimum} to {maximum}",
        str(default),
        int,
    )


_DAY: Final = 86_400  # seconds; also how long an access token lives
_YEAR: Final = 31_536_000  # seconds; also how long a refresh token lives

SETTINGS: Final[Mapping[str, Setting]] = {
    # The developer app. TikTok calls the id client_key, client_id or app_id, depending on the call.
    "APP_ID": Setting(
        REQUIRED,
        _is_text,
        "a string without spaces around it (write the digits in quotes)",
        '"7000000000000000001"',
        str,
    ),
    "APP_SECRET": Setting(
        REQUIRED,
        _is_text,
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
        _is_texts,
        "a list of non-empty strings without spaces around them",
        '["a long random string"]',
        _parse_secrets,
        read=_read_secrets,
        masked=True,
    ),
    # The redirect URL exactly as registered with TikTok; None builds it from the request. What
    # TikTok asks of it is the business of the checks: a local simulator may be less strict.
    "REDIRECT_URI": _optional(_is_text, "an absolute URL", '"https://YOUR-HOST/tiktok/callback/"'),
    # The consent page: bare, or the whole URL that TikTok's portal issues, with its parameters.
    "AUTHORIZATION_URL": Setting(
        "https://www.tiktok.com/v2/auth/authorize",
        _is_url,
        "an absolute http or https URL without fragment",
        '"https://www.tiktok.com/v2/auth/authorize"',
        str,
        masked=True,
    ),
    # Where the API lives. A slash at the end is taken off here, so paths begin with one.
    "API_BASE_URL": Setting(
        "https://business-api.tiktok.com/open_api/v1.3",
        _is_base_url,
        "an absolute http or https URL without query and fragment",
        '"https://business-api.tiktok.com/open_api/v1.3"',
        str,
        read=_read_base_url,
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
        _is_scopes,
        "a list of at least one scope, each a string without commas and spaces",
        '["user.info.basic", "user.info.username"]',
        _parse_list,
        read=list,
    ),
    # Ask TikTok to show the consent page even to who has granted the same scopes before.
    "DISABLE_AUTO_AUTH": Setting(
        False, lambda value: isinstance(value, bool), "True or False", "False", _parse_flag
    ),
    # The permission that connecting takes; None (an empty environment variable): to be logged in.
    "CONNECT_PERMISSION": _optional(
        _is_dotted,
        'a permission as "app_label.codename"',
        '"tiktok_business.add_businessaccount"',
        default="tiktok_business.add_businessaccount",
        empty=None,
    ),
    # Where connect and disconnect end without a safe `next`: a URL, a path or the name of a URL
    # pattern. None: the accounts page.
    "CONNECT_REDIRECT_URL": _optional(
        _is_text, "a URL, a path or the name of a URL pattern", '"/settings/"'
    ),
    # Seconds from leaving for the consent page to coming back. TikTok's code lives 600.
    "STATE_MAX_AGE_SECONDS": _number(600, 1, _DAY),
    # Seconds that connecting may take, and again each wait for bytes, in one HTTP call.
    "REQUEST_TIMEOUT_SECONDS": _number(20, 1, 600),
    # Tries of one call that is safe to repeat, the first included.
    "MAX_ATTEMPTS": _number(3, 1, 10),
    # Calls a minute of the whole app, all processes together; 0: no ceiling.
    "REQUESTS_PER_MINUTE": _number(600, 0),
    # The Django cache through which processes share that ceiling.
    "CACHE_ALIAS": Setting("default", _is_text, "the name of a cache in CACHES", '"default"', str),
    # Seconds: the command refreshes the access tokens that expire within this time.
    "REFRESH_WITHIN_SECONDS": _number(21_600, 0, _YEAR),
    # Seconds: a token with less left is refreshed before it is handed out. As long as a token
    # lives, each use would refresh.
    "REFRESH_MARGIN_SECONDS": _number(300, 0, _DAY - 1),
    # Calls in flight in one process; each holds a thread and a connection.
    "REFRESH_CONCURRENCY": _number(8, 1, 128),
    # Seconds until the claim of a worker that died is free again.
    "CLAIM_SECONDS": _number(120, 1, _DAY),
    # Days before its end at which a refresh token is reported; it cannot be prolonged.
    "REAUTHORIZATION_WARNING_DAYS": _number(30, 0, 365),
    # Seconds: age of the oldest webhook signature that is accepted.
    "WEBHOOK_TOLERANCE_SECONDS": _number(300, 1, _DAY),
    # Dotted path of a callable without arguments that returns a requests.Session (for proxies,
    # for the simulator in tests). None: a plain session.
    "SESSION_FACTORY_PATH": _optional(
        _is_path, "the dotted path of a callable", '"myproject.tiktok.session"'
    ),
}

# For type checkers: annotations alone create no attribute, so each access ends in `_current`.
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
WEBHOOK_TOLERANCE_SECONDS: int
SESSION_FACTORY_PATH: str | None


def _current(name: str) -> Any:
    """Return the present value of a setting; raise ConfigurationError if it is missing or wrong."""
    setting = SETTINGS.get(name)
    if setting is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = configured().get(name, setting.default)
    if value is REQUIRED:
        raise ConfigurationError(
            f"TIKTOK_BUSINESS[{name!r}] is missing. "
            f'Set it in your settings: TIKTOK_BUSINESS = {{"{name}": {setting.example}, ...}}.'
        )
    if problem := setting.problem(value):
        raise ConfigurationError(
            f"TIKTOK_BUSINESS[{name!r}] {problem}. A good value: {setting.example}."
        )
    return value if setting.read is None else setting.read(value)


# A type checker that saw this would take any misspelt name for a setting.
if not TYPE_CHECKING:  # pragma: no branch -- always true where code runs
    __getattr__ = _current


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


def encryption_secrets() -> list[str]:
    """Return the secrets to derive encryption keys from: the first encrypts, all decrypt.

    Without ENCRYPTION_KEYS these are SECRET_KEY and SECRET_KEY_FALLBACKS, so that a trial needs no
    further set-up; a check warns. Raises ConfigurationError when SECRET_KEY is not a string.
    """
    own: list[str] = _current("ENCRYPTION_KEYS")
    if own:
        return own
    secrets: list[str] = []
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        if not isinstance(secret, str):
            raise ConfigurationError(
                "SECRET_KEY or one of SECRET_KEY_FALLBACKS is not a string, so tokens cannot be "
                "encrypted with it. Set TIKTOK_BUSINESS['ENCRYPTION_KEYS']."
            )
        secrets.append(Secret(secret))
    return secrets


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
        except ImproperlyConfigured:
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
