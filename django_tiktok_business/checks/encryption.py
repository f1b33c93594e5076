"""System checks on encryption keys and on the tokens stored under them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import log2
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Tags
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router

from django_tiktok_business.conf import conf
from django_tiktok_business.encryption import cipher
from django_tiktok_business.encryption.keys import encryption_secrets

from .registry import check, database_check, warning

_SHORTEST_KEY: Final = 32  # characters: 128 bits even if they are random hexadecimal digits

# As counted by `_estimated_bits`. Random text of the shortest length hardly ever has less than 78
# bits, even if it consists of digits; a repeated word of up to 18 letters has less than 72.
_GUESSABLE_BITS: Final = 72
_NEW_KEY_HINT: Final = (
    'Print a new key with: python -c "import secrets; print(secrets.token_urlsafe(48))". '
    "Put it first in TIKTOK_BUSINESS['ENCRYPTION_KEYS'], and keep {old} after it for as long as "
    "stored tokens are encrypted with it."
)


@check(Tags.security)
def check_encryption_keys() -> Iterator[CheckMessage]:
    """Warn about encryption keys that are missing, weak, repeated or shared with Django."""
    keys = conf.usable("ENCRYPTION_KEYS", fallback=None)
    if keys == []:
        yield warning(
            "W004",
            "TIKTOK_BUSINESS['ENCRYPTION_KEYS'] is empty, so tokens are encrypted with SECRET_KEY. "
            "Once SECRET_KEY is replaced and its old value is removed from SECRET_KEY_FALLBACKS, "
            "no stored token can be decrypted and every account has to be connected again.",
            _NEW_KEY_HINT.format(old="the current SECRET_KEY (and SECRET_KEY_FALLBACKS)"),
        )
    for index, key in enumerate(keys or ()):
        for number, problem in _key_problems(key, earlier=keys[:index]):
            yield warning(
                number,
                f"TIKTOK_BUSINESS['ENCRYPTION_KEYS'][{index}] {problem}.",
                "Remove it." if key in keys[:index] else _NEW_KEY_HINT.format(old="this one"),
            )


def _key_problems(key: str, *, earlier: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the number of each warning about a key, and what is wrong with it."""
    if key in earlier:
        yield "W008", "repeats an earlier key"
        return
    if key in _django_secrets():
        problem = (
            "is also in SECRET_KEY or SECRET_KEY_FALLBACKS: neither can be replaced on its own"
        )
        yield "W007", problem
    if len(key) < _SHORTEST_KEY:
        yield "W005", f"is shorter than {_SHORTEST_KEY} characters"
    elif _estimated_bits(key) < _GUESSABLE_BITS:
        yield "W006", "is easy to guess: it repeats itself or uses few different characters"


def _django_secrets() -> list[object]:
    try:
        return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    except ImproperlyConfigured:  # SECRET_KEY is empty, which Django itself reports
        return []


def _estimated_bits(key: str) -> float:
    """Estimate the entropy in bits from how often each character occurs.

    Text that only repeats its beginning counts as that beginning. This is an upper bound: an order
    such as that of the alphabet is not recognised.
    """
    period = next(length for length in range(1, len(key) + 1) if key.startswith(key[length:]))
    counts = Counter(key[:period]).values()
    return -sum(count * log2(count / period) for count in counts)


SAMPLE_ROWS = 50  # of the oldest accounts, and as many of the newest


@database_check
def check_stored_tokens(
    app_configs: object = None, databases: Sequence[str] | None = None, **kwargs: object
) -> list[CheckMessage]:
    """Warn about stored tokens that cannot be decrypted, or that keep an old key in use."""
    try:
        first_key = cipher.key_id(encryption_secrets()[0])
    except ImproperlyConfigured:  # reported by the checks on the settings
        return []
    return [message for alias in databases or () for message in _check_database(alias, first_key)]


def _check_database(alias: str, first_key: str) -> Iterator[CheckMessage]:
    model: Any = apps.get_model("tiktok_business", "BusinessAccount")
    if not router.allow_migrate_model(alias, model):
        return
    # `migrate` runs this check before it creates the table.
    if model._meta.db_table not in connections[alias].introspection.table_names():
        return
    # Only columns of the first migration, so that the check works before later ones are applied.
    rows = model.objects.using(alias).only(
        "pk", "app_id", "open_id", "access_token", "refresh_token"
    )
    try:
        sample = {
            account.pk: account
            for order in ("pk", "-pk")
            for account in rows.order_by(order)[:SAMPLE_ROWS]
        }
    except DatabaseError as failure:
        yield warning(
            "W016",
            f"The tokens in database {alias!r} could not be checked ({type(failure).__name__}).",
            "Check that the database user may read the table of the accounts.",
        )
        return
    unreadable = [account for account in sample.values() if account.unreadable()]
    old = [
        account
        for account in sample.values()
        if account not in unreadable
        and any(ciphertext.key_id != first_key for ciphertext in account.stored().values())
    ]
    if unreadable:
        yield warning(
            "W014",
            f"{_some(unreadable, sample)} have tokens that no configured key decrypts, such as "
            f"{unreadable[0].open_id} in database {alias!r}.",
            "Add the missing key to ENCRYPTION_KEYS, after the first, or have the accounts "
            "connected again. manage.py rotate_encryption_keys --dry-run lists them all.",
        )
    if old:
        yield warning(
            "W015",
            f"{_some(old, sample)} have tokens encrypted with another key than the first of "
            f"ENCRYPTION_KEYS, in database {alias!r}.",
            "Run manage.py rotate_encryption_keys; then the old keys can be removed.",
        )


def _some(accounts: list[Any], sample: dict[int, Any]) -> str:
    return f"{len(accounts)} of {len(sample)} sampled TikTok Business accounts"
