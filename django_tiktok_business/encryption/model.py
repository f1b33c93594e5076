"""The base of models with encrypted columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from copy import deepcopy
from functools import partial
from typing import Any, Self

from django.core.exceptions import FieldError
from django.db import DEFAULT_DB_ALIAS, connections, models, transaction
from django.db.models import QuerySet
from django.db.models.base import ModelBase

from django_tiktok_business.db.schema import is_written_once_assigned
from django_tiktok_business.exceptions import DecryptionError

from .fields import Ciphertext, EncryptedTextField, ciphertext_reads


class EncryptedModel(models.Model):
    """Base of models with encrypted fields: whatever moves a whole instance moves ciphertext.

    So a reload, a validation, a copy or a pickle needs no key, and one value that cannot be
    decrypted does not stop it.
    """

    class Meta:
        abstract = True

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        for field in self.encrypted_fields():
            if field.attname in state:
                state[field.attname] = field.stored_value(self)
        return state

    def __copy__(self) -> Self:
        # Unlike a pickle, a copy stays in the process: assigned plaintext stays plaintext, also
        # because the copy may become another row.
        clone = type(self).__new__(type(self))
        clone.__dict__.update(super().__getstate__())
        return clone

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        clone = memo[id(self)] = self.__copy__()
        clone.__dict__.update(deepcopy(clone.__dict__, memo))
        return clone

    def save_base(
        self,
        raw: bool = False,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        if update_fields is not None and self._assigned_names().intersection(update_fields):
            # A save of these columns alone is one of another value too.
            bookkeeping = (
                f.name for f in self._meta.concrete_fields if is_written_once_assigned(f)
            )
            update_fields = frozenset((*update_fields, *bookkeeping))
        super().save_base(
            raw=raw,
            force_insert=force_insert,
            force_update=force_update,
            using=using,
            update_fields=update_fields,
        )
        saved = {
            field.attname: held
            for field in self.encrypted_fields()
            if (update_fields is None or field.name in update_fields)
            and isinstance(held := self.__dict__.get(field.attname), Ciphertext)
            and held.origin != "row"
        }
        connection = connections[self._state.db or DEFAULT_DB_ALIAS]
        # Not before the commit: after a rollback, the next save() has to write the values again.
        # Django notices no commit while autocommit is off.
        if saved and (connection.in_atomic_block or connection.get_autocommit()):
            transaction.on_commit(partial(self._mark_stored, saved), using=connection.alias)

    def encrypt(self, name: str, plaintext: str) -> Ciphertext:
        """Encrypt a token for the column ``name`` of this row, for a conditional ``update()``."""
        field = self._meta.get_field(name)
        if not isinstance(field, EncryptedTextField):
            raise FieldError(f"{name} is not encrypted.")
        return field.encrypt(plaintext, self)

    seal = encrypt  # its name before 0.1; kept until 1.0

    def stored(self) -> dict[str, Ciphertext]:
        """The non-empty encrypted values by name; for a loaded row this needs no key."""
        values = {field.name: field.stored_value(self) for field in self.encrypted_fields()}
        return {name: value for name, value in values.items() if value is not None and value.text}

    def has_assigned_values(self) -> bool:
        """Whether an encrypted value was assigned and is not yet the row's."""
        return bool(self._assigned_names())

    def _assigned_names(self) -> set[str]:
        held = {field.name: self.__dict__.get(field.attname) for field in self.encrypted_fields()}
        return {
            name
            for name, value in held.items()
            if getattr(value, "origin", value) not in ("row", None)
        }

    def unreadable(self) -> list[DecryptionError]:
        """Why encrypted values cannot be read; [] if the configured keys open all of them."""
        errors = []
        for name in self.stored():
            try:
                getattr(self, name)
            except DecryptionError as error:
                errors.append(error)
        return errors

    @classmethod
    def encrypted_fields(cls) -> list[EncryptedTextField]:
        return [f for f in cls._meta.concrete_fields if isinstance(f, EncryptedTextField)]

    def _mark_stored(self, saved: dict[str, Ciphertext]) -> None:
        """Let the next ``save()`` skip these columns, which another worker may change meanwhile."""
        for name, ciphertext in saved.items():
            if self.__dict__.get(name) is ciphertext:
                self.__dict__[name] = Ciphertext(ciphertext.text, "row")

    def set_stored(self, **values: Any) -> None:
        """Set attributes to what an ``update()`` has just written into the row."""
        for name, value in values.items():
            is_encrypted = isinstance(value, Ciphertext)
            setattr(self, name, Ciphertext(value.text, "row") if is_encrypted else value)

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: QuerySet[Any] | None = None,
    ) -> None:
        with ciphertext_reads():
            super().refresh_from_db(using=using, fields=fields, from_queryset=from_queryset)

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        with ciphertext_reads():
            super().clean_fields(exclude=exclude)
