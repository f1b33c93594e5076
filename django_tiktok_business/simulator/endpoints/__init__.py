"""The endpoints under `/open_api/v1.3`, one module for each group."""

from __future__ import annotations

from .base import API_PREFIX
from .routes import Api

__all__ = ["API_PREFIX", "Api"]
