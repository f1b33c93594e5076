"""``business/get``: profiles, and what is read as metrics and audience."""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.profile import (
    PROFILE_FIELDS,
    AccountMetrics,
    BusinessProfile,
    Profile,
    read_metrics,
)
from django_tiktok_business.exceptions import AccessTokenRejectedError, PermissionDeniedError
from django_tiktok_business.simulator import Simulator
from tests.support import servers
from tests.support.clients import CALLS, GRANTED, client_of, parsed
from tests.support.envelopes import answer_with


def test_profile_gives_what_was_asked_for(simulator: Simulator, client: TikTokClient) -> None:
    grant = simulator.issue_grant()
    profile = BusinessProfile(client.authorized(grant["access_token"]), grant["open_id"]).profile(
        list(PROFILE_FIELDS)
    )
    assert profile.username == "harbour_bakery"
    assert None not in vars(profile).values()
    part = BusinessProfile(client.authorized(grant["access_token"]), grant["open_id"]).profile(
        ["username", "is_verified"]
    )
    assert part == Profile(username=profile.username, is_verified=profile.is_verified)


def test_profile_query_holds_json_text() -> None:
    with (
        servers.serving(servers.send(GRANTED)) as server,
        client_of(base_url=server.base_url) as client,
    ):
        CALLS["profile"](client)
    query = urlsplit(parsed(server.requests[0])[0].split(" ")[1]).query
    assert parse_qs(query) == {"business_id": ["_0 &1"], "fields": ['["username"]']}


@pytest.mark.parametrize("expired_access_code", [40102, 40105])
def test_expired_access_token_asks_for_a_refresh(
    simulator: Simulator, client: TikTokClient, expired_access_code: int
) -> None:
    simulator.configure(expired_access_code=expired_access_code)
    grant = simulator.issue_grant()
    simulator.clock.advance(90_000)
    with pytest.raises(AccessTokenRejectedError) as caught:
        BusinessProfile(client.authorized(grant["access_token"]), grant["open_id"]).profile(
            ["username"]
        )
    assert caught.value.code == expired_access_code


def test_account_of_somebody_else_is_denied(simulator: Simulator, client: TikTokClient) -> None:
    grant = simulator.issue_grant()
    with pytest.raises(PermissionDeniedError, match="No permission to operate"):
        BusinessProfile(client.authorized(grant["access_token"]), "_other").profile(["username"])


# Metrics and audience


FIRST, LAST = date(2026, 11, 20), date(2026, 11, 22)


def read(**data: Any) -> AccountMetrics:
    return read_metrics(answer_with(data), FIRST, LAST)


def test_metrics_are_read_by_day() -> None:
    hours = [{"hour": str(hour), "count": hour * 2} for hour in reversed(range(24))]
    days = read(
        metrics=[
            {"date": "2026-11-20", "likes": 3, "unknown_metric": 9},
            {"date": "2026-11-21", "likes": "4", "shares": 0, "audience_activity": hours},
            {"date": "2026-11-22"},
        ]
    ).days
    assert days == {
        FIRST: {"likes": 3},
        date(2026, 11, 21): {
            "likes": 4,
            "shares": 0,
            "audience_activity": [hour * 2 for hour in range(24)],
        },
    }


@pytest.mark.parametrize(
    "metrics",
    [
        *(None, {}, "x", [None, 1, "x", []], [{"likes": 1}]),
        *([{"date": day, "likes": 1}] for day in ("2026-11-19", "2026-11-23", "20261121", 5, None)),
        *([{"date": "2026-02-31", "likes": 1}], [{"date": "2026-11-21T00:00:00", "likes": 1}]),
        *([{"date": "2026-11-21", "likes": bad}] for bad in (-1, 2**63, 1.5, True, "many")),
        [{"date": "2026-11-21", "audience_activity": [{"hour": "0", "count": 1}]}],
        [{"date": "2026-11-21", "audience_activity": {"hour": "0"}}],
    ],
)
def test_malformed_metrics_are_left_out(metrics: Any) -> None:
    assert read(metrics=metrics).days == {}


def test_audience_is_read_with_the_largest_share_first() -> None:
    audience = read(
        audience_ages=[{"age": "18-24", "percentage": 0.25}, {"age": "25-34", "percentage": 0.5}],
        audience_genders=[{"gender": "Female\n\u202e", "percentage": 1}],
        audience_countries=[{"country": "x" * 500, "percentage": 0}],
    ).audience
    assert audience == {
        "ages": [["25-34", 0.5], ["18-24", 0.25]],
        "genders": [["Female", 1.0]],
        "countries": [["x" * 100, 0.0]],
    }


@pytest.mark.parametrize("share", [-0.1, 1.1, "0.5", None, True, [], float("nan"), float("inf")])
def test_malformed_shares_are_left_out(share: Any) -> None:
    assert read(audience_ages=[{"age": "18-24", "percentage": share}]).audience == {}
    assert read(audience_ages=[{"age": share, "percentage": 0.5}, share]).audience in (
        {},
        {"ages": [["0.5", 0.5]]},
    )


def test_audience_has_a_bounded_number_of_groups() -> None:
    many = [{"country": str(number), "percentage": 0.001} for number in range(1000)]
    assert len(read(audience_countries=many).audience["countries"]) == 300
