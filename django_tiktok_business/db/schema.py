"""Column and index types that behave alike on every database."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement

if TYPE_CHECKING:
    _BigIntegerField = models.BigIntegerField[Any, Any]
    _CharField = models.CharField[Any, Any]
    _DateTimeField = models.DateTimeField[Any, Any]
    _Field = models.Field[Any, Any]
else:  # not subscriptable at run time
    _BigIntegerField = models.BigIntegerField
    _CharField = models.CharField
    _DateTimeField = models.DateTimeField
    _Field = models.Field


class NewestFirstIndex(models.Index):
    """An index that is descending by its first column, with NULL last on every database.

    SQLite and MariaDB put NULL last anyway. Django only writes NULLS LAST for expressions, which
    they do not accept in an index.
    """

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Statement:
        index = copy(self)
        if schema_editor.connection.vendor == "postgresql":
            (name, order), *others = self.fields_orders
            index.fields_orders = [(name, f"{order} NULLS LAST"), *others]
        return super(NewestFirstIndex, index).create_sql(model, schema_editor, using, **kwargs)

    def deconstruct(self) -> Any:
        _, args, kwargs = super().deconstruct()
        return "django_tiktok_business.fields.NewestFirstIndex", args, kwargs


class CaseSensitiveCharField(_CharField):
    """Text that is compared byte for byte on every database.

    The default collations of MySQL and MariaDB ignore case and accents.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django_tiktok_business.fields.CaseSensitiveCharField", args, kwargs


class UpdateOnlyMixin(_Field):
    """A column that ``save()`` of an existing row leaves alone; only ``update()`` changes it.

    For bookkeeping between workers: an old instance must not write an old claim back. If encrypted
    values of the instance were assigned, ``save()`` writes ``once_assigned``. Migrations see a
    plain field.
    """

    def __init__(self, *args: Any, once_assigned: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._once_assigned = once_assigned

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        if add:
            return super().pre_save(model_instance, add)
        kept, changed = models.F(self.attname), self._once_assigned
        return kept if changed is None or not model_instance.has_assigned_values() else changed

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, f"django.db.models.{type(self).__mro__[2].__name__}", args, kwargs


def is_written_once_assigned(field: models.Field[Any, Any]) -> bool:
    """Whether ``save()`` writes the column together with assigned encrypted values."""
    return isinstance(field, UpdateOnlyMixin) and field._once_assigned is not None


class UpdateOnlyCharField(UpdateOnlyMixin, _CharField): ...


class UpdateOnlyBigIntegerField(UpdateOnlyMixin, _BigIntegerField): ...


class UpdateOnlyDateTimeField(UpdateOnlyMixin, _DateTimeField): ...
