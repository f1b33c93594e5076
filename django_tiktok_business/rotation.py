"""Encrypt all stored tokens under the first key, so that the keys after it can be dropped.

Each row is one conditional UPDATE that names the very ciphertexts it replaces. A refresh or a
reconnect that stores another token meanwhile is left alone and looked at again; interrupting loses
nothing, and a second run finds little to do. Tokens, expiries and claims stay what they are, so a
refresh that is in flight saves its answer as ever.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import router
from django.db.transaction import TransactionManagementError

from . import conf, crypto, durable
from .exceptions import AccountBusyError, DecryptionError
from .models import BusinessAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RotationReport", "rotate_encryption_keys"]

PAGE_ROWS = 256
TRIES = 3  # of a row that others keep changing

_TOKENS = ("access_token", "refresh_token")


@dataclass
class RotationReport:
    """What became of the rows; each counts once in rotated, current, unreadable or busy.

    ``keys`` counts rows by the id of the key that their tokens are under when the run has ended; ""
    stands for text that is not in the format of an encrypted value. A row whose two tokens are
    under two keys counts under both. Rows without tokens are ``current``.
    """

    first_key: str
    rotated: int = 0
    current: int = 0
    unreadable: int = 0
    busy: int = 0
    keys: Counter[str] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """Whether no row needs any key but the first."""
        return not self.unreadable and not self.busy and set(self.keys) <= {self.first_key}


def rotate_encryption_keys(
    *,
    dry_run: bool = False,
    on_unreadable: Callable[[BusinessAccount, DecryptionError], object] = lambda *details: None,
    on_row: Callable[[], object] = lambda: None,
) -> RotationReport:
    """Re-encrypt under the first key, page by page, every token that is under another one.

    Rows of every app are included. ``dry_run`` writes nothing and counts as ``rotated`` what would
    be. ``on_unreadable`` is called for each token that no configured key opens: it is left as it
    is, and the row's other token is re-encrypted all the same. ``busy`` are rows that an open
    transaction has locked, or that others kept changing. Raises `ConfigurationError` and database
    errors; what was written before them stays. Not inside a transaction, which would hold the locks
    of all rows, and could take everything back: that raises `TransactionManagementError`.
    """
    using = router.db_for_write(BusinessAccount)
    if durable.is_in_transaction(using):
        raise TransactionManagementError("Keys cannot be rotated inside a transaction.")
    report = RotationReport(first_key=crypto.key_id(conf.encryption_secrets()[0]))
    for account in _rows(using):
        outcome = _rotate(account, report.first_key, using, dry_run=dry_run)
        unreadable = account.unreadable()
        for error in unreadable:
            on_unreadable(account, error)
        outcome = "unreadable" if unreadable else outcome
        setattr(report, outcome, getattr(report, outcome) + 1)
        report.keys.update({ciphertext.key_id for ciphertext in account.stored().values()})
        on_row()
    return report


def _rows(using: str) -> Iterator[BusinessAccount]:
    """All rows in pages of their own, so that no cursor and no transaction stays open."""
    rows = BusinessAccount.objects.using(using).order_by("pk")
    rows = rows.only("pk", "app_id", "open_id", *_TOKENS)
    page = list(rows[:PAGE_ROWS])  # a database that is not there is reported at once
    while page:
        yield from page
        following = rows.filter(pk__gt=page[-1].pk)[:PAGE_ROWS]
        page = durable.patiently(partial(list, following), using)


def _rotate(account: BusinessAccount, first_key: str, using: str, *, dry_run: bool) -> str:
    """Re-encrypt the row; its outcome. ``account`` then holds what the row does."""
    for _ in range(TRIES):
        stored = account.stored()
        changes: dict[str, Any] = {}
        for name, ciphertext in stored.items():
            if ciphertext.key_id != first_key:
                try:
                    changes[name] = account.seal(name, getattr(account, name))
                except DecryptionError:
                    continue
        if not changes:
            return "current"
        if dry_run:
            return "rotated"
        replaced = {name: stored[name] for name in changes}
        try:
            if _replace(account.pk, changes, replaced, using):
                account.set_stored(**changes)
                return "rotated"
        except AccountBusyError:
            return "busy"
        try:  # somebody stored other tokens meanwhile, and with old settings under an old key
            account.refresh_from_db(using=using, fields=_TOKENS)
        except BusinessAccount.DoesNotExist:
            account.set_stored(**dict.fromkeys(_TOKENS, ""))
            return "current"
    return "busy"


def _replace(pk: int, changes: dict[str, Any], replaced: dict[str, Any], using: str) -> int:
    def write() -> int:
        with durable.busy_if_locked(using):
            return durable.update_row(
                BusinessAccount, changes, where={"id": pk, **replaced}, using=using
            )

    return durable.patiently(write, using)
