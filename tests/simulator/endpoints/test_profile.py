from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import BAKERY, NOW, SYNC_FIELDS, Caller, ask_profile, caller


def test_foreign_business_id_is_refused_with_the_observed_text(
    simulator: Simulator, client: Caller
) -> None:
    grant = simulator.issue_grant()
    foreign = simulator.issue_grant("lena.draws")["open_id"]
    answer = client.profile(grant["access_token"], business_id=foreign)
    assert answer["code"] == 40001
    assert answer["message"] == f"No permission to operate tiktok creator id: {foreign}"


# Parameters


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"business_id": ""}, "Missing required field(s): business_id."),
        ({"field": "[]"}, "Unknown parameter(s): field."),
        ({"fields": "username,display_name"}, "fields: must be a JSON array of field names."),
        ({"fields": '"username"'}, "fields: must be a JSON array of field names."),
        ({"fields": "[]"}, "fields: must be a JSON array of field names."),
        ({"fields": "[1]"}, "fields: must be a JSON array of field names."),
        ({"fields": '["likes_count"]'}, "fields: unknown field(s) likes_count."),
        ({"start_date": "20261120"}, "start_date: must be a date as YYYY-MM-DD."),
        ({"end_date": "2026-02-30"}, "end_date: must be a date as YYYY-MM-DD."),
        ({"start_date": "2026-09-22"}, "start_date: at most 60 days back."),
        ({"end_date": "2026-11-23"}, "end_date: must not be in the future."),
        (
            {"start_date": "2026-11-20", "end_date": "2026-11-19"},
            "start_date: must not be after end_date.",
        ),
    ],
)
def test_wrong_parameter_is_named(
    simulator: Simulator, query: dict[str, str], message: str
) -> None:
    grant = simulator.issue_grant()
    answer = caller(simulator).profile(
        grant["access_token"], **{"business_id": grant["open_id"], **query}
    )
    assert (answer["code"], answer["message"]) == (40002, message)


def test_oldest_and_newest_day_are_accepted(simulator: Simulator) -> None:
    days = ask_profile(simulator, "likes", start_date="2026-09-23", end_date="2026-11-22")["data"][
        "metrics"
    ]
    assert (days[0]["date"], days[-1]["date"], len(days)) == ("2026-09-23", "2026-11-22", 61)


# Answers


def test_default_fields(simulator: Simulator) -> None:
    answer = ask_profile(simulator)
    assert answer["code"] == 0
    assert set(answer["data"]) == {"display_name", "profile_image"}


def test_profile_for_a_sync_is_as_documented(simulator: Simulator) -> None:
    answer = ask_profile(simulator, *SYNC_FIELDS)["data"]
    picture = urlsplit(answer.pop("profile_image"))
    assert picture.hostname == "p16-sign-va.tiktokcdn.com"
    assert parse_qs(picture.query)["x-expires"] == [str(NOW + 172_800)]
    assert answer == {
        "is_business_account": True,
        "username": BAKERY,
        "display_name": "Harbour Bakery",
        "profile_deep_link": "https://vm.tiktok.com/SIMabc123/",
        "bio_description": "",
        "is_verified": False,
        "followers_count": 1532,
        "following_count": 41,
        "total_likes": 20417,
        "videos_count": 63,
    }


def test_fields_without_their_scope_are_left_out(simulator: Simulator) -> None:
    answer = ask_profile(simulator, *SYNC_FIELDS, "likes", scopes=["user.info.basic"])
    assert set(answer["data"]) == {"display_name", "profile_image"}


@pytest.mark.parametrize("code", [40001, 40130])
def test_fields_without_their_scope_can_be_refused(simulator: Simulator, code: int) -> None:
    simulator.configure(missing_scope_code=code)
    answer = ask_profile(simulator, "display_name", "username", scopes=["user.info.basic"])
    assert answer["code"] == code
    assert "username" in answer["message"]
    assert ask_profile(simulator, "display_name", scopes=["user.info.basic"])["code"] == 0


def test_daily_metrics_cover_seven_days_by_default(simulator: Simulator) -> None:
    data = ask_profile(simulator, "followers_count", "likes", "profile_views", "audience_activity")[
        "data"
    ]
    assert data["followers_count"] == 1532
    assert [day["date"] for day in data["metrics"]] == [f"2026-11-{n}" for n in range(15, 22)]
    totals = [day["followers_count"] for day in data["metrics"]]
    assert totals == [1510, 1513, 1516, 1519, 1522, 1525, 1528]
    for day in data["metrics"]:
        assert set(day) == {
            "date",
            "likes",
            "profile_views",
            "audience_activity",
            "followers_count",
        }
        assert [hour["hour"] for hour in day["audience_activity"]] == [str(n) for n in range(24)]
    assert (
        data
        == ask_profile(
            simulator, *data.keys() - {"metrics"}, *data["metrics"][0].keys() - {"date"}
        )["data"]
    )


def test_audience_shares(simulator: Simulator) -> None:
    data = ask_profile(simulator, "audience_genders", "audience_ages")["data"]
    assert set(data) == {"audience_genders", "audience_ages"}
    assert data["audience_genders"][0] == {"gender": "Female", "percentage": 0.58}
    assert sum(item["percentage"] for item in data["audience_ages"]) == pytest.approx(1)


def test_small_personal_young_account_has_no_audience_and_few_metrics(
    simulator: Simulator,
) -> None:
    wanted = ("audience_genders", "audience_activity", "likes", "profile_views")
    simulator.set_profile("lena.draws", created_on="2026-11-20")
    data = ask_profile(simulator, *wanted, account="lena.draws")["data"]
    assert set(data) == {"metrics"}
    assert [set(day) for day in data["metrics"]] == [{"date", "likes"}] * 2
    assert ask_profile(simulator, "email_clicks", account="lena.draws")["data"] == {}


def test_account_newer_than_the_period_has_no_days(simulator: Simulator) -> None:
    simulator.set_profile(BAKERY, created_on="2026-11-22")
    assert ask_profile(simulator, "likes")["data"] == {"metrics": []}


def test_statistics_that_the_owner_has_not_switched_on_are_refused(simulator: Simulator) -> None:
    simulator.set_profile(BAKERY, analytics_enabled=False)
    answer = ask_profile(simulator, "display_name", "likes")
    open_id = simulator.open_id(BAKERY)
    assert answer["code"] == 40001
    assert answer["message"] == f"No permission to operate tiktok creator id: {open_id}"
    assert ask_profile(simulator, "display_name", "username")["code"] == 0
