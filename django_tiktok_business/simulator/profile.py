"""`GET /business/get/`: profile fields by scope, and the daily figures.

What `followers_count` means in a daily figure TikTok's page does not say; here it is the total at
the end of that day (inferred).
Fields and types are those of TikTok's published specification of v1.3, 2026-11-22.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from .accounts import Account
from .wire import RefusedError

__all__ = ["ProfileQuery", "profile_answer"]

# Where the reference page names no scope, the scope's own description decided (INF).
_FIELD_SCOPES: Mapping[str, str] = {
    "is_business_account": "user.account.type",
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
}
_AUDIENCE: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "audience_ages": (
        "age",
        {"18-24": 0.22, "25-34": 0.37, "35-44": 0.23, "45-54": 0.12, "55+": 0.06},
    ),
    "audience_genders": ("gender", {"Female": 0.58, "Male": 0.4, "Other": 0.02}),
    "audience_countries": ("country", {"DE": 0.61, "AT": 0.17, "CH": 0.12}),
    "audience_cities": ("city_name", {"Hamburg": 0.21, "Vienna": 0.09, "Bern": 0.07}),
}
# Each daily figure with its share of the followers on a good day.
_DAILY: Mapping[str, float] = {
    "video_views": 0.7,
    "unique_video_views": 0.5,
    "profile_views": 0.05,
    "likes": 0.1,
    "comments": 0.01,
    "shares": 0.005,
    "engaged_audience": 0.12,
    "daily_total_followers": 0.01,
    "daily_new_followers": 0.012,
    "daily_lost_followers": 0.002,
    "phone_number_clicks": 0.001,
    "lead_submissions": 0.001,
    "app_download_clicks": 0.001,
    "bio_link_clicks": 0.01,
    "email_clicks": 0.001,
    "address_clicks": 0.001,
}
_BUSINESS_ACCOUNTS_ONLY = {
    "profile_views",
    "phone_number_clicks",
    "lead_submissions",
    "app_download_clicks",
    "bio_link_clicks",
    "email_clicks",
    "address_clicks",
}
_HOURLY = "audience_activity"
_INSIGHTS = {*_AUDIENCE, *_DAILY, _HOURLY}
_DEFAULT_FIELDS = ("display_name", "profile_image")
_LOOK_BACK_DAYS = 60
_FOLLOWERS_FOR_AUDIENCE = 100


class ProfileQuery:
    """The checked parameters: `fields`, and the inclusive UTC days `start` and `end`.

    Raises `RefusedError` 40002 naming the wrong parameter.
    """

    def __init__(self, parameters: Mapping[str, str], now: float) -> None:
        unknown = sorted(set(parameters) - {"business_id", "fields", "start_date", "end_date"})
        if unknown:
            raise RefusedError(40002, f"Unknown parameter(s): {', '.join(unknown)}.")
        if not parameters.get("business_id"):
            raise RefusedError(40002, "Missing required field(s): business_id.")
        self.business_id = parameters["business_id"]
        self.fields = self._fields(parameters.get("fields"))
        self.today = today = datetime.fromtimestamp(now, UTC).date()
        self.start = self._day(parameters, "start_date", today - timedelta(days=7))
        self.end = self._day(parameters, "end_date", today - timedelta(days=1))
        if self.start < today - timedelta(days=_LOOK_BACK_DAYS):
            raise RefusedError(40002, f"start_date: at most {_LOOK_BACK_DAYS} days back.")
        if self.end > today:
            raise RefusedError(40002, "end_date: must not be in the future.")
        if self.start > self.end:
            raise RefusedError(40002, "start_date: must not be after end_date.")

    @staticmethod
    def _fields(text: str | None) -> Sequence[str]:
        if text is None:
            return _DEFAULT_FIELDS
        try:
            names = json.loads(text)
        except ValueError:
            names = None
        if not isinstance(names, list) or not names or not all(type(n) is str for n in names):
            raise RefusedError(40002, "fields: must be a JSON array of field names.")
        unknown = [name for name in names if name not in _FIELD_SCOPES and name not in _INSIGHTS]
        if unknown:
            raise RefusedError(40002, f"fields: unknown field(s) {', '.join(unknown)}.")
        return names

    @staticmethod
    def _day(parameters: Mapping[str, str], name: str, default: date) -> date:
        text = parameters.get(name)
        if text is None:
            return default
        try:
            # fromisoformat alone takes other ISO spellings too, 20261122 for one.
            return date.fromisoformat(text if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else "")
        except ValueError:
            raise RefusedError(40002, f"{name}: must be a date as YYYY-MM-DD.") from None


def profile_answer(
    query: ProfileQuery,
    account: Account,
    scopes: Sequence[str],
    *,
    picture: str,
    missing_scope_code: int,
) -> dict[str, Any]:
    """Return the `data` for these fields and scopes.

    A field without its scope is left out, or refused with `missing_scope_code` if that is not 0:
    the documentation does not say which.
    """
    lacking = [
        name for name in query.fields if _FIELD_SCOPES.get(name, "user.insights") not in scopes
    ]
    if lacking and missing_scope_code:
        raise RefusedError(missing_scope_code, f"No permission for field(s): {', '.join(lacking)}.")
    names = [name for name in query.fields if name not in lacking]
    insights = [name for name in names if name in _INSIGHTS]
    if insights and not account.analytics_enabled:
        open_id = query.business_id
        raise RefusedError(40001, f"No permission to operate tiktok creator id: {open_id}")
    profile = {**account.as_dict(), "profile_image": picture}
    answer = {name: profile[name] for name in names if name in _FIELD_SCOPES}
    has_audience = account.followers_count >= _FOLLOWERS_FOR_AUDIENCE
    for name in names:
        if name in _AUDIENCE and has_audience:
            key, shares = _AUDIENCE[name]
            answer[name] = [{key: item, "percentage": share} for item, share in shares.items()]
    daily = [
        name
        for name in insights
        if name in _DAILY and (account.is_business_account or name not in _BUSINESS_ACCOUNTS_ONLY)
    ]
    if _HOURLY in insights and has_audience:
        daily.append(_HOURLY)
    if daily:
        # The follower total comes at both levels as soon as there are days at all.
        daily += ["followers_count"] if "followers_count" in names else []
        answer["metrics"] = _metrics(query, account, daily)
    return answer


def _metrics(query: ProfileQuery, account: Account, names: Sequence[str]) -> list[dict[str, Any]]:
    first = max(query.start, date.fromisoformat(account.created_on))
    days = [first + timedelta(days=n) for n in range((query.end - first).days + 1)]
    return [
        {"date": day.isoformat()}
        | {name: _figure(account, day, name, (query.today - day).days) for name in names}
        for day in days
    ]


def _figure(account: Account, day: date, name: str, days_ago: int) -> Any:
    if name == "followers_count":  # it grew by two in a thousand a day
        return account.followers_count * (1000 - 2 * days_ago) // 1000
    digest = hashlib.sha256(f"{account.key} {day} {name}".encode()).digest()
    if name == _HOURLY:
        return [{"hour": str(hour), "count": digest[hour]} for hour in range(24)]
    best = int(account.followers_count * _DAILY[name]) + 1
    worst = best // 3
    return worst + int.from_bytes(digest[:8]) % (best - worst + 1)
