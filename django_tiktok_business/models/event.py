"""`ConnectionEvent`: what happened to a connection."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class ConnectionEvent(models.Model):
    """Something that happened to a connection. Holds no secret; TikTok's texts are untrusted.

    Repetitions in a row (a daily refresh, a failure with the same code) are counted in one event.
    """

    class Kind(models.TextChoices):
        CONNECTED = "connected", _("connected")
        RECONNECTED = "reconnected", _("reconnected")
        REFRESHED = "refreshed", _("refreshed")
        """The access token was renewed."""
        FAILED = "failed", _("refresh failed")
        """For a temporary reason: it is tried again."""
        REJECTED = "rejected", _("rejected by TikTok")
        """The account has to be connected again."""
        SCOPES_CHANGED = "scopes_changed", _("permissions changed")
        DISCONNECTED = "disconnected", _("disconnected")

    account = models.ForeignKey(
        "BusinessAccount",
        verbose_name=_("account"),
        on_delete=models.CASCADE,
        related_name="events",
    )
    kind = models.CharField(_("what happened"), max_length=32, choices=Kind.choices)
    at = models.DateTimeField(_("first at"), default=timezone.now)
    last_at = models.DateTimeField(_("last at"), default=timezone.now)
    count = models.PositiveIntegerField(_("times"), default=1)
    code = models.BigIntegerField(_("TikTok's code"), null=True, blank=True)
    message = models.TextField(_("message"), blank=True, default="")
    request_id = models.TextField(_("TikTok's request id"), blank=True, default="")
    scopes_added = models.JSONField(_("permissions added"), default=list, blank=True)
    scopes_removed = models.JSONField(_("permissions removed"), default=list, blank=True)

    objects: ClassVar[models.Manager[ConnectionEvent]] = models.Manager()

    class Meta:
        verbose_name = _("connection event")
        verbose_name_plural = _("connection events")
        indexes: ClassVar = [
            models.Index(fields=["account", "-last_at"], name="tiktok_business_life_line"),
            models.Index(fields=["-last_at", "-id"], name="tiktok_business_events"),
        ]

    def __str__(self) -> str:
        return self.get_kind_display()

    def changed_scopes(self) -> list[str]:
        """Added scopes with "+" and removed ones with "−"; ignores JSON that is not a list."""
        columns = (("+", self.scopes_added), ("\N{MINUS SIGN}", self.scopes_removed))
        return [
            f"{sign}{scope}"
            for sign, scopes in columns
            if isinstance(scopes, list)
            for scope in scopes
        ]
