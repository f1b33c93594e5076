from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import API, NOW, PROFILE, Caller, authorize_url, caller, frozen

BAKERY = "harbour_bakery"
SYNC_FIELDS = [
    "is_business_account",
    "username",
    "display_name",
    "profile_image",
    "profile_deep_link",
    "bio_description",
    "is_verified",
    "followers_count",
    "following_count",
    "total_likes",
    "videos_count",
]


@pytest.fixture
def simulator() -> Simulator:
    return frozen()


@pytest.fixture
def client(simulator: Simulator) -> Caller:
    return caller(simulator)


def ask(
    simulator: Simulator,
    *fields: str,
    account: str = BAKERY,
    scopes: list[str] | None = None,
    **query: str,
) -> dict[str, Any]:
    """Connect the account and ask for its profile."""
    grant = simulator.issue_grant(account, scopes)
    if fields:
        query["fields"] = json.dumps(fields)
    return caller(simulator).profile(
        grant["access_token"], **{"business_id": grant["open_id"], **query}
    )


# Who may ask


def test_missing_header_is_refused_with_the_observed_text(
    simulator: Simulator, client: Caller
) -> None:
    answer = client.profile(None, business_id=simulator.open_id(BAKERY))
    assert answer["code"] == 40104
    assert answer["message"] == (
        "Access token is null, you should set it in http header with key Access-Token."
    )


