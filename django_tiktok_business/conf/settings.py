"""The settings: one table that says what each may hold, and the live object that reads them.

``conf.REFRESH_MARGIN_SECONDS`` and its like are looked up on each access: nothing is read at import
and nothing is cached, so ``override_settings`` and late configuration work. A missing or wrong
value raises `ConfigurationError` instead of becoming a default; when the project starts, the system
checks report the same problems from the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Self, TypeVar, overload

from django.conf import settings

from django_tiktok_business.exceptions import ConfigurationError
from django_tiktok_business.masking import Secret

from .validators import (
    REQUIRED,
    is_base_url,
    is_dotted,
    is_path,
    is_recipient,
    is_scopes,
    is_text,
    is_texts,
    is_url,
    parse_flag,
    parse_list,
    parse_secrets,
    read_base_url,
    read_secrets,
)

T = TypeVar("T")

_DAY: Final = 86_400  # seconds; also how long an access token lives
_YEAR: Final = 31_536_000  # seconds; also how long a refresh token lives
_DEFAULT: Final = object()  # the setting's own default


@dataclass(eq=False)
class Setting(Generic[T]):
    """One key of ``TIKTOK_BUSINESS``: what it may hold, and how it is read."""

    name: str = field(init=False)
    default: Any
    accepts: Callable[[Any], bool]
    expected: str  # completes the sentence "TIKTOK_BUSINESS[...] must be"
    example: str  # Python source of a good value, for hints
    parse: Callable[[str], Any]  # the text of an environment variable; raises ValueError
    read: Callable[[Any], T] | None = None  # turns an accepted value into what readers get
    empty_is_none: bool = False  # an empty environment variable means None, not "unset"
    masked: bool = False  # the value may hold a secret, so no message shows it

    def __set_name__(self, owner: type[Conf], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[Conf]) -> Self: ...
    @overload
    def __get__(self, instance: Conf, owner: type[Conf]) -> T: ...
    def __get__(self, instance: Conf | None, owner: type[Conf]) -> Self | T:
        if instance is None:
            return self
        value = instance.configured().get(self.name, self.default)
        if value is REQUIRED:
            raise ConfigurationError(
                f"TIKTOK_BUSINESS[{self.name!r}] is missing. Set it in your settings: "
                f'TIKTOK_BUSINESS = {{"{self.name}": {self.example}, ...}}.'
            )
        if problem := self.problem(value):
            del value  # it may be a secret, and error reports show local variables
            raise ConfigurationError(
                f"TIKTOK_BUSINESS[{self.name!r}] {problem}. A good value: {self.example}."
            )
        accepted: T = value if self.read is None else self.read(value)
        return accepted

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with ``value``, or None."""
        if self.accepts(value):
            return None
        if self.masked:
            # The type alone helps (bytes, a bare string for a list) and gives nothing away.
            return f"must be {self.expected} (its type is {type(value).__name__})"
        return f"must be {self.expected}, not {_shown(value)}"


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # noqa: BLE001 -- thousands of digits, or a repr that is not ours
        return f"of type {type(value).__name__}"


def optional(
    accepts: Callable[[Any], bool],
    expected: str,
    example: str,
    *,
    default: str | None = None,
    empty_is_none: bool = False,
) -> Setting[str | None]:
    return Setting(
        default,
        lambda value: value is None or accepts(value),
        f"{expected}, or None",
        example,
        str,
        empty_is_none=empty_is_none,
    )


def number(default: int, minimum: int, maximum: int | None = None) -> Setting[int]:
    limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    return Setting(
        default,
        # type() and not isinstance(): True is an int as well.
        lambda value: (
            type(value) is int and minimum <= value and (maximum is None or value <= maximum)
        ),
        f"a whole number {limits}",
        str(default),
        int,
    )


