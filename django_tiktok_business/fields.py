"""Column and index types by the paths that migrations name; they live in `db` and `encryption`."""

from __future__ import annotations

from .db.schema import (
    CaseSensitiveCharField,
    NewestFirstIndex,
    UpdateOnlyBigIntegerField,
    UpdateOnlyCharField,
    UpdateOnlyDateTimeField,
)
from .encryption.fields import Ciphertext, EncryptedTextField
from .encryption.model import EncryptedModel

__all__ = [
    "CaseSensitiveCharField",
    "Ciphertext",
    "EncryptedModel",
    "EncryptedTextField",
    "NewestFirstIndex",
    "SealedModel",
    "UpdateOnlyBigIntegerField",
    "UpdateOnlyCharField",
    "UpdateOnlyDateTimeField",
]

SealedModel = EncryptedModel  # its name before 0.1; kept until 1.0