def test_bearer_prefix_and_unknown_tokens_are_refused(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    for token in ("Bearer " + grant["access_token"], "act.SIMunknown", grant["refresh_token"]):
        answer = client.profile(token, business_id=grant["open_id"])
        assert answer["code"] == 40105
        assert answer["message"] == "Access token is incorrect or has been revoked."


def test_expired_access_token_is_refused(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    simulator.clock.advance(86_400)
    answer = client.profile(grant["access_token"], business_id=grant["open_id"])
    assert answer["code"] == 40102


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


def test_parameter_given_twice_is_named(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    response = client.session.get(
        API + PROFILE + "?business_id=a&business_id=b",
        headers={"Access-Token": grant["access_token"]},
    )
    assert response.json()["message"] == "Parameter given twice: business_id."


def test_oldest_and_newest_day_are_accepted(simulator: Simulator) -> None:
    days = ask(simulator, "likes", start_date="2026-09-23", end_date="2026-11-22")["data"][
        "metrics"
    ]
    assert (days[0]["date"], days[-1]["date"], len(days)) == ("2026-09-23", "2026-11-22", 61)


# Answers


def test_default_fields(simulator: Simulator) -> None:
    answer = ask(simulator)
    assert answer["code"] == 0
    assert set(answer["data"]) == {"display_name", "profile_image"}


def test_profile_for_a_sync_is_as_documented(simulator: Simulator) -> None:
    answer = ask(simulator, *SYNC_FIELDS)["data"]
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
    answer = ask(simulator, *SYNC_FIELDS, "likes", scopes=["user.info.basic"])
    assert set(answer["data"]) == {"display_name", "profile_image"}


@pytest.mark.parametrize("code", [40001, 40130])
def test_fields_without_their_scope_can_be_refused(simulator: Simulator, code: int) -> None:
    simulator.configure(missing_scope_code=code)
    answer = ask(simulator, "display_name", "username", scopes=["user.info.basic"])
    assert answer["code"] == code
    assert "username" in answer["message"]
    assert ask(simulator, "display_name", scopes=["user.info.basic"])["code"] == 0


def test_daily_figures_cover_seven_days_by_default(simulator: Simulator) -> None:
    data = ask(simulator, "followers_count", "likes", "profile_views", "audience_activity")["data"]
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
        == ask(simulator, *data.keys() - {"metrics"}, *data["metrics"][0].keys() - {"date"})["data"]
    )


def test_audience_shares(simulator: Simulator) -> None:
    data = ask(simulator, "audience_genders", "audience_ages")["data"]
    assert set(data) == {"audience_genders", "audience_ages"}
    assert data["audience_genders"][0] == {"gender": "Female", "percentage": 0.58}
    assert sum(item["percentage"] for item in data["audience_ages"]) == pytest.approx(1)


def test_small_personal_young_account_has_no_audience_and_few_figures(
    simulator: Simulator,
) -> None:
    wanted = ("audience_genders", "audience_activity", "likes", "profile_views")
    simulator.set_profile("lena.draws", created_on="2026-11-20")
    data = ask(simulator, *wanted, account="lena.draws")["data"]
    assert set(data) == {"metrics"}
    assert [set(day) for day in data["metrics"]] == [{"date", "likes"}] * 2
    assert ask(simulator, "email_clicks", account="lena.draws")["data"] == {}


def test_account_newer_than_the_period_has_no_days(simulator: Simulator) -> None:
    simulator.set_profile(BAKERY, created_on="2026-11-22")
    assert ask(simulator, "likes")["data"] == {"metrics": []}


def test_statistics_that_the_owner_has_not_switched_on_are_refused(simulator: Simulator) -> None:
    simulator.set_profile(BAKERY, analytics_enabled=False)
    answer = ask(simulator, "display_name", "likes")
    open_id = simulator.open_id(BAKERY)
    assert answer["code"] == 40001
    assert answer["message"] == f"No permission to operate tiktok creator id: {open_id}"
    assert ask(simulator, "display_name", "username")["code"] == 0


# Accounts and pictures


def test_ready_made_accounts_are_varied(simulator: Simulator) -> None:
    profiles = {
        name: ask(simulator, *SYNC_FIELDS, account=name)["data"]
        for name in simulator.summary()["accounts"]
    }
    assert len(profiles) == 6
    assert any(not profile["is_business_account"] for profile in profiles.values())
    assert any(profile["is_verified"] for profile in profiles.values())
    assert any(profile["bio_description"] == "" for profile in profiles.values())
    assert any(not profile["display_name"][0].isascii() for profile in profiles.values())
    assert any("<b>" in profile["display_name"] for profile in profiles.values())
    assert max(profile["total_likes"] for profile in profiles.values()) > 2**32


def test_profile_can_be_changed(simulator: Simulator) -> None:
    simulator.set_profile(BAKERY, followers_count=7, username="renamed", profile_image="")
    data = ask(simulator, "followers_count", "username", "profile_image")["data"]
    assert data == {"followers_count": 7, "username": "renamed", "profile_image": ""}
    simulator.set_profile(BAKERY, profile_image=None)
    assert ask(simulator, "profile_image")["data"]["profile_image"].startswith("https://p16-")


@pytest.mark.parametrize(
    "changes", [{"followers": 7}, {"key": "x"}, {"followers_count": "7"}, {"username": None}]
)
def test_wrong_profile_field_is_named(simulator: Simulator, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        simulator.set_profile(BAKERY, **changes)


def test_any_number_of_accounts_can_be_made(simulator: Simulator) -> None:
    grants = [simulator.issue_grant(f"account_{n:04}") for n in range(500)]
    assert len({grant["open_id"] for grant in grants}) == 500
    data = ask(simulator, "display_name", account="account_0001")["data"]
    assert data["display_name"] == "Account 0001"


def test_local_pictures_are_served_until_they_expire() -> None:
    simulator = frozen(image_base_url="http://127.0.0.1:8420/")
    url = ask(simulator, "profile_image", account="tea_and_code")["data"]["profile_image"]
    assert url == (
        f"http://127.0.0.1:8420/_simulator/avatar/tea_and_code.svg?x-expires={NOW + 172_800}"
    )
    session = simulator.session()
    response = session.get(url)
    assert response.headers["Content-Type"] == "image/svg+xml"
    assert ">T<" not in response.text
    assert ">TC</text>" in response.text
    simulator.clock.advance(172_800)
    assert session.get(url).status_code == 403
    assert session.get(url.partition("?")[0]).status_code == 200
    assert session.get(url.partition("?")[0] + "?x-expires=soon").status_code == 403
    assert session.get(url.replace("tea_and", "coffee_and")).status_code == 404


def test_picture_of_a_name_without_letters_shows_a_question_mark(simulator: Simulator) -> None:
    simulator.set_profile("lena.draws", display_name="")
    response = simulator.session().get("https://x.example/_simulator/avatar/lena.draws.svg")
    assert ">?</text>" in response.text


def test_style_sheet_is_served(simulator: Simulator) -> None:
    response = simulator.session().get("https://x.example/_simulator/consent.css")
    assert response.headers["Content-Type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in response.text


# Rate limits


def token_info_codes(simulator: Simulator, times: int, account: str = BAKERY) -> list[int]:
    client = caller(simulator)
    tokens = simulator.live_tokens(simulator.open_id(account))
    assert tokens is not None
    return [client.token_info(tokens[0])["code"] for _ in range(times)]


def test_limits_are_off_in_process_by_default(simulator: Simulator) -> None:
    simulator.issue_grant()
    assert set(token_info_codes(simulator, 50)) == {0}


def test_forty_calls_a_minute_for_one_account_and_endpoint() -> None:
    simulator = frozen(rate_limits=True)
    grant = simulator.issue_grant()
    simulator.issue_grant("lena.draws")
    assert token_info_codes(simulator, 41) == [0] * 40 + [40100]
    assert token_info_codes(simulator, 1, "lena.draws") == [0]
    profile = caller(simulator).profile(grant["access_token"], business_id=grant["open_id"])
    assert profile["code"] == 0
    simulator.clock.advance(60)
    assert token_info_codes(simulator, 1) == [0]


def test_refused_refresh_keeps_the_pair() -> None:
    simulator = frozen(rate_limits=True, strict=True, account_calls_per_minute=1)
    client = caller(simulator)
    first = client.refresh(simulator.issue_grant()["refresh_token"])["data"]
    refused = client.refresh(first["refresh_token"])
    assert refused["code"] == 40100
    assert refused["message"] == (
        "Due to too many requests, requests from App are temporarily restricted."
    )
    assert simulator.live_tokens(first["open_id"]) == (
        first["access_token"],
        first["refresh_token"],
    )


def test_app_wide_limit_counts_the_oauth_calls_too() -> None:
    simulator = frozen(rate_limits=True, app_calls_per_minute=3)
    client = caller(simulator)
    codes = [client.exchange("SIMcode_unknown*0!1.e1")["code"] for _ in range(4)]
    assert codes == [40131, 40131, 40131, 40100]


def test_strict_profile_blocks_for_five_minutes() -> None:
    simulator = frozen(rate_limits=True, strict=True)
    simulator.issue_grant()
    assert token_info_codes(simulator, 41)[-1] == 40100
    simulator.clock.advance(299)
    assert token_info_codes(simulator, 1) == [40100]
    simulator.clock.advance(1)
    assert token_info_codes(simulator, 1) == [0]


# The log


def test_log_holds_what_happened_and_no_secret(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    simulator.authorize(authorize_url())
    client.profile(grant["access_token"], business_id=grant["open_id"])
    client.refresh(grant["refresh_token"])
    client.session.get("https://x.example/favicon.ico")
    seen = [(call.method, call.path, call.code, call.status) for call in simulator.calls]
    assert seen == [
        ("GET", "/v2/auth/authorize", None, 302),
        ("GET", "/open_api/v1.3" + PROFILE, 0, 200),
        ("POST", "/open_api/v1.3/tt_user/oauth2/refresh_token/", 0, 200),
        ("GET", "/favicon.ico", None, 404),
    ]
    assert [call.open_id for call in simulator.calls] == [grant["open_id"]] * 3 + [None]
    assert {call.at for call in simulator.calls} == {NOW}
    assert simulator.count(PROFILE) == 1
    assert simulator.count("/oauth2/token/") == 0
    for text in ("act.", "rft.", "SIMcode", "simulator-app-secret", "state"):
        assert text not in repr(simulator.calls)


def test_calls_are_handed_on_as_they_happen() -> None:
    paths: list[str] = []
    simulator = frozen(on_call=lambda call: paths.append(call.path))
    simulator.session().get(API + PROFILE)
    assert paths == ["/open_api/v1.3" + PROFILE]


def test_latency_delays_api_answers_only() -> None:
    simulator = frozen(latency_seconds=0.05)
    session = simulator.session()
    assert session.get(API + PROFILE).elapsed.total_seconds() >= 0.05
    assert session.get(authorize_url()).elapsed.total_seconds() < 0.05
