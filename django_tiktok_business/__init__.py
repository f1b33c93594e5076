"""Connect TikTok Business accounts to a Django project and keep their tokens fresh."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0.dev0"
