"""`/business/get/`: profile fields by scope, daily metrics and the audience.

Fields and types are those of TikTok's published specification of v1.3, 2026-11-22. It does not say
what `followers_count` means in the metrics of a day; here it is the total at the end of the day.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django_tiktok_business.simulator.accounts import Account
from django_tiktok_business.simulator.pictures import picture_url
from django_tiktok_business.simulator.wire import RefusedError

from .base import ApiCall, Group, no_permission

endpoints = Group()

# For fields whose scope the reference page does not name, it is inferred from the descriptions of
# the scopes.
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
# Each daily metric, and its value on the best day as a share of the followers.
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


@endpoints.get("/business/get/")
def business_get(call: ApiCall) -> Mapping[str, Any]:
    """Return an account's profile and statistics."""
    grant = call.grant_of_header()
    parameters = call.query_parameters("business_id", optional=("fields", "start_date", "end_date"))
    query = _Query(parameters, call.now)
    if parameters["business_id"] != grant.open_id:
        raise no_permission(parameters["business_id"])
    account = call.store.accounts[grant.username]
    settings = call.store.settings
    names = _permitted(query.fields, grant.scopes, settings.missing_scope_code)
    metrics = [name for name in names if name in _INSIGHTS]
    if metrics and not account.analytics_enabled:
        raise no_permission(grant.open_id)
    picture = picture_url(account, call.now, settings.image_base_url)
    profile = {**account.as_dict(), "profile_image": picture}
    return {
        **{name: profile[name] for name in names if name in _FIELD_SCOPES},
        **_audience(account, names),
        **_metrics(query, account, names),
    }


class _Query:
    """The checked parameters: `fields`, and the UTC days from `start` to `end`, both included."""

    def __init__(self, parameters: Mapping[str, str], now: float) -> None:
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
            # On its own, fromisoformat accepts other ISO formats too, such as 20261122.
            return date.fromisoformat(text if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else "")
        except ValueError:
            raise RefusedError(40002, f"{name}: must be a date as YYYY-MM-DD.") from None


def _permitted(
    fields: Sequence[str], scopes: Sequence[str], missing_scope_code: int
) -> Sequence[str]:
    """Return the fields that the scopes cover.

    The documentation does not say what happens to the others: they are left out, or refused with
    `missing_scope_code` unless it is 0.
    """
    lacking = [name for name in fields if _FIELD_SCOPES.get(name, "user.insights") not in scopes]
    if lacking and missing_scope_code:
        raise RefusedError(missing_scope_code, f"No permission for field(s): {', '.join(lacking)}.")
    return [name for name in fields if name not in lacking]


def _has_audience(account: Account) -> bool:
    return account.followers_count >= _FOLLOWERS_FOR_AUDIENCE


def _audience(account: Account, names: Sequence[str]) -> dict[str, Any]:
    audience = {}
    for name in names:
        if name in _AUDIENCE and _has_audience(account):
            key, shares = _AUDIENCE[name]
            audience[name] = [{key: item, "percentage": share} for item, share in shares.items()]
    return audience


def _metrics(query: _Query, account: Account, names: Sequence[str]) -> dict[str, Any]:
    daily = [
        name
        for name in names
        if name in _DAILY and (account.is_business_account or name not in _BUSINESS_ACCOUNTS_ONLY)
    ]
    if _HOURLY in names and _has_audience(account):
        daily.append(_HOURLY)
    if not daily:
        return {}
    # With metrics, TikTok returns the follower total for each day as well as for the profile.
    daily += ["followers_count"] if "followers_count" in names else []
    first = max(query.start, date.fromisoformat(account.created_on))
    days = [first + timedelta(days=n) for n in range((query.end - first).days + 1)]
    return {
        "metrics": [
            {"date": day.isoformat()}
            | {name: _metric(account, day, name, (query.today - day).days) for name in daily}
            for day in days
        ]
    }


def _metric(account: Account, day: date, name: str, days_ago: int) -> Any:
    if name == "followers_count":  # has grown by 0.2 % a day
        return account.followers_count * (1000 - 2 * days_ago) // 1000
    digest = hashlib.sha256(f"{account.key} {day} {name}".encode()).digest()
    if name == _HOURLY:
        return [{"hour": str(hour), "count": digest[hour]} for hour in range(24)]
    best = int(account.followers_count * _DAILY[name]) + 1
    worst = best // 3
    return worst + int.from_bytes(digest[:8]) % (best - worst + 1)
