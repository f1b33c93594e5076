"""A model with a nullable encrypted field, which no table of the package has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection, models
from django.test.utils import isolate_apps

from django_tiktok_business.fields import (
    EncryptedModel,
    EncryptedTextField,
)


@pytest.fixture
def note(transactional_db: None) -> Iterator[type[models.Model]]:
    """A model with a nullable encrypted field that is not bound to its row."""
    with isolate_apps("django_tiktok_business"):

        class Note(EncryptedModel):
            text = EncryptedTextField(purpose="tests.Note.text", null=True)
            title = models.TextField(default="")

            class Meta:
                app_label = "tiktok_business"

            def __str__(self) -> str:
                return self.title

    with connection.schema_editor() as editor:
        editor.create_model(Note)
    yield Note
    with connection.schema_editor() as editor:
        editor.delete_model(Note)
