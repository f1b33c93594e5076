"""Accounts and their events in Django's admin; autodiscovery imports this package."""

from __future__ import annotations

from .accounts import BusinessAccountAdmin
from .events import ConnectionEventAdmin

__all__ = ["BusinessAccountAdmin", "ConnectionEventAdmin"]