class Conf:
    """``settings.TIKTOK_BUSINESS``, one attribute for each key."""

    # The developer app. TikTok calls the id client_key, client_id or app_id, depending on the call.
    APP_ID = Setting[str](
        REQUIRED,
        lambda value: is_text(value) and "\0" not in value,  # databases refuse that
        "a string without spaces around it (write the digits in quotes)",
        '"7000000000000000001"',
        str,
    )
    APP_SECRET = Setting[str](
        REQUIRED,
        is_text,
        "a string without spaces around it",
        '"the secret that TikTok\'s developer portal shows"',
        Secret,
        read=Secret,
        masked=True,
    )
    # Secrets, newest first: the first encrypts, all decrypt. Rotate by putting a new one in front.
    # Empty: SECRET_KEY, then SECRET_KEY_FALLBACKS.
    ENCRYPTION_KEYS = Setting[list[str]](
        (),
        is_texts,
        "a list of non-empty strings without spaces around them",
        '["a long random string"]',
        parse_secrets,
        read=read_secrets,
        masked=True,
    )
    # The redirect URL exactly as registered with TikTok; None builds it from the request. Checks
    # report what TikTok would not accept: a local simulator may be less strict.
    REDIRECT_URI = optional(is_text, "an absolute URL", '"https://YOUR-HOST/tiktok/callback/"')
    # The consent page: bare, or the whole URL that TikTok's portal issues, with its parameters.
    AUTHORIZATION_URL = Setting[str](
        "https://www.tiktok.com/v2/auth/authorize",
        is_url,
        "an absolute http or https URL without fragment",
        '"https://www.tiktok.com/v2/auth/authorize"',
        str,
        masked=True,
    )
    # Where the API lives. A slash at the end is removed here, because paths begin with one.
    API_BASE_URL = Setting[str](
        "https://business-api.tiktok.com/open_api/v1.3",
        is_base_url,
        "an absolute http or https URL without query and fragment",
        '"https://business-api.tiktok.com/open_api/v1.3"',
        str,
        read=read_base_url,
        masked=True,
    )
    # Scopes to ask for. If the app lacks one of them, TikTok does not show the consent page.
    SCOPES = Setting[list[str]](
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
    )
    # Ask TikTok to show the consent page even if the account has granted the same scopes before.
    DISABLE_AUTO_AUTH = Setting[bool](
        False, lambda value: isinstance(value, bool), "True or False", "False", parse_flag
    )
    # The permission needed to connect an account; None (an empty environment variable): every
    # logged-in user may.
    CONNECT_PERMISSION = optional(
        is_dotted,
        'a permission as "app_label.codename"',
        '"tiktok_business.add_businessaccount"',
        default="tiktok_business.add_businessaccount",
        empty_is_none=True,
    )
    # Where connect and disconnect end without a safe `next`: a URL, a path or the name of a URL
    # pattern. None: the accounts page.
    CONNECT_REDIRECT_URL = optional(
        is_text, "a URL, a path or the name of a URL pattern", '"/settings/"'
    )
    # Seconds between leaving for the consent page and coming back. TikTok's code lives for 600.
    STATE_MAX_AGE_SECONDS = number(600, 1, _DAY)
    # Timeout in seconds of an HTTP call: for connecting, and again for each wait for bytes.
    REQUEST_TIMEOUT_SECONDS = number(20, 1, 600)
    # How often a call that is safe to repeat is tried, including the first time.
    MAX_ATTEMPTS = number(3, 1, 10)
    # Rate limit: calls a minute of the whole app, all processes together; 0: unlimited.
    REQUESTS_PER_MINUTE = number(600, 0)
    # The Django cache through which processes share the rate limit.
    CACHE_ALIAS = Setting[str](
        "default", is_text, "the name of a cache in CACHES", '"default"', str
    )
    # Seconds: the command refreshes the access tokens that expire within this time.
    REFRESH_WITHIN_SECONDS = number(21_600, 0, _YEAR)
    # Seconds: a token with less left is refreshed before it is handed out. Shorter than a token's
    # lifetime, because otherwise each use would refresh it.
    REFRESH_MARGIN_SECONDS = number(300, 0, _DAY - 1)
    # Calls in flight in one process; each holds a thread and a connection.
    REFRESH_CONCURRENCY = number(8, 1, 128)
    # Seconds until the claim of a worker that died is free again.
    CLAIM_SECONDS = number(120, 1, _DAY)
    # Seconds from a first rejection by TikTok's refresh endpoint to the second one, which confirms
    # that an account has to be connected again; 0: the first is final.
    REJECTION_CONFIRM_SECONDS = number(600, 0, _DAY)
    # How many days before its end a refresh token is reported; it cannot be prolonged.
    REAUTHORIZATION_WARNING_DAYS = number(30, 0, 365)
    # Who gets a mail when an account has to be connected again, now or soon; empty: nobody.
    NOTIFY = Setting[list[str]](
        (),
        lambda value: is_texts(value) and all(map(is_recipient, value)),
        'a list of e-mail addresses, or "owner" for that of the account\'s owner',
        '["owner", "ops@example.com"]',
        parse_list,
        read=list,
    )
    # For how many days, and how many for each account, events are kept; 0: none.
    EVENTS_KEPT_DAYS = number(90, 1, 36_500)
    EVENTS_KEPT_PER_ACCOUNT = number(200, 0, 100_000)
    # Seconds: the age of the oldest webhook signature that is accepted.
    WEBHOOK_TOLERANCE_SECONDS = number(300, 1, _DAY)
    # Dotted path of a callable without arguments that returns a requests.Session (for a proxy, or
    # for the simulator in tests). None: a plain session.
    SESSION_FACTORY_PATH = optional(
        is_path, "the dotted path of a callable", '"myproject.tiktok.session"'
    )

    @staticmethod
    def configured() -> Mapping[str, Any]:
        """Return ``settings.TIKTOK_BUSINESS`` unchecked.

        Raises ConfigurationError if it is not a dict. To use a setting, read ``conf.NAME`` instead.
        """
        values = getattr(settings, "TIKTOK_BUSINESS", None)
        if not isinstance(values, dict):
            found = "missing" if values is None else f"a {type(values).__name__}, not a dict"
            del values  # it may hold secrets, and error reports show local variables
            raise ConfigurationError(
                f"The setting TIKTOK_BUSINESS is {found}. "
                'Set TIKTOK_BUSINESS = {"APP_ID": "...", "APP_SECRET": "..."} in your settings.'
            )
        return values

    def usable(self, name: str, *, fallback: Any = _DEFAULT) -> Any:
        """Return a setting or, while it is missing or wrong, ``fallback`` (or else its default).

        For pages and checks that carry on regardless: a check reports what is wrong.
        """
        try:
            return getattr(self, name)
        except ConfigurationError:
            return SETTINGS[name].default if fallback is _DEFAULT else fallback


SETTINGS: Final[Mapping[str, Setting[Any]]] = {
    name: setting for name, setting in vars(Conf).items() if isinstance(setting, Setting)
}
conf: Final = Conf()
