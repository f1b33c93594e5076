"""The cipher alone: format, keys and what it refuses."""

from __future__ import annotations

import base64
import time
import traceback

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from django_tiktok_business.encryption import cipher
from django_tiktok_business.exceptions import ConfigurationError, DecryptionError

OLD = "crypto-tests-Vn4sKq8ZtLw2XhBd7RyMgPc5FjUe3Ta9"
NEW = "crypto-tests-Hb6vQz1NkTx9WcRf4JyLpGs8DmEu2Ya7"
ALIEN = "crypto-tests-Qw3eRt5yUi7oPa9sDf1gHj2kLz4xCv6B"
TOKEN = "act.SIMa1b2c3d4e5f6g7h8!4711.e1"
CONTEXT = b'["purpose", "app", "account"]'


def encrypted(plaintext: str = TOKEN, secret: str = OLD, context: bytes = CONTEXT) -> str:
    return cipher.encrypt(plaintext, secrets=[secret], context=context)


def decrypted(text: str, *secrets: str, context: bytes = CONTEXT) -> str:
    return cipher.decrypt(text, secrets=secrets or [OLD], context=context)


def refusal(text: str, *secrets: str, context: bytes = CONTEXT) -> str:
    """The message of the DecryptionError, which nothing secret is in."""
    with pytest.raises(DecryptionError) as caught:
        decrypted(text, *secrets, context=context)
    trace = "".join(traceback.format_exception(caught.value))
    for hidden in (TOKEN, *secrets):
        assert hidden not in trace
    assert text == "" or text not in trace
    return str(caught.value)


@pytest.mark.parametrize(
    "plaintext", ["", "a", TOKEN, "ttb1:deadbeef:gAAAA", "ünï \N{PILE OF POO}\x00\n", "x" * 20_000]
)
def test_text_comes_back_as_it_was(plaintext: str) -> None:
    assert decrypted(encrypted(plaintext)) == plaintext


def test_result_is_masked() -> None:
    assert repr(decrypted(encrypted())) == "<secret>"


def test_stored_text_names_its_format_and_its_key() -> None:
    prefix, key_id, token = encrypted().split(":")
    assert f"{prefix}:" == cipher.PREFIX == "ttb1:"
    assert key_id == cipher.key_id(OLD) == cipher.key_id_of(encrypted())
    assert len(key_id) == 8
    assert TOKEN not in token
    assert TOKEN not in base64.urlsafe_b64decode(token).decode("latin-1")


def test_same_text_is_encrypted_differently_each_time() -> None:
    assert encrypted() != encrypted()


def test_format_is_fernet_under_an_hkdf_key() -> None:
    # Stored texts must stay readable, so this repeats the derivation independently.
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=CONTEXT).derive(OLD.encode())
    fernet = Fernet(base64.urlsafe_b64encode(key))
    assert fernet.decrypt(encrypted().split(":")[2]).decode() == TOKEN
    assert cipher.key_id(OLD) == "88cdd793"


def test_text_that_an_earlier_release_stored_is_readable() -> None:
    text = (
        "ttb1:88cdd793:gAAAAABqAAAAAAECAwQFBgcICQoLDA0OD1dw8xqGuYxDkQJM0KpZ0iarpfYp7wtpglz6ScbhGo8Z"
        "XqLOC070m9vD5XX_X0wjaQCx3iUfrH90H6chHWHxjlU="
    )
    assert decrypted(text) == TOKEN


def test_key_ids_tell_secrets_apart_and_hold_none() -> None:
    ids = {cipher.key_id(secret) for secret in (OLD, NEW, ALIEN)}
    assert len(ids) == 3
    assert not any(key_id in secret for key_id in ids for secret in (OLD, NEW, ALIEN))


def test_f25_text_does_not_open_in_another_context() -> None:
    assert refusal(encrypted(), OLD, context=b"other") == (
        "the text is damaged, or was copied from another row or column"
    )


