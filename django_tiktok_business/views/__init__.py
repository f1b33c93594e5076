"""The pages: connect, callback, disconnect, and the accounts that a user may see.

Override the ``get_*`` and ``has_*`` hooks in subclasses to change who may connect, the redirect
URL, which accounts are shown or where users end up. Route the subclasses under the same names in a
URLconf with ``app_name = "tiktok_business"``. Four views use the hooks of `ConnectPermissionMixin`
and two use ``get_queryset``: override these in a mixin of your own.

The path in ``next`` may contain ``__pk__``, which is replaced with the account's primary key.
"""

from __future__ import annotations

from .accounts import AccountListView, AccountView
from .base import ConnectPermissionMixin
from .callback import CallbackView
from .connect import ConnectView
from .disconnect import DisconnectView

__all__ = [
    "AccountListView",
    "AccountView",
    "CallbackView",
    "ConnectPermissionMixin",
    "ConnectView",
    "DisconnectView",
]
