"""The models. Connecting creates a `BusinessAccount`; `services` change it."""

from __future__ import annotations

from .account import BusinessAccount, BusinessAccountQuerySet
from .event import ConnectionEvent
from .health import Health
from .metrics import DailyMetrics
from .notice import Notice

__all__ = [
    "BusinessAccount",
    "BusinessAccountQuerySet",
    "ConnectionEvent",
    "DailyMetrics",
    "Health",
    "Notice",
]
