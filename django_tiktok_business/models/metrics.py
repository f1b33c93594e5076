"""`DailyMetrics`: an account's statistics, day by day."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


def _count_column(name: Any) -> models.BigIntegerField[int | None, int | None]:
    return models.BigIntegerField(name, null=True, blank=True)


class DailyMetrics(models.Model):
    """TikTok's statistics of one account for one day in UTC (`metrics` of GET /business/get/).

    None, like a missing row, means that TikTok gave no value; it is not zero. TikTok keeps 60 days;
    rows stay as long as the account does. The values of the last two or three days may still grow,
    because TikTok counts with a delay.
    """

    account = models.ForeignKey(
        "BusinessAccount",
        verbose_name=_("account"),
        on_delete=models.CASCADE,
        related_name="daily_metrics",
    )
    date = models.DateField(_("date"), help_text=_("The day in UTC, as TikTok counts."))

    followers_count = _count_column(_("followers"))
    video_views = _count_column(_("video views"))
    unique_video_views = _count_column(_("unique video views"))
    profile_views = _count_column(_("profile views"))
    likes = _count_column(_("likes"))
    comments = _count_column(_("comments"))
    shares = _count_column(_("shares"))
    engaged_audience = _count_column(_("engaged audience"))
    daily_new_followers = _count_column(_("new followers"))
    daily_lost_followers = _count_column(_("lost followers"))
    bio_link_clicks = _count_column(_("clicks on the link in the bio"))
    email_clicks = _count_column(_("clicks on the e-mail address"))
    phone_number_clicks = _count_column(_("clicks on the phone number"))
    address_clicks = _count_column(_("clicks on the address"))
    app_download_clicks = _count_column(_("clicks on the app"))
    lead_submissions = _count_column(_("leads"))
    audience_activity = models.JSONField(
        _("audience by hour"),
        null=True,
        blank=True,
        help_text=_("How many followers were active in each hour: 24 numbers, or nothing."),
    )
    # From the profile, as last synced on that day.
    following_count = _count_column(_("following"))
    likes_count = _count_column(_("likes in all"))
    videos_count = _count_column(_("videos"))

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
