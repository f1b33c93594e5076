"""The pages: connect, callback, disconnect, and the accounts a user may see.

To change who may connect, which redirect URL is used, which accounts are shown or where a visitor
ends, override the ``get_*`` and ``has_*`` hooks in subclasses and route these under the same names,
in a URLconf with ``app_name = "tiktok_business"``. The hooks of `ConnectPermissionMixin` serve four
views, and ``get_queryset`` two: put an override of them into a mixin of your own.

In ``next`` the path may hold ``__pk__``, which becomes the primary key of the account.
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
