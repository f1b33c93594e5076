"""What each scope allows a site to do, in words for the account holder.

The scopes are from TikTok's page "Accounts API - Authorization" (doc id 1738083939371009), last
checked on 2026-11-22; the wording is ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.utils.translation import gettext_lazy as _

__all__ = ["describe"]

_MEANINGS = {
    "user.info.basic": _("See your display name and profile picture"),
    "user.info.username": _("See your username"),
    "user.info.profile": _("See your bio, your profile link and whether you are verified"),
    "user.info.stats": _("See how many followers, likes and videos you have"),
    "user.account.type": _("See whether yours is a business account"),
    "user.insights": _("See your daily statistics and who your audience is"),
    "video.list": _("See your public videos"),
    "video.insights": _("See the statistics of your videos"),
    "video.publish": _("Publish videos and photos for you"),
    "video.upload": _("Put drafts into your TikTok inbox"),
    "comment.list": _("Read the comments on your videos"),
    "comment.list.manage": _("Write, like, hide and delete comments for you"),
    "biz.spark.auth": _("Manage the authorization codes of your Spark Ads"),
    "biz.brand.insights": _("See where your brand is mentioned"),
    "discovery.search.words": _("Discover what people search for"),
    "biz.ads.recommend": _("See which of your videos are recommended for Spark Ads"),
    "biz.creator.info": _("See your creator profile"),
    "biz.creator.insights": _("See your creator statistics"),
    "tto.campaign.link": _("Link your videos to campaigns"),
    "message.list.read": _("Read your direct messages"),
    "message.list.send": _("Send direct messages for you"),
    "message.list.manage": _("Manage your direct messages"),
}


def describe(scopes: Iterable[str]) -> list[str]:
    """Describe each scope, in the given order; an unknown scope stands for itself."""
    return [str(_MEANINGS.get(scope, scope)) for scope in scopes]
