"""Build ``TIKTOK_BUSINESS`` from environment variables."""

from __future__ import annotations

from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured

from django_tiktok_business.exceptions import ConfigurationError

from .settings import SETTINGS
from .validators import REQUIRED

__all__ = ["from_env"]


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
