"""The Python API: connect TikTok Business accounts, use, refresh and disconnect them.

What TikTok has issued is committed independently of the caller's transaction, so that a
rollback does not lose a token pair. Errors come from `django_tiktok_business.exceptions`; a wrong
setting raises `ConfigurationError`.
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
