"""`Notice`: who was notified about what."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from .metrics import _ACCOUNT

__all__ = ["Notice"]


class Notice(models.Model):
    """That people were told about an account, and what: the memory of `notices`.

    One row for each account and kind, about the last time. It names the consent and the token pair
    that it was about, so that nobody who changes an account has to know of it.
    """

    class Kind(models.TextChoices):
        REAUTHORIZATION_REQUIRED = "reauthorization_required", _("reauthorization required")
        """By mail."""
        CONSENT_ENDS_SOON = "consent_ends_soon", _("consent ends soon")
        """By mail."""
        CONSENT_ENDS_SOON_SIGNAL = "consent_ends_soon_signal", _("consent ends soon (signal)")

    account = models.ForeignKey(
        _ACCOUNT, verbose_name=_("account"), on_delete=models.CASCADE, related_name="notices"
    )
    kind = models.CharField(_("what is told"), max_length=32, choices=Kind.choices)
    consent_at = models.DateTimeField(_("consent of"))
    credentials_version = models.BigIntegerField()
    claimed_until = models.DateTimeField()
    """Nobody else tells before then; afterwards it is due again, unless it was told."""
    told_at = models.DateTimeField(_("told at"), null=True, blank=True)

    objects: ClassVar[models.Manager[Notice]] = models.Manager()

    class Meta:
        verbose_name = _("notice")
        verbose_name_plural = _("notices")
        default_permissions = ()
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["account", "kind"], name="tiktok_business_one_notice_of_a_kind"
            ),
        ]

    def __str__(self) -> str:
        return self.get_kind_display()
