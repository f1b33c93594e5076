"""``GET /business/get/``: an account's profile, daily metrics and audience."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from django_tiktok_business.untrusted import single_line

from .client import Caller
from .envelope import MAX_GROUPS, Envelope, objects, to_count, to_integer

# The scope that each field of /business/get/ needs, by TikTok's page. A field without its scope
# may fail the whole call, so callers ask only for what is granted.
PROFILE_FIELDS = {
    "display_name": "user.info.basic",
    "profile_image": "user.info.basic",
    "username": "user.info.username",
    "profile_deep_link": "user.info.profile",
    "bio_description": "user.info.profile",
    "is_verified": "user.info.profile",
    "followers_count": "user.info.stats",
    "following_count": "user.info.stats",
    "total_likes": "user.info.stats",
    "videos_count": "user.info.stats",
    "is_business_account": "user.account.type",
}

# The same endpoint's daily metrics and audience, by the names on TikTok's page. Their scopes are
# inferred from TikTok's descriptions of the scopes.
DAILY_METRICS = (
    "followers_count",
    "video_views",
    "unique_video_views",
    "profile_views",
    "likes",
    "comments",
    "shares",
    "engaged_audience",
    "daily_new_followers",
    "daily_lost_followers",
    "bio_link_clicks",
    "email_clicks",
    "phone_number_clicks",
    "address_clicks",
    "app_download_clicks",
    "lead_submissions",
)
METRIC_FIELDS = {
    **dict.fromkeys(DAILY_METRICS, "user.insights"),
    "followers_count": "user.info.stats",
    "audience_activity": "user.insights",
    "audience_ages": "user.insights",
    "audience_genders": "user.insights",
    "audience_countries": "user.insights",
}


@dataclass(frozen=True)
class Profile:
    """An account's profile. None: not asked for, not granted, or left out by TikTok.

    The account holder typed all text: it is untrusted. ``profile_image_url`` is temporary.
    """

    display_name: str | None = None
    username: str | None = None
    profile_image_url: str | None = None
    profile_url: str | None = None
    bio: str | None = None
    is_verified: bool | None = None
    is_business_account: bool | None = None
    followers_count: int | None = None
    following_count: int | None = None
    likes_count: int | None = None
    videos_count: int | None = None


@dataclass(frozen=True)
class AccountMetrics:
    """An account's daily metrics and audience, without what TikTok left out.

    ``days``: for each day in UTC the metrics by TikTok's names, with ``audience_activity`` as 24
    hourly counts. ``audience``: "ages", "genders" and "countries", each a list of
    ``[name, share]``, the largest share first: untrusted text, and a fraction from 0 to 1.
    """

    days: Mapping[date, Mapping[str, Any]]
    audience: Mapping[str, list[list[Any]]]


class BusinessProfile:
    """``GET /business/get/`` for the account ``open_id``, whose access token ``caller`` sends."""

    _PATH = "/business/get/"

    def __init__(self, caller: Caller, open_id: str) -> None:
        self._caller = caller
        self._open_id = open_id

    def profile(self, fields: Iterable[str]) -> Profile:
        """Ask for ``fields`` (keys of `PROFILE_FIELDS`) of the account's profile."""
        answer = self._caller.get(self._PATH, self._query(fields))
        return Profile(
            display_name=answer.text("display_name"),
            username=answer.text("username"),
            profile_image_url=answer.text("profile_image"),
            profile_url=answer.text("profile_deep_link"),
            bio=answer.text("bio_description"),
            is_verified=answer.boolean("is_verified"),
            is_business_account=answer.boolean("is_business_account"),
            followers_count=answer.count("followers_count"),
            following_count=answer.count("following_count"),
            likes_count=answer.count("total_likes"),
            videos_count=answer.count("videos_count"),
        )

    def metrics(self, fields: Iterable[str], first_day: date, last_day: date) -> AccountMetrics:
        """Ask for ``fields`` (keys of `METRIC_FIELDS`) from the first to the last day, in UTC.

        TikTok looks back at most 60 days.
        """
        query = {
            **self._query(fields),
            "start_date": first_day.isoformat(),
            "end_date": last_day.isoformat(),
        }
        # A new account has no data yet.
        answer = self._caller.get(self._PATH, query, is_data_needed=False)
        return read_metrics(answer, first_day, last_day)

    def _query(self, fields: Iterable[str]) -> dict[str, Any]:
        return {"business_id": self._open_id, "fields": list(fields)}


def read_metrics(answer: Envelope, first_day: date, last_day: date) -> AccountMetrics:
    """Read daily metrics and audience; leave out other days and malformed values."""
    days: dict[date, dict[str, Any]] = {}
    for entry in objects(answer.data.get("metrics")):
        day = _date(entry.get("date"))
        if day is None or not first_day <= day <= last_day:
            continue
        values: dict[str, Any] = {name: to_count(entry.get(name)) for name in DAILY_METRICS}
        values["audience_activity"] = _hours(entry.get("audience_activity"))
        days[day] = {name: value for name, value in values.items() if value is not None}
    audience = {
        name: _shares(answer.data.get(f"audience_{name}"), key)
        for name, key in (("ages", "age"), ("genders", "gender"), ("countries", "country"))
    }
    return AccountMetrics(
        days={day: values for day, values in days.items() if values},
        audience={name: shares for name, shares in audience.items() if shares},
    )


def _date(value: Any) -> date | None:
    try:
        # fromisoformat() alone accepts other formats, too.
        return date.fromisoformat(value if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else "")
    except (TypeError, ValueError):
        return None


def _hours(value: Any) -> list[int] | None:
    """The counts of the hours 0 to 23; None unless all are there."""
    counts = {to_integer(item.get("hour")): to_count(item.get("count")) for item in objects(value)}
    hours = [counts.get(hour) for hour in range(24)]
    return None if None in hours else hours  # type: ignore[return-value]


def _shares(value: Any, key: str) -> list[list[Any]]:
    """Names and shares, the largest first."""
    shares: dict[str, Any] = {
        single_line(item.get(key))[:100]: item.get("percentage")
        for item in objects(value)[:MAX_GROUPS]
    }
    return sorted(
        (
            [name, float(share)]
            for name, share in shares.items()
            if name and type(share) in (int, float) and 0 <= share <= 1
        ),
        key=lambda pair: -pair[1],
    )
