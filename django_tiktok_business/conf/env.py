"""Build ``TIKTOK_BUSINESS`` from environment variables."""

from __future__ import annotations

from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured

from django_tiktok_business.exceptions import ConfigurationError

from .settings import SETTINGS


class Environment(Protocol):
    """The part of ``environ.Env`` used here; saves importing a package that only projects need."""

    ENVIRON: Any  # a mapping of names to text
    prefix: str

    def get_value(self, var: str, cast: Any = ...) -> Any: ...


def from_env(env: Environment, prefix: str = "TIKTOK_BUSINESS_") -> dict[str, Any]:
    """Build the dict for ``settings.TIKTOK_BUSINESS`` from a django-environ ``Env``.

    The dict holds only what the environment sets; the rest keeps its default. An empty variable
    counts as unset, except for CONNECT_PERMISSION, where it means None. Lists are separated by
    commas, so an encryption key cannot contain one. A variable with the prefix and an unknown name
    becomes a key without its value, which a check reports. Raises ConfigurationError for a text
    that cannot be read, naming the variable but never showing the text.
    """
    result: dict[str, Any] = {}
    start = f"{env.prefix}{prefix}"
    for name, setting in SETTINGS.items():
        variable = f"{start}{name}"
        if variable not in env.ENVIRON:
            continue
        try:
            # Stripped, because secrets that are mounted as files end in a newline.
            text: str | None = env.get_value(f"{prefix}{name}", cast=str).strip()
        except (ImproperlyConfigured, RecursionError):  # not set, or it names itself
            text = None
        if text is None:
            # Not raised in the except block, because django-environ's error shows the text.
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
        elif setting.empty_is_none:
            result[name] = None
    if start:
        for variable in env.ENVIRON:
            name = variable.removeprefix(start)
            if name == variable or name in SETTINGS:
                continue
            # With NAME_FILE, NAME is known too if environ.FileAwareEnv has read the file.
            if name.removesuffix("_FILE") not in result:
                result[name] = ""
    return result
