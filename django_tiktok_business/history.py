"""What is kept of an account's past: daily figures, events of the connection, what was told."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

__all__ = ["ConnectionEvent", "DailyMetrics", "Notice"]

_ACCOUNT = "tiktok_business.BusinessAccount"


def _figure(name: Any) -> models.BigIntegerField[int | None, int | None]:
    return models.BigIntegerField(name, null=True, blank=True)


class DailyMetrics(models.Model):
    """What TikTok told about one account and one day, in UTC (`metrics` of GET /business/get/).

    None means that TikTok did not say; it is no zero. A day without a row was not told either.
    TikTok keeps 60 days; rows stay as long as the account does. Figures of the last two or three
    days may still grow: TikTok counts with a delay.
    """

    account = models.ForeignKey(
        _ACCOUNT, verbose_name=_("account"), on_delete=models.CASCADE, related_name="daily_metrics"
    )
    date = models.DateField(_("date"), help_text=_("The day in UTC, as TikTok counts."))

    followers_count = _figure(_("followers"))
    video_views = _figure(_("video views"))
    unique_video_views = _figure(_("unique video views"))
    profile_views = _figure(_("profile views"))
    likes = _figure(_("likes"))
    comments = _figure(_("comments"))
    shares = _figure(_("shares"))
    engaged_audience = _figure(_("engaged audience"))
    daily_new_followers = _figure(_("new followers"))
    daily_lost_followers = _figure(_("lost followers"))
    bio_link_clicks = _figure(_("clicks on the link in the bio"))
    email_clicks = _figure(_("clicks on the e-mail address"))
    phone_number_clicks = _figure(_("clicks on the phone number"))
    address_clicks = _figure(_("clicks on the address"))
    app_download_clicks = _figure(_("clicks on the app"))
    lead_submissions = _figure(_("leads"))
    audience_activity = models.JSONField(
        _("audience by hour"),
        null=True,
        blank=True,
        help_text=_("How many followers were active in each hour: 24 numbers, or nothing."),
    )
    # As the profile had them when it was last synced on that day.
    following_count = _figure(_("following"))
    likes_count = _figure(_("likes in all"))
    videos_count = _figure(_("videos"))

    objects: ClassVar[models.Manager[DailyMetrics]] = models.Manager()

    class Meta:
        verbose_name = _("figures of a day")
        verbose_name_plural = _("figures by day")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["account", "date"], name="tiktok_business_one_row_per_day"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.date}"


class ConnectionEvent(models.Model):
    """Something that happened to a connection. Holds no secret; texts of TikTok are untrusted.

    The same thing again in a row (a daily refresh, a failure with the same code) is counted in one
    event instead of many.
    """

    class Kind(models.TextChoices):
        CONNECTED = "connected", _("connected")
        RECONNECTED = "reconnected", _("reconnected")
        REFRESHED = "refreshed", _("refreshed")
        """The access token was renewed."""
        FAILED = "failed", _("refresh failed")
        """For a passing reason: it is tried again."""
        REJECTED = "rejected", _("rejected by TikTok")
        """The account has to be connected again."""
        SCOPES_CHANGED = "scopes_changed", _("permissions changed")
        DISCONNECTED = "disconnected", _("disconnected")

    account = models.ForeignKey(
        _ACCOUNT, verbose_name=_("account"), on_delete=models.CASCADE, related_name="events"
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
        """ "+" and what was added, "−" and what was removed; whatever JSON the columns hold."""
        columns = (("+", self.scopes_added), ("\N{MINUS SIGN}", self.scopes_removed))
        return [
            f"{sign}{scope}"
            for sign, scopes in columns
            if isinstance(scopes, list)
            for scope in scopes
        ]


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
