"""The HTML of the consent and error pages: one style sheet, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .accounts import SCOPES, Account
from .pictures import picture_path
from .wire import Response

STYLE_SHEET_PATH = "/_simulator/consent.css"

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - TikTok simulator</title>
<link rel="stylesheet" href="{style}">
</head>
<body>
<header><strong>TikTok simulator</strong> This is not TikTok. Everything here is made up.</header>
<main>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""

_ACCOUNT = """<label class="choice">
<input type="radio" name="account" value="{key}"{checked}>
<img src="{picture}" alt="" width="44" height="44">
<span><b>{name}</b><small>@{username} &middot; {facts}</small></span>
</label>"""

_SCOPE = """<label class="choice">
<input type="checkbox" name="granted" value="{scope}" checked>
<span><b>{meaning}</b><small>{scope}</small></span>
</label>"""

_STYLE_SHEET = """:root { color-scheme: light dark; --ink: #161823; --paper: #fff; --rim: #d0d3dc;
  --soft: #5a5d6b; --wash: #f4f5f8; --strong: #c81e4a; --alert: #fff1d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #f1f1f4; --paper: #16171c; --rim: #3c3f4a;
  --soft: #a9adba; --wash: #212329; --strong: #d9305c; --alert: #4a3a12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
header { padding: .6rem 1rem; background: #161823; color: #fff; text-align: center;
  font-size: .9rem; }
main { max-width: 34rem; margin: 1.25rem auto; padding: 1.25rem; background: var(--paper);
  border: 1px solid var(--rim); border-radius: 12px; }
h1 { margin: 0 0 .5rem; font-size: 1.35rem; line-height: 1.25; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
fieldset { margin: 1.1rem 0 0; padding: 0; border: 0; }
legend { padding: 0; font-weight: 600; }
.choice { display: flex; gap: .75rem; align-items: center; margin-top: .45rem;
  padding: .5rem .7rem; border: 1px solid var(--rim); border-radius: 10px; cursor: pointer; }
.choice:focus-within, .choice:hover { border-color: var(--strong); }
.choice input { flex: none; width: 1.15rem; height: 1.15rem; accent-color: var(--strong); }
.choice img { border-radius: 50%; }
.choice span { min-width: 0; overflow-wrap: anywhere; }
.choice b { display: block; font-weight: 500; }
small { color: var(--soft); }
.notice { padding: .6rem .8rem; border-radius: 8px; background: var(--alert); }
.decision { position: sticky; bottom: 0; display: flex; gap: .75rem; margin: 1.25rem -1.25rem 0;
  padding: .75rem 1.25rem; background: var(--paper); border-top: 1px solid var(--rim);
  border-radius: 0 0 12px 12px; }
button { flex: 1; padding: .7rem; border: 1px solid var(--rim); border-radius: 8px;
  background: transparent; color: inherit; font: inherit; font-weight: 600; cursor: pointer; }
button.approve { border-color: var(--strong); background: var(--strong); color: #fff; }
@media (max-width: 36rem) { main { margin: 0; border: 0; border-radius: 0; } }
"""


def style_sheet() -> Response:
    """Return the style sheet of all pages."""
    headers = {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "no-cache"}
    return Response(200, headers, _STYLE_SHEET.encode())


def _framed(title: str, content: str) -> str:
    return _FRAME.format(title=title, style=STYLE_SHEET_PATH, content=content)


def error_page(text: str) -> str:
    """Return the error page that TikTok shows instead of redirecting."""
    return _framed(
        "Something is wrong with this authorization request",
        f'<p class="notice">{escape(text)}</p>\n'
        "<p>TikTok shows an error page like this one and does not send the browser back. "
        "Check the app id, the redirect URL and the scopes.</p>",
    )


def consent_page(
    *,
    app_id: str,
    scopes: Sequence[str],
    accounts: Sequence[Account],
    chosen: Account | None,
    hidden: Mapping[str, str],
    action: str,
    notice: str,
) -> str:
    """Return the page where the account holder chooses an account and permissions."""
    chosen = chosen or accounts[0]
    parts = [f'<p class="notice">{escape(notice)}</p>'] if notice else []
    parts.append(f"<p>App <b>{escape(app_id)}</b> asks for access to a TikTok account.</p>")
    parts.append(f'<form method="post" action="{action}">')
    parts += [
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in hidden.items()
    ]
    parts.append("<fieldset><legend>Account</legend>")
    parts += [_account(account, account is chosen) for account in accounts]
    parts.append("</fieldset>\n<fieldset><legend>Permissions</legend>")
    parts += [
        _SCOPE.format(scope=escape(scope), meaning=escape(SCOPES.get(scope, scope)))
        for scope in scopes
    ]
    parts.append(
        '</fieldset>\n<div class="decision">\n'
        '<button name="decision" value="deny">Deny</button>\n'
        '<button class="approve" name="decision" value="approve">Approve</button>\n'
        "</div>\n</form>"
    )
    return _framed("Connect a TikTok account", "\n".join(parts))


def _account(account: Account, checked: bool) -> str:
    facts = [f"{account.followers_count:,} followers"]
    facts += [] if account.is_business_account else ["personal account"]
    facts += ["verified"] if account.is_verified else []
    return _ACCOUNT.format(
        key=escape(account.key),
        picture=picture_path(account),
        checked=" checked" if checked else "",
        name=escape(account.display_name),
        username=escape(account.username),
        facts=" &middot; ".join(facts),
    )
