"""Encrypt short texts under keys derived from configured secrets. Pure: no Django, no settings.

Stored text is ``ttb1:<key id>:<Fernet token>``: the version of this format, the secret that it was
encrypted with (so that rotation and diagnosis need no trial and error), and Fernet's own text.

Each (secret, context) pair has its own key. The context says what the text belongs to, so that a
ciphertext copied to another place in the database does not decrypt there.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from django_tiktok_business.exceptions import ConfigurationError, DecryptionError
from django_tiktok_business.masking import Secret

if TYPE_CHECKING:
    from cryptography.fernet import Fernet, InvalidToken


PREFIX = "ttb1:"
_NO_SALT = bytes(32)  # what section 2.2 of RFC 5869 puts in its place
_FORMAT = re.compile(rf"{PREFIX}([0-9a-f]{{8}}):(.+)")


def encrypt(plaintext: str, *, secrets: Sequence[str], context: bytes) -> str:
    """Encrypt under the first of ``secrets``. Raises `ConfigurationError` when there is none."""
    if not secrets:
        raise ConfigurationError("There is no encryption key: set ENCRYPTION_KEYS or SECRET_KEY.")
    fernet, _ = _fernet(secrets[0], context)
    token = fernet.encrypt(plaintext.encode())
    return f"{_head(secrets[0])}{token.decode()}"


def decrypt(text: str, *, secrets: Sequence[str], context: bytes) -> Secret:
    """Decrypt what `encrypt` returned for the same context.

    Raises `DecryptionError`, which says why and holds neither the text nor a secret.
    """
    for secret in secrets:
        head = _head(secret)
        if text.startswith(head) and "\n" not in text:  # which base64 would skip
            fernet, invalid_token = _fernet(secret, context)
            try:
                return Secret(fernet.decrypt(text[len(head) :].encode()), "utf-8")
            except invalid_token:
                continue
    # The format is only checked now: what decrypts has it, and matching a pattern takes time.
    wanted, _ = _parts(text)
    known = [key_id(secret) for secret in secrets]
    if wanted in known:
        raise DecryptionError("the text is damaged, or was copied from another row or column")
    raise DecryptionError(
        f"it is encrypted under key {wanted}, which is not configured "
        f"(configured: {', '.join(known) or 'none'})"
    )


def key_id_of(text: str) -> str:
    """The id of the secret that ``text`` was encrypted with; raises `DecryptionError`."""
    return _parts(text)[0]


def _parts(text: str) -> tuple[str, str]:
    """The key id and the Fernet token; nothing but an exact key id is ever shown as one."""
    match = _FORMAT.fullmatch(text)
    if match is None:
        raise DecryptionError("the stored text is not in the format of an encrypted value")
    return match[1], match[2]


def key_id(secret: str) -> str:
    """Eight hexadecimal digits that identify ``secret`` and reveal nothing about it."""
    return _derive(secret, b"django_tiktok_business key id").hex()[:8]


@lru_cache(maxsize=64)  # more secrets than anybody rotates through
def _head(secret: str) -> str:
    """The beginning of each text that is encrypted with ``secret``."""
    return f"{PREFIX}{key_id(secret)}:"


@lru_cache(maxsize=512)  # pays off where the same accounts are used over and over
def _fernet(secret: str, context: bytes) -> tuple[Fernet, type[InvalidToken]]:
    """The cipher for the pair, and the error that it raises."""
    # Imported when first needed: cryptography takes tens of milliseconds to import, and most
    # processes (migrate, a page that shows no account) never decrypt.
    from cryptography.fernet import Fernet, InvalidToken

    return Fernet(base64.urlsafe_b64encode(_derive(secret, context))), InvalidToken


def _derive(secret: str, info: bytes) -> bytes:
    """The first 32 bytes of HKDF-SHA256 (RFC 5869), which are one block.

    Without salt, which would have to be stored beside every value: the secrets are random keys, not
    passwords, so section 3.1 of the RFC allows that. ``info`` separates the keys.

    Uses the standard library: each account has its own keys, and cryptography's HKDF takes several
    times as long. Not hmac.digest(), which releases the GIL each time: the thread that saves the
    answers would wait for those that make the calls.
    """
    expand = _extracted(secret).copy()
    expand.update(info + b"\x01")
    return expand.digest()


@lru_cache(maxsize=64)
def _extracted(secret: str) -> hmac.HMAC:
    return hmac.new(hmac.digest(_NO_SALT, secret.encode(), "sha256"), digestmod="sha256")
