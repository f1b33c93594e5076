"""Developer apps, and the redirect URL rules of TikTok's portal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_REDIRECT_URIS_PER_APP = 10


@dataclass(frozen=True)
class App:
    """A developer app as registered in TikTok's portal."""

    app_id: str
    secret: str = field(repr=False)
    redirect_uris: tuple[str, ...]
    scopes: tuple[str, ...]


def check_redirect_uris(redirect_uris: Sequence[str], *, strict: bool = False) -> None:
    """Raise `ValueError` if TikTok's portal would not register these redirect URLs.

    The rules are those of the page "Accounts API - Authorization" (doc id 1738083939371009,
    2026-11-22). Unless `strict`, 127.0.0.1 and localhost may use plain http and a port: local
    development needs both.
    """
    if not 1 <= len(redirect_uris) <= _REDIRECT_URIS_PER_APP:
        raise ValueError(f"an app needs 1 to {_REDIRECT_URIS_PER_APP} redirect URIs")
    for redirect_uri in redirect_uris:
        _check_redirect_uri(redirect_uri, strict=strict)


def _check_redirect_uri(redirect_uri: str, *, strict: bool) -> None:
    parts = urlsplit(redirect_uri)
    local = not strict and parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    problems = {
        "be 10 to 512 characters long": not 10 <= len(redirect_uri) <= 512,
        "be an absolute https URL": not parts.hostname or not (local or parts.scheme == "https"),
        "have no port": not local and ":" in parts.netloc.rpartition("@")[2],
        "have no query parameters": "?" in redirect_uri,
        "have no fragment": "#" in redirect_uri,
        "be plain ASCII": not redirect_uri.isascii(),
        "end with a slash": not redirect_uri.endswith("/"),
    }
    wrong = [rule for rule, broken in problems.items() if broken]
    if wrong:
        raise ValueError(f"redirect URI {redirect_uri!r} must {', '.join(wrong)}")
