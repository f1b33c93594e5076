"""Read the metrics and the audience in TikTok's answer, whatever it holds."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from django_tiktok_business.api.envelope import Envelope
from django_tiktok_business.api.profile import AccountMetrics, read_metrics
from django_tiktok_business.masking import SecretBytes

FIRST, LAST = date(2026, 11, 20), date(2026, 11, 22)


def read(**data: Any) -> AccountMetrics:
    content = json.dumps({"code": 0, "message": "OK", "data": data}).encode()
    return read_metrics(Envelope(200, SecretBytes(content)), FIRST, LAST)


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
def test_invalid_metrics_are_left_out(metrics: Any) -> None:
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
def test_invalid_shares_are_left_out(share: Any) -> None:
    assert read(audience_ages=[{"age": "18-24", "percentage": share}]).audience == {}
    assert read(audience_ages=[{"age": share, "percentage": 0.5}, share]).audience in (
        {},
        {"ages": [["0.5", 0.5]]},
    )


def test_audience_has_a_bounded_number_of_groups() -> None:
    many = [{"country": str(number), "percentage": 0.001} for number in range(1000)]
    assert len(read(audience_countries=many).audience["countries"]) == 300
