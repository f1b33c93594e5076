"""Which secrets encrypt tokens, and which stored rows they open.

Stored text begins with the id of its key, so a query can find the rows under a configured key. It
cannot see that a text under such a key is damaged: only decrypting shows that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import CharField, Q
from django.db.models.functions import Substr
from django.db.models.lookups import In

from django_tiktok_business.conf import conf
from django_tiktok_business.conf.validators import is_plain, is_texts
from django_tiktok_business.exceptions import ConfigurationError
from django_tiktok_business.masking import Secret

from . import cipher

_HEAD_CHARACTERS = len(cipher.PREFIX) + len("0a1b2c3d:")


def under_known_keys(*columns: str) -> Q:
    """The condition that each of these encrypted columns is empty or under a configured key."""
    heads = ["", *_known_heads()]
    # As a CharField, because encrypted columns refuse comparisons.
    begins = [Substr(column, 1, _HEAD_CHARACTERS, output_field=CharField()) for column in columns]
    return Q(*(In(begin, heads) for begin in begins))


def _known_heads() -> list[str]:
    try:
        secrets = encryption_secrets()
    except ImproperlyConfigured:  # no key opens anything then; a check reports it
        return []
    return [f"{cipher.PREFIX}{cipher.key_id(secret)}:" for secret in secrets]


def encryption_secrets() -> Sequence[str]:
    """Return the secrets to derive encryption keys from: the first encrypts, all decrypt.

    Without ENCRYPTION_KEYS these are SECRET_KEY and SECRET_KEY_FALLBACKS, so that a trial needs no
    further set-up; a check warns about it. Raises ConfigurationError if one of them is not text.
    """
    keys = conf.configured().get("ENCRYPTION_KEYS", ())
    try:
        own: Sequence[str] = _usable(*keys) if isinstance(keys, (list, tuple)) else ()
    except TypeError:
        own = ()
    del keys  # they are in plain text, and error reports show local variables
    own = own or conf.ENCRYPTION_KEYS  # raises an error that says what is wrong with them
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


@lru_cache(maxsize=16)  # called for each read of a token
def _usable(*keys: str) -> tuple[str, ...]:
    """Return ENCRYPTION_KEYS masked; raise TypeError if one is wrong."""
    if not is_texts(keys):
        raise TypeError
    return tuple(map(Secret, keys))
