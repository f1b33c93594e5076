"""Re-encrypt all stored tokens under the first key, so that older keys can be removed.

Each row is one conditional UPDATE that names the ciphertexts it replaces. If a refresh or a
reconnect stores other tokens meanwhile, those win, and the row is tried again. An interrupted run
loses nothing, and the next one finds little to do. Tokens, expiries and claims keep their values,
so a refresh in flight saves its answer as usual.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import router
from django.db.transaction import TransactionManagementError

from django_tiktok_business.db import vendors, writes
from django_tiktok_business.db.pages import Pages
from django_tiktok_business.exceptions import AccountBusyError, DecryptionError

from . import cipher
from .keys import encryption_secrets
from .model import EncryptedModel

PAGE_ROWS = 256
TRIES = 3  # for a row that others keep changing


@dataclass
class RotationReport:
    """The result of a run: each row counts once in rotated, current, unreadable or busy.

    ``keys`` counts rows by the id of the key that their tokens are under at the end of the run; ""
    stands for text that is not in the format of an encrypted value. A row whose two tokens are
    under different keys counts for both. Rows without tokens are ``current``.
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
    model: type[EncryptedModel],
    *,
    dry_run: bool = False,
    on_unreadable: Callable[[Any, DecryptionError], object] = lambda *details: None,
    on_row: Callable[[], object] = lambda: None,
) -> RotationReport:
    """Re-encrypt under the first key, page by page, all values of ``model`` that are under another.

    Rows of every app are included. With ``dry_run`` nothing is written, and ``rotated`` counts what
    would be. ``on_unreadable`` is called for each token that no configured key opens: it stays as
    it is, and the row's other token is still re-encrypted. ``busy`` counts rows that an open
    transaction has locked or that others kept changing. Raises `ConfigurationError` and database
    errors; what was written before stays. Inside a transaction, which would keep all rows locked
    and could undo everything, raises `TransactionManagementError`.
    """
    using = router.db_for_write(model)
    if writes.is_in_transaction(using):
        raise TransactionManagementError("Keys cannot be rotated inside a transaction.")
    report = RotationReport(first_key=cipher.key_id(encryption_secrets()[0]))
    for row in _rows(model, using):
        outcome = _rotate(row, report.first_key, using, dry_run=dry_run)
        unreadable = row.unreadable()
        for error in unreadable:
            on_unreadable(row, error)
        outcome = "unreadable" if unreadable else outcome
        setattr(report, outcome, getattr(report, outcome) + 1)
        report.keys.update({ciphertext.key_id for ciphertext in row.stored().values()})
        on_row()
    return report


def _rows(model: type[EncryptedModel], using: str) -> Iterator[EncryptedModel]:
    fields = model.encrypted_fields()
    columns = {column for field in fields for column in (field.name, *field.bound_to)}
    rows = model._default_manager.using(using).order_by("pk").only("pk", *columns)
    pages = Pages(rows, size=PAGE_ROWS)
    page = pages.next()  # a missing database is reported at once
    while page:
        yield from page
        page = writes.retry_while_unavailable(pages.next, using)


def _rotate(row: EncryptedModel, first_key: str, using: str, *, dry_run: bool) -> str:
    """Re-encrypt the row and return the outcome; ``row`` is then up to date."""
    for _ in range(TRIES):
        stored = row.stored()
        changes: dict[str, Any] = {}
        for name, ciphertext in stored.items():
            if ciphertext.key_id != first_key:
                try:
                    changes[name] = row.encrypt(name, getattr(row, name))
                except DecryptionError:
                    continue
        if not changes:
            return "current"
        if dry_run:
            return "rotated"
        replaced = {name: stored[name] for name in changes}
        try:
            if _replace(row, changes, replaced, using):
                row.set_stored(**changes)
                return "rotated"
        except AccountBusyError:
            return "busy"
        try:  # others stored new tokens meanwhile, perhaps with old settings and so an old key
            row.refresh_from_db(using=using, fields=list(stored))
        except ObjectDoesNotExist:
            row.set_stored(**dict.fromkeys(stored, ""))
            return "current"
    return "busy"


def _replace(
    row: EncryptedModel, changes: dict[str, Any], replaced: dict[str, Any], using: str
) -> int:
    def write() -> int:
        with vendors.lock_errors_as_busy(using):
            return writes.update_row(
                type(row), changes, where={"id": row.pk, **replaced}, using=using
            )

    return writes.retry_while_unavailable(write, using)
