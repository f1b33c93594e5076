"""Which rows' tokens are under a key that is configured, told by the database alone.

Stored text begins with the id of its key, so nothing has to be decrypted, or even loaded. What is
damaged under a known key looks well from here: only decrypting tells.
"""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.db.models import CharField, Q
from django.db.models.functions import Substr
from django.db.models.lookups import In

from . import conf, crypto

__all__ = ["under_known_keys"]

_HEAD_CHARACTERS = len(crypto.PREFIX) + len("0a1b2c3d:")


def under_known_keys(*columns: str) -> Q:
    """A condition: each of these encrypted columns is empty or under a configured key."""
    heads = ["", *_known_heads()]
    # As a CharField: the columns themselves refuse to be compared with anything.
    begins = [Substr(column, 1, _HEAD_CHARACTERS, output_field=CharField()) for column in columns]
    return Q(*(In(begin, heads) for begin in begins))


def _known_heads() -> list[str]:
    try:
        secrets = conf.encryption_secrets()
    except ImproperlyConfigured:  # which the checks report: no key opens anything then
        return []
    return [f"{crypto.PREFIX}{crypto.key_id(secret)}:" for secret in secrets]
