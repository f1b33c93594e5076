"""`Notice`: which notices about an account have been sent."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Notice(models.Model):
    """Who was last notified about an account, so that `notices` notifies only once.

    One row for each account and kind. It names the consent and the token pair that it was about, so
    that code that changes an account need not update it.
    """

    class Kind(models.TextChoices):
        REAUTHORIZATION_REQUIRED = "reauthorization_required", _("reauthorization required")
        """By mail."""
        CONSENT_ENDS_SOON = "consent_ends_soon", _("consent ends soon")
        """By mail."""
        CONSENT_ENDS_SOON_SIGNAL = "consent_ends_soon_signal", _("consent ends soon (signal)")

    account = models.ForeignKey(
        "BusinessAccount",
        verbose_name=_("account"),
        on_delete=models.CASCADE,
        related_name="notices",
    )
    kind = models.CharField(_("what is told"), max_length=32, choices=Kind.choices)
    consent_at = models.DateTimeField(_("consent of"))
    credentials_version = models.BigIntegerField()
    claimed_until = models.DateTimeField()
    """Until then no other process sends it; after that it is due again, unless it was sent."""
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
