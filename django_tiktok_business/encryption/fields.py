"""A text column that is encrypted at rest and decrypted when its attribute is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from django.core.exceptions import FieldError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.expressions import Col
from django.db.models.query_utils import DeferredAttribute

from django_tiktok_business.exceptions import DecryptionError
from django_tiktok_business.masking import Secret

from . import cipher
from .keys import encryption_secrets

if TYPE_CHECKING:
    _TextField = models.TextField[Any, Any]
else:  # not subscriptable at run time
    _TextField = models.TextField


class Ciphertext:
    """Encrypted text as stored in the database: opaque, and never mistaken for the plaintext.

    Not a ``str``, so that nothing can send or show it by accident. ``text`` is the stored text,
    "" when the column is empty. ``origin`` says where it comes from: "row" (the row holds it, or
    held it when the instance was loaded), "encrypted" (by us, and perhaps not saved yet) or
    "serialized" (read by a deserializer, as ``loaddata`` does).

    A `Ciphertext` from ``values()`` changes nothing when it is assigned to an instance;
    ``update()`` writes it.
    """

    __slots__ = ("origin", "text")

    def __init__(self, text: str, origin: Literal["row", "encrypted", "serialized"]) -> None:
        self.text = text
        self.origin = origin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ciphertext) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return "<encrypted>"

    @property
    def key_id(self) -> str:
        """The id of its key; "" if the text is empty or not in our format."""
        try:
            return cipher.key_id_of(self.text)
        except DecryptionError:
            return ""


class _Blank(str):
    """An empty text read from the database, to tell it from an assigned ``""``."""

    __slots__ = ()


_returns_ciphertext: ContextVar[bool] = ContextVar(
    "tiktok_business_returns_ciphertext", default=False
)


@contextmanager
def ciphertext_reads() -> Iterator[None]:
    """Inside the block, encrypted attributes return their `Ciphertext` instead of decrypting it."""
    token = _returns_ciphertext.set(True)
    try:
        yield
    finally:
        _returns_ciphertext.reset(token)


class EncryptedAttribute(DeferredAttribute):
    """The attribute of an instance: holds `Ciphertext` or plaintext, and decrypts on each read."""

    field: EncryptedTextField

    def __get__(self, instance: Model | None, cls: type[Model] | None = None) -> Any:
        if instance is None:
            return self
        held = instance.__dict__.get(self.field.attname)
        if held is None:  # or deferred
            held = super().__get__(instance, cls)
        if (
            isinstance(held, Ciphertext)
            and held.origin != "serialized"
            and not _returns_ciphertext.get()
        ):
            return self.field.decrypt(held, instance)
        return held

    def __set__(self, instance: Model, value: Any) -> None:
        if value is not None and not isinstance(value, str | Ciphertext):
            raise FieldError(
                f"{self.field.name} is encrypted and takes a string or None, not "
                f"{type(value).__name__}."
            )
        if isinstance(value, _Blank):
            value = Ciphertext("", "row")
        instance.__dict__[self.field.attname] = Secret(value) if isinstance(value, str) else value

    def __delete__(self, instance: Model) -> None:
        # As for any other field, the next access loads the value again.
        del instance.__dict__[self.field.attname]


class _Unchanged(models.F):
    """``SET column = column``: what a full ``save()`` writes for a value that was not assigned.

    The instance may be older than the row. Writing back the value that it was loaded with could
    restore a token that has been replaced since, so the database keeps its own.
    """


@lru_cache(maxsize=512, typed=True)  # as many as `cipher` keeps keys for; typed: 1 is not True
def _context(*names: Any) -> bytes:
    # JSON, so that no two lists of names give the same bytes. Converted to text, because an app id
    # given as a number comes back from the database as text.
    return json.dumps(list(map(str, names))).encode()


class EncryptedTextField(_TextField):
    """Text that is encrypted under a key bound to its column and its row.

    ``purpose`` names the column in the key derivation. It is a literal, kept in the migrations, so
    that renaming a model or field does not change the key. ``bound_to`` names the attributes that
    identify the row; they must be set before the value is saved and must not change afterwards.

    Reading the attribute returns a ``str`` or raises `DecryptionError`. ``""`` and None are stored
    unencrypted. Instances write values (``create``, ``save``, ``bulk_create``), and so does
    ``update()`` with a `Ciphertext` from `encrypt`. Plain strings in ``update()`` and
    ``bulk_update()``, expressions, and every lookup but ``isnull`` raise `FieldError`.

    ``save()`` writes the column only if the attribute was assigned (or is nullable and was loaded
    as None). Dumps hold ciphertext and need no key, except in XML, for which Django reads the
    attribute.
    """

    descriptor_class = EncryptedAttribute

    def __init__(
        self, *args: Any, purpose: str, bound_to: Sequence[str] = (), **kwargs: Any
    ) -> None:
        kwargs.setdefault("editable", False)
        super().__init__(*args, **kwargs)
        self.purpose = purpose
        self.bound_to = tuple(bound_to)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _, args, kwargs = super().deconstruct()
        kwargs.pop("editable", None)
        path = "django_tiktok_business.fields.EncryptedTextField"  # as migrations name it
        return name, path, args, {**kwargs, "purpose": self.purpose, "bound_to": self.bound_to}

    # Between plaintext and ciphertext; both directions need the row.

    def encrypt(self, plaintext: str, instance: Model) -> Ciphertext:
        """Encrypt for the row of ``instance``, for use in a conditional ``update()``."""
        if not plaintext:
            return Ciphertext("", "encrypted")
        text = cipher.encrypt(
            plaintext, secrets=encryption_secrets(), context=self._context(instance)
        )
        return Ciphertext(text, "encrypted")

    def decrypt(self, value: Ciphertext, instance: Model) -> Secret:
        """Decrypt a value of the row; `DecryptionError` names model, primary key and row."""
        if not value.text:
            return Secret()
        try:
            return cipher.decrypt(
                value.text, secrets=encryption_secrets(), context=self._context(instance)
            )
        except (DecryptionError, FieldError) as error:
            identity = ", ".join(f"{name}={getattr(instance, name)}" for name in self.bound_to)
            raise DecryptionError(
                f"{self.name} of {instance._meta.object_name} {instance.pk} ({identity}) cannot "
                f"be decrypted: {str(error).rstrip('.')}."
            ) from None

    seal, unseal = encrypt, decrypt  # their names before 0.1; kept until 1.0

    def _context(self, instance: Model) -> bytes:
        identity = [getattr(instance, name) for name in self.bound_to]
        if not all(identity):
            names = " and ".join(self.bound_to)
            raise FieldError(f"Set {names} before {self.name}, which is encrypted for its row.")
        return _context(self.purpose, *identity)

    # Into the database

    def stored_value(self, instance: Model) -> Ciphertext | None:
        """The instance's value in its stored form: encrypted where it was assigned in plain."""
        with ciphertext_reads():
            held: Ciphertext | str | None = getattr(instance, self.attname)
        return self.encrypt(held, instance) if isinstance(held, str) else held

    def pre_save(self, model_instance: Model, add: bool) -> Any:
        held = model_instance.__dict__.get(self.attname)
        is_in_row = isinstance(held, Ciphertext) and held.origin == "row"
        if is_in_row and not add and not model_instance._state.adding:
            return _Unchanged(self.attname)
        stored = self.stored_value(model_instance)
        if add and stored is not None:
            # True once the INSERT has succeeded; until then `adding` keeps it from counting.
            stored = Ciphertext(stored.text, "row")
        model_instance.__dict__[self.attname] = stored
        return stored

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        if isinstance(value, Col) and value.target == self:
            return value
        if hasattr(value, "resolve_expression") or hasattr(value, "as_sql"):
            raise FieldError(f"{self.name} is encrypted and takes no expression.")
        return super().get_db_prep_save(value, connection)

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, Ciphertext):
            return value.text
        if value is None or value == "":
            return value
        raise FieldError(
            f"{self.name} is encrypted for its row: save an instance, or update() with what its "
            "encrypt() returns, not with a plain value. A fixture holds what dumpdata has written."
        )

    # Out of the database

    def from_db_value(
        self, value: str | bytes | None, expression: Any, connection: BaseDatabaseWrapper
    ) -> Ciphertext | str | None:
        if value is None:
            return None
        if isinstance(value, bytes):  # SQLite takes any value in any column
            value = value.decode("utf-8", "replace")
        return Ciphertext(value, "row") if value else _Blank()

    # Lookups: a text is encrypted differently each time, so no lookup could find it.

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name != "isnull":
            raise self._cannot_be_looked_up()
        return super().get_lookup(lookup_name)

    def get_transform(self, lookup_name: str) -> Any:
        raise self._cannot_be_looked_up()

    def _cannot_be_looked_up(self) -> FieldError:
        return FieldError(f"{self.name} is encrypted: only isnull can look it up.")

    # Forms and serializers get ciphertext or nothing.

    def formfield(self, *args: Any, **kwargs: Any) -> None:
        return None

    def clean(self, value: Any, model_instance: Model | None) -> Any:
        # Not through to_python(), which treats text in our format as ciphertext.
        self.validate(value, model_instance)
        if isinstance(value, str):
            self.run_validators(value)
        return value

    def to_python(self, value: Any) -> Any:
        """Convert what a serializer wrote; the prefix identifies ciphertext."""
        if isinstance(value, str) and value.startswith(cipher.PREFIX):
            return Ciphertext(value, "serialized")
        return value

    def value_from_object(self, obj: Model) -> Any:
        return self.stored_value(obj)

    def value_to_string(self, obj: Model) -> str:
        stored = self.stored_value(obj)
        return "" if stored is None else stored.text
