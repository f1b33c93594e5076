"""Profile pictures: links that expire, and the images behind those the simulator serves itself."""

from __future__ import annotations

import html
from collections.abc import Mapping
from urllib.parse import quote, unquote

from .accounts import Account, fingerprint
from .wire import Request, Response, plain_text

PICTURE_PREFIX = "/_simulator/avatar/"

_LIFETIME_SECONDS = 172_800  # inferred: links of TikTok's CDN have been seen to expire within days


def picture_path(account: Account) -> str:
    """Return the path under which the simulator serves this account's picture."""
    return f"{PICTURE_PREFIX}{quote(account.key, safe='')}.svg"


def picture_url(account: Account, now: float, base_url: str | None) -> str:
    """Return a profile picture URL that expires, like TikTok's (`x-expires`, in Unix seconds).

    With a `base_url`, the simulator serves the picture itself.
    """
    if account.profile_image is not None:
        return account.profile_image
    # Rounded to the hour: two calls within one hour return the same URL.
    expires_at = int(now) // 3_600 * 3_600 + _LIFETIME_SECONDS
    if base_url is not None:
        return f"{base_url.rstrip('/')}{picture_path(account)}?x-expires={expires_at}"
    return (
        f"https://p16-sign-va.tiktokcdn.com/tos-sim-avt-0068/{fingerprint(account.key)[:12]}"
        f"~c5_168x168.jpeg?x-expires={expires_at}&x-signature=SIMsig%3D"
    )


def picture(request: Request, accounts: Mapping[str, Account], now: float) -> Response:
    """Return the picture that the request's path names, unless its link has expired."""
    key = unquote(request.path.removeprefix(PICTURE_PREFIX).removesuffix(".svg"))
    account = accounts.get(key)
    if account is None:
        return plain_text(404, "404 page not found")
    expires_at = dict(request.pairs).get("x-expires")
    # Only the consent page links pictures without an expiry time; API responses always set one.
    if expires_at is not None and not (expires_at.isdecimal() and now < int(expires_at)):
        return plain_text(403, "The link has expired.")
    headers = {
        "Content-Type": "image/svg+xml",
        "Content-Security-Policy": "default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(200, headers, _svg(account).encode())


def _svg(account: Account) -> str:
    """Draw the account's initials on a colour derived from its key."""
    hue = int(fingerprint(account.key)[:4], 16) % 360
    words = [word for word in account.display_name.split() if word[0].isalnum()]
    initials = html.escape("".join(word[0] for word in words[:2]).upper() or "?")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="168" height="168" viewBox="0 0 168 168">'
        f'<rect width="168" height="168" fill="hsl({hue}, 55%, 42%)"/>'
        f'<circle cx="128" cy="34" r="58" fill="hsl({(hue + 40) % 360}, 65%, 58%)"/>'
        '<text x="84" y="108" font-family="system-ui, sans-serif" font-size="68" '
        f'font-weight="600" text-anchor="middle" fill="#fff">{initials}</text></svg>'
    )
