"""The table of a project that writes the refresh loop itself."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

__all__ = ["PlainAccount"]


class PlainAccount(models.Model):
    """Tokens in plain text columns, in a row as wide as the package's own."""

    open_id = models.CharField(max_length=255, unique=True)
    access_token = models.TextField()
    refresh_token = models.TextField()
    access_token_expires_at = models.DateTimeField(db_index=True)
    refresh_token_expires_at = models.DateTimeField()
    scopes = models.JSONField(default=list)
    username = models.TextField(blank=True, default="")
    display_name = models.TextField(blank=True, default="")
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[models.Manager[PlainAccount]] = models.Manager()

    def __str__(self) -> str:
        return self.open_id
