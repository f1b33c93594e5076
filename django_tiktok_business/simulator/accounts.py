"""Ready-made TikTok accounts, and the scopes they can grant."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

# The scopes in authorization URLs that TikTok's portal issues (2026-11-22). The descriptions on the
# consent page are our own wording.
SCOPES: Mapping[str, str] = {
    "user.info.basic": "Read your display name and profile picture",
    "user.info.username": "Read your username",
    "user.info.profile": "Read your bio, profile link and verification badge",
    "user.info.stats": "Read your follower, following, like and video counts",
    "user.account.type": "See whether you have a business or a personal account",
    "user.insights": "Read your daily statistics and audience",
    "video.list": "Read your public videos",
    "video.insights": "Read the statistics of your videos",
    "video.publish": "Post videos and photos for you",
    "video.upload": "Upload drafts to your account",
    "comment.list": "Read the comments on your videos",
    "comment.list.manage": "Write, like, hide and delete comments for you",
    "biz.spark.auth": "Manage Spark Ads authorization codes",
    "biz.brand.insights": "Read where your brand is mentioned",
    "discovery.search.words": "Use the Discovery API",
    "biz.ads.recommend": "Recommend videos for Spark Ads",
    "biz.creator.info": "Read your creator profile",
    "biz.creator.insights": "Read your creator statistics",
    "tto.campaign.link": "Link your videos to campaigns",
    "message.list.read": "Read your direct messages",
    "message.list.send": "Send direct messages for you",
    "message.list.manage": "Manage your direct messages",
}


@dataclass(frozen=True)
class Account:
    """A TikTok account. The simulator finds it by `key`; `username` is what TikTok returns.

    `created_on` is the ISO date of the first statistics. With `analytics_enabled` off, statistics
    are refused, as TikTok does until the owner turns them on in the mobile app. `profile_image`
    None stands for a generated picture.
    """

    key: str
    username: str
    display_name: str
    bio_description: str = ""
    is_business_account: bool = True
    is_verified: bool = False
    followers_count: int = 0
    following_count: int = 0
    total_likes: int = 0
    videos_count: int = 0
    profile_deep_link: str = ""
    profile_image: str | None = None
    created_on: str = "2021-03-01"
    analytics_enabled: bool = True

    def changed(self, changes: Mapping[str, Any]) -> Account:
        """Return a copy with other profile fields; raise `ValueError` on an invalid one."""
        known = {entry.name for entry in fields(self)} - {"key"}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"unknown profile field {name!r}; known: {sorted(known)}")
            usual = type(getattr(self, name) if name != "profile_image" else "")
            if type(value) is not usual and not (name == "profile_image" and value is None):
                raise ValueError(f"{name} must be of type {usual.__name__}, not {value!r}")
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def new_account(key: str) -> Account:
    """Return an account for an unknown username, derived from it alone."""
    number = int(fingerprint(key)[:8], 16)
    return Account(
        key=key,
        username=key,
        display_name=key.replace("_", " ").title(),
        bio_description="An account made up by the simulator.",
        followers_count=100 + number % 50_000,
        following_count=number % 900,
        total_likes=number % 2_000_000,
        videos_count=number % 400,
        profile_deep_link=f"https://vm.tiktok.com/SIM{fingerprint(key)[:6]}/",
    )


READY_MADE: Mapping[str, Account] = {
    account.key: account
    for account in (
        Account(
            key="harbour_bakery",
            username="harbour_bakery",
            display_name="Harbour Bakery",
            followers_count=1_532,
            following_count=41,
            total_likes=20_417,
            videos_count=63,
            profile_deep_link="https://vm.tiktok.com/SIMabc123/",
        ),
        Account(
            key="galaxy.gadgets",
            username="galaxy.gadgets",
            display_name="Galaxy Gadgets",
            bio_description="Phones, drones and things that blink.\nNew review every day.",
            is_verified=True,
            followers_count=152_300_411,
            following_count=12,
            total_likes=9_876_543_210,  # does not fit in 32 bits
            videos_count=8_204,
            profile_deep_link="https://vm.tiktok.com/SIMgal456/",
            created_on="2018-09-04",
        ),
        Account(
            key="mika_bakes",
            username="mika_bakes",
            display_name="田中 美香のパン工房",
            bio_description="東京・谷中の小さなパン屋です。毎朝七時に焼き上がります。",
            followers_count=48_213,
            following_count=377,
            total_likes=612_904,
            videos_count=291,
            profile_deep_link="https://vm.tiktok.com/SIMmik789/",
        ),
        Account(
            key="lena.draws",
            username="lena.draws",
            display_name="Lena",
            bio_description="Sketchbook diary. Not a business, just pencils.",
            is_business_account=False,
            followers_count=86,  # below the 100 that audience data requires
            following_count=140,
            total_likes=912,
            videos_count=0,
            profile_deep_link="https://vm.tiktok.com/SIMlen012/",
            created_on="2026-10-12",
        ),
        Account(
            key="tea_and_code",
            username="tea_and_code",
            display_name='Tea & Code <b>"Club"</b>',
            bio_description="<script>alert('tea')</script> & {{ biscuits }} every Thursday",
            followers_count=7_040,
            following_count=512,
            total_likes=88_120,
            videos_count=154,
            profile_deep_link="https://vm.tiktok.com/SIMtea345/",
        ),
        Account(
            key="alpine_velo",
            username="alpine_velo",
            display_name="Alpine Vélo — Werkstatt & Café",
            bio_description="Bikes, repaired while you drink a coffee. Bern, Mühlenplatz 4.",
            followers_count=23_977,
            following_count=208,
            total_likes=301_556,
            videos_count=418,
            profile_deep_link="https://vm.tiktok.com/SIMalp678/",
        ),
    )
}
