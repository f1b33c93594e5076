"""Encrypt short texts under keys derived from configured secrets. Pure: no Django, no settings.

Stored text is ``ttb1:<key id>:<Fernet token>``: the version of this format, which secret it was
encrypted with (so that rotation and diagnosis need no trial and error), and Fernet's own text.

Each (secret, context) pair has a key of its own. The context says what the text belongs to, so a
ciphertext that somebody copies elsewhere in the database does not decrypt there.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from .exceptions import ConfigurationError, DecryptionError
from .masking import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.fernet import Fernet

__all__ = ["PREFIX", "decrypt", "encrypt", "key_id", "key_id_of"]

PREFIX = "ttb1:"

_FORMAT = re.compile(rf"{PREFIX}([0-9a-f]{{8}}):(.+)")


def encrypt(plaintext: str, *, secrets: Sequence[str], context: bytes) -> str:
    """Encrypt under the first of ``secrets``. Raises `ConfigurationError` when there is none."""
    if not secrets:
        raise ConfigurationError("There is no encryption key: set ENCRYPTION_KEYS or SECRET_KEY.")
    token = _fernet(secrets[0], context).encrypt(plaintext.encode())
    return f"{PREFIX}{key_id(secrets[0])}:{token.decode()}"


def decrypt(text: str, *, secrets: Sequence[str], context: bytes) -> Secret:
    """Decrypt what `encrypt` returned for the same context.

    Raises `DecryptionError`, which says why and holds neither the text nor a secret.
    """
    from cryptography.fernet import InvalidToken  # costly to import; see _fernet

    wanted, token = _parts(text)
    candidates = [secret for secret in secrets if key_id(secret) == wanted]
    for secret in candidates:
        try:
            return Secret(_fernet(secret, context).decrypt(token.encode()).decode())
        except InvalidToken:
            continue
    if candidates:
        raise DecryptionError("the text is damaged, or was copied from another row or column")
    known = ", ".join(key_id(secret) for secret in secrets) or "none"
    raise DecryptionError(
        f"it is encrypted under key {wanted}, which is not configured (configured: {known})"
    )


def key_id_of(text: str) -> str:
    """The id of the secret that ``text`` was encrypted with, or `DecryptionError`."""
    return _parts(text)[0]


def _parts(text: str) -> tuple[str, str]:
    """The key id and the Fernet token; what is not exactly a key id is never shown as one."""
    match = _FORMAT.fullmatch(text)
    if match is None:
        raise DecryptionError("the stored text is not in the format of an encrypted value")
    return match[1], match[2]


def key_id(secret: str) -> str:
    """Eight hexadecimal digits that name ``secret`` and tell nothing about it."""
    return _derive(secret, b"django_tiktok_business key id", length=4).hex()


def _fernet(secret: str, context: bytes) -> Fernet:
    # cryptography takes tens of milliseconds to import, and most processes (migrate, a page that
    # shows no account) never decrypt: imported where it is first needed.
    from cryptography.fernet import Fernet

    return Fernet(base64.urlsafe_b64encode(_derive(secret, context, length=32)))


def _derive(secret: str, info: bytes, *, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869).

    No salt: it would have to be stored beside every value, and the secrets are random keys, not
    passwords, for which section 3.1 of the RFC allows to leave it out. ``info`` separates the keys.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret.encode())
