"""What a site does with its TikTok Business accounts: connect, use, renew, disconnect.

Everything here commits what TikTok has issued on its own: a transaction of the caller that is
rolled back afterwards does not take a token pair with it. Errors are those of
`django_tiktok_business.exceptions`; a wrong setting raises `ConfigurationError`.
"""

from __future__ import annotations

from django_tiktok_business.tokens.report import RefreshReport, RefreshResult

from .access import get_access_token, refresh_account
from .accounts import connect_account, disconnect_account, refresh_due_accounts, sync_profile
from .client import AccountClient, account_client

__all__ = [
    "AccountClient",
    "RefreshReport",
    "RefreshResult",
    "account_client",
    "connect_account",
    "disconnect_account",
    "get_access_token",
    "refresh_account",
    "refresh_due_accounts",
    "sync_profile",
]