def test_f28_first_key_encrypts_and_all_decrypt() -> None:
    assert decrypted(encrypted(secret=OLD), NEW, OLD) == TOKEN
    assert cipher.key_id_of(
        cipher.encrypt(TOKEN, secrets=[NEW, OLD], context=CONTEXT)
    ) == cipher.key_id(NEW)


def test_f21_text_under_an_unknown_key_is_refused_by_name() -> None:
    assert refusal(encrypted(), NEW, ALIEN) == (
        f"it is encrypted under key {cipher.key_id(OLD)}, which is not configured "
        f"(configured: {cipher.key_id(NEW)}, {cipher.key_id(ALIEN)})"
    )


def test_decrypting_without_any_key_says_so() -> None:
    with pytest.raises(DecryptionError, match=r"\(configured: none\)"):
        cipher.decrypt(encrypted(), secrets=[], context=CONTEXT)


def test_encrypting_without_any_key_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="ENCRYPTION_KEYS"):
        cipher.encrypt(TOKEN, secrets=[], context=CONTEXT)


def test_key_with_the_id_of_another_does_not_hide_it() -> None:
    # Two secrets may share the 32 bits of their ids; here the same secret stands twice.
    assert decrypted(encrypted(), OLD, OLD) == TOKEN
    assert "damaged" in refusal(encrypted(), OLD, OLD, context=b"other")


@pytest.mark.parametrize("position", [0, 1, 12, 40, -1])
def test_f21_damaged_text_is_refused(position: int) -> None:
    head, key_id, token = encrypted().split(":")
    position %= len(token)
    flipped = "A" if token[position] != "A" else "B"
    damaged = token[:position] + flipped + token[position + 1 :]
    assert "damaged" in refusal(f"{head}:{key_id}:{damaged}")


@pytest.mark.parametrize(
    "token", ["x", "not base64!", "é\x00", "gAAAA", pytest.param(encrypted(), id="stored text")]
)
def test_f21_token_that_is_no_fernet_token_is_refused(token: str) -> None:
    assert "damaged" in refusal(f"ttb1:{cipher.key_id(OLD)}:{token}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        TOKEN,
        "gAAAAABqAAAAAA==",
        "ttb1:",
        "ttb1::",
        "ttb1:88cdd793",
        "ttb1:88cdd793:",
        "ttb1::gAAAAABqAAAAAA==",
        "ttb1:gAAAAABqAAAAAA==",
        "ttb2:88cdd793:gAAAAABqAAAAAA==",
        "TTB1:88cdd793:gAAAAABqAAAAAA==",
        " ttb1:88cdd793:gAAAAABqAAAAAA==",
        f"ttb1:{TOKEN}:x",
        f"ttb1:88cdd7930:{TOKEN}",
        "ttb1:88CDD793:gAAAAABqAAAAAA==",
        "ttb1:88cdd793:gAAAA\nBqAAAAAA==",
    ],
)
def test_f21_text_of_another_format_is_refused_and_not_shown(text: str) -> None:
    assert refusal(text) == "the stored text is not in the format of an encrypted value"
    with pytest.raises(DecryptionError):
        cipher.key_id_of(text)


def test_f21_line_break_in_a_good_text_is_refused() -> None:
    # Decoding base64 would skip it.
    text = encrypted()
    assert "not in the format" in refusal(f"{text[:40]}\n{text[40:]}")
    assert "not in the format" in refusal(f"{text}\n")


def test_f32_nothing_is_unpickled() -> None:
    payload = base64.urlsafe_b64encode(b"cos\nsystem\n(S'false'\ntR.").decode()
    assert "damaged" in refusal(f"ttb1:{cipher.key_id(OLD)}:{payload}")


def test_deriving_a_key_for_each_value_is_cheap() -> None:
    texts = [encrypted(context=b"%d" % number) for number in range(200)]
    started = time.thread_time()  # CPU time of this thread, whatever else runs on the machine
    for number, text in enumerate(texts):
        decrypted(text, ALIEN, NEW, OLD, context=b"%d" % number)
    # About 0.1 milliseconds each, so that it does not matter for a page of 100 accounts.
    assert time.thread_time() - started < 200 * 0.01
