"""The system check on stored tokens: part of ``check --database default`` and of ``migrate``.

Warnings: W014 tokens that no configured key opens, W015 tokens under another key than the first,
W016 tokens that could not be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router

from . import conf, crypto

__all__ = ["check_stored_tokens"]

SAMPLE_ROWS = 50  # of the oldest and of the newest accounts


def check_stored_tokens(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn of stored tokens that cannot be read, or that keep an old key in use."""
    try:
        first_key = crypto.key_id(conf.encryption_secrets()[0])
    except ImproperlyConfigured:  # the checks on the settings say so
        return []
    return [message for alias in databases or () for message in _check_database(alias, first_key)]


def _check_database(alias: str, first_key: str) -> list[CheckMessage]:
    model: Any = apps.get_model("tiktok_business", "BusinessAccount")
    connection = connections[alias]
    if not router.allow_migrate_model(alias, model):
        return []
    # `migrate` runs this before it makes the table.
    if model._meta.db_table not in connection.introspection.table_names():
        return []
    # What the first migration made, for the check to work before later ones are applied.
    rows = model.objects.using(alias).only(
        "pk", "app_id", "open_id", "access_token", "refresh_token"
    )
    try:
        sample = {
            account.pk: account
            for order in ("pk", "-pk")
            for account in rows.order_by(order)[:SAMPLE_ROWS]
        }
    except DatabaseError as error:
        return [
            checks.Warning(
                f"The tokens in database {alias!r} could not be looked at "
                f"({type(error).__name__}).",
                hint="May the database's user read the table of the accounts?",
                id="tiktok_business.W016",
            )
        ]
    unreadable = [account for account in sample.values() if account.unreadable()]
    old = [
        account
        for account in sample.values()
        if account not in unreadable
        and any(ciphertext.key_id != first_key for ciphertext in account.stored().values())
    ]
    messages: list[CheckMessage] = []
    if unreadable:
        messages.append(
            checks.Warning(
                f"{_some(unreadable, sample)} have tokens that no configured key opens, such as "
                f"{unreadable[0].open_id} in database {alias!r}.",
                hint="Put the missing key behind the first of ENCRYPTION_KEYS, or have the "
                "accounts connected again. manage.py rotate_encryption_keys --dry-run lists all "
                "of them.",
                id="tiktok_business.W014",
            )
        )
    if old:
        messages.append(
            checks.Warning(
                f"{_some(old, sample)} have tokens under another key than the first of "
                f"ENCRYPTION_KEYS, in database {alias!r}.",
                hint="Run manage.py rotate_encryption_keys; then the old keys can be dropped.",
                id="tiktok_business.W015",
            )
        )
    return messages


def _some(accounts: list[Any], sample: dict[int, Any]) -> str:
    return f"{len(accounts)} of {len(sample)} TikTok Business accounts looked at"
