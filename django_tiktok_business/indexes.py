"""An index for lists that begin with the newest, and end with what has no date."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.backends.ddl_references import Statement

__all__ = ["NewestFirstIndex"]


class NewestFirstIndex(models.Index):
    """Descending by its first column, in which NULL comes last, as SQLite has it anyway.

    Django writes NULLS LAST into an index of expressions only, which SQLite and MariaDB refuse.
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
