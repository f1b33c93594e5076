"""The OAuth endpoints on the simulator, and the grants that odd answers become."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.envelope import is_token
from django_tiktok_business.api.oauth import OAuth, TokenGrant, TokenInfo, read_grant
from django_tiktok_business.exceptions import (
    AppCredentialsRejectedError,
    AuthorizationCodeRejectedError,
    InvalidResponseError,
    ReauthorizationRequired,
)
from django_tiktok_business.simulator import Simulator
from tests.support.clients import ACCESS_TOKEN, REFRESH_TOKEN, no_limiter
from tests.support.envelopes import NO_TOKENS, answer_with
from tests.support.simulator_calls import (
    API,
    APP_ID,
    REDIRECT_URI,
    REFRESH,
    REVOKE,
    TOKEN,
    TOKEN_INFO,
    authorize_url,
    query_of,
)

# The endpoints


def code_from(simulator: Simulator) -> str:
    return query_of(simulator.authorize(authorize_url()))["code"]


def test_exchange_gives_a_grant_counted_from_before_the_call(
    simulator: Simulator, client: TikTokClient
) -> None:
    before = datetime.now(UTC)
    grant = OAuth(client).exchange_code(code_from(simulator), redirect_uri=REDIRECT_URI)
    after = datetime.now(UTC)
    assert (grant.access_token, grant.refresh_token) == simulator.live_tokens(str(grant.open_id))
    assert grant.open_id == simulator.open_id("harbour_bakery")
    assert grant.scopes == ["user.info.basic", "user.info.stats", "user.info.username"]
    assert grant.access_token_expires_at is not None
    assert grant.refresh_token_expires_at is not None
    assert before <= grant.access_token_expires_at - timedelta(days=1) <= after
    assert before <= grant.refresh_token_expires_at - timedelta(days=365) <= after


@pytest.mark.parametrize("code", [40110, 40115, 40120, 40131])
def test_refused_authorization_code_restarts_the_flow(
    simulator: Simulator, client: TikTokClient, code: int
) -> None:
    simulator.fail_next(code=code, path=TOKEN)
    with pytest.raises(AuthorizationCodeRejectedError):
        OAuth(client).exchange_code("SIMcode", redirect_uri=REDIRECT_URI)


def test_used_authorization_code_restarts_the_flow(
    simulator: Simulator, client: TikTokClient
) -> None:
    code = code_from(simulator)
    OAuth(client).exchange_code(code, redirect_uri=REDIRECT_URI)
    with pytest.raises(AuthorizationCodeRejectedError) as caught:
        OAuth(client).exchange_code(code, redirect_uri=REDIRECT_URI)
    assert caught.value.code == 40131
    assert caught.value.request_id


@pytest.mark.parametrize("field", ["access_token", "refresh_token", "open_id"])
@pytest.mark.parametrize("fault", ["missing_field", "empty_field"])
def test_f4_exchange_without_a_needed_field_is_refused(
    simulator: Simulator, client: TikTokClient, fault: str, field: str
) -> None:
    simulator.fail_next(fault, field=field, path=TOKEN)
    with pytest.raises(InvalidResponseError, match=f"has no {field}"):
        OAuth(client).exchange_code(code_from(simulator), redirect_uri=REDIRECT_URI)


def test_refresh_gives_the_rotated_pair(simulator: Simulator, client: TikTokClient) -> None:
    simulator.configure(rotate="always")
    old = simulator.issue_grant()
    grant = OAuth(client).refresh(old["refresh_token"])
    assert (grant.access_token, grant.refresh_token) == simulator.live_tokens(old["open_id"])
    assert grant.refresh_token != old["refresh_token"]


@pytest.mark.parametrize("bad_refresh_code", [40107, 40131])
def test_unknown_refresh_token_requires_reauthorization(
    simulator: Simulator, client: TikTokClient, bad_refresh_code: int
) -> None:
    simulator.configure(bad_refresh_code=bad_refresh_code)
    with pytest.raises(ReauthorizationRequired) as caught:
        OAuth(client).refresh("rft.nobody")
    assert caught.value.code == bad_refresh_code
    assert caught.value.http_status == 200


@pytest.mark.parametrize("wrong_secret_code", [40101, 40113])
def test_f9_wrong_app_secret_is_an_error_of_its_own_and_not_repeated(
    simulator: Simulator, wrong_secret_code: int
) -> None:
    simulator.configure(wrong_secret_code=wrong_secret_code)
    grant = simulator.issue_grant()
    client = TikTokClient(
        APP_ID,
        "wrong",
        base_url=API,
        limiter=no_limiter(),
        session_factory=simulator.session,
    )
    with pytest.raises(AppCredentialsRejectedError):
        OAuth(client).refresh(grant["refresh_token"])
    client.close()
    assert simulator.count(REFRESH) == 1


@pytest.mark.parametrize("field", ["refresh_token", "open_id", "scope", "expires_in"])
@pytest.mark.parametrize("fault", ["missing_field", "empty_field"])
def test_f4_refresh_without_an_optional_field_gives_the_rest(
    simulator: Simulator, client: TikTokClient, fault: str, field: str
) -> None:
    old = simulator.issue_grant()
    simulator.fail_next(fault, field=field, path=REFRESH)
    grant = OAuth(client).refresh(old["refresh_token"])
    names = {"scope": "scopes", "expires_in": "access_token_expires_at"}
    assert getattr(grant, names.get(field, field)) is None
    live = simulator.live_tokens(old["open_id"])
    assert live is not None
    assert grant.access_token == live[0]


def test_legacy_names_are_understood(simulator: Simulator, client: TikTokClient) -> None:
    simulator.fail_next("legacy_names", path=REFRESH)
    grant = OAuth(client).refresh(simulator.issue_grant()["refresh_token"])
    assert grant.open_id
    assert grant.access_token_expires_at
    assert grant.refresh_token_expires_at


def test_code_as_text_is_understood(simulator: Simulator, client: TikTokClient) -> None:
    simulator.fail_next("string_code", path=REFRESH)
    assert OAuth(client).refresh(simulator.issue_grant()["refresh_token"]).access_token


@pytest.mark.parametrize(
    ("fault", "details"),
    [
        ("null_data", {}),
        ("wrong_shape", {}),
        ("wrong_shape", {"shape": "document"}),
        ("truncated", {}),
        ("html", {}),
        ("empty", {}),
        ("missing_field", {"field": "access_token"}),
        ("empty_field", {"field": "access_token"}),
        ("altered_field", {"field": "access_token", "value": ["act.a"]}),
        ("altered_field", {"field": "refresh_token", "value": "rft\n.a"}),
        ("altered_field", {"field": "open_id", "value": "a b"}),
        ("http_status", {"http_status": 401, "body": "html"}),
        ("http_status", {"http_status": 403, "body": "empty"}),
    ],
)
def test_f6_refresh_answer_of_another_shape_is_invalid_and_not_repeated(
    simulator: Simulator, client: TikTokClient, fault: str, details: dict[str, Any]
) -> None:
    simulator.fail_next(fault, path=REFRESH, times=None, **details)
    with pytest.raises(InvalidResponseError, match="TikTok's answer cannot be used: "):
        OAuth(client).refresh(simulator.issue_grant()["refresh_token"])
    assert simulator.count(REFRESH) == 1


def test_token_info_returns_app_account_and_scopes(
    simulator: Simulator, client: TikTokClient
) -> None:
    grant = simulator.issue_grant(scopes=["video.list", "user.info.basic"])
    assert OAuth(client).token_info(grant["access_token"]) == TokenInfo(
        app_id=APP_ID, open_id=grant["open_id"], scopes=["user.info.basic", "video.list"]
    )


@pytest.mark.parametrize("field", ["creator_id", "scope"])
def test_token_info_without_a_needed_field_is_refused(
    simulator: Simulator, client: TikTokClient, field: str
) -> None:
    grant = simulator.issue_grant()
    simulator.fail_next("missing_field", field=field, path=TOKEN_INFO)
    with pytest.raises(InvalidResponseError, match="lacks creator_id or scope"):
        OAuth(client).token_info(grant["access_token"])


def test_revoke_ends_the_grant(simulator: Simulator, client: TikTokClient) -> None:
    grant = simulator.issue_grant()
    OAuth(client).revoke(grant["access_token"])
    assert simulator.live_tokens(grant["open_id"]) is None


@pytest.mark.parametrize("fault", ["null_data", "wrong_shape"])
def test_revoke_needs_no_data(simulator: Simulator, client: TikTokClient, fault: str) -> None:
    grant = simulator.issue_grant()
    simulator.fail_next(fault, path=REVOKE)
    OAuth(client).revoke(grant["access_token"])
    assert simulator.live_tokens(grant["open_id"]) is None


# Reading a grant


SENT_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)

ANSWER = {
    "access_token": ACCESS_TOKEN,
    "token_type": "Bearer",
    "scope": "video.list,user.info.basic",
    "expires_in": 86400,
    "refresh_token": REFRESH_TOKEN,
    "refresh_token_expires_in": 31536000,
    "open_id": "_000SIMopenIdAlpha",
}


def grant_with(**changes: Any) -> TokenGrant:
    return read_grant(answer_with({**ANSWER, **changes}), SENT_AT)


def test_grant_holds_tokens_instants_and_sorted_scopes() -> None:
    grant = grant_with()
    assert grant == TokenGrant(
        access_token=ACCESS_TOKEN,
        refresh_token=REFRESH_TOKEN,
        access_token_expires_at=SENT_AT + timedelta(days=1),
        refresh_token_expires_at=SENT_AT + timedelta(days=365),
        open_id="_000SIMopenIdAlpha",
        scopes=["user.info.basic", "video.list"],
    )


def test_f34_grant_does_not_show_its_tokens() -> None:
    grant = grant_with()
    assert ACCESS_TOKEN not in repr(grant)
    assert REFRESH_TOKEN not in repr(grant)
    assert repr(grant.access_token) == repr(grant.refresh_token) == "<secret>"
    assert ACCESS_TOKEN not in repr(answer_with(ANSWER))


def test_legacy_names_make_the_same_grant() -> None:
    legacy = {
        "access_token": ACCESS_TOKEN,
        "refresh_token": REFRESH_TOKEN,
        "creator_id": "_000SIMopenIdAlpha",
        "expires": 86400,
        "refresh_expires": "31536000",
        "scope": "video.list,user.info.basic",
    }
    assert read_grant(answer_with(legacy), SENT_AT) == grant_with()


def test_present_names_win_over_legacy_ones_unless_they_are_empty() -> None:
    legacy = {"creator_id": "_legacy", "expires": 60, "refresh_expires": 60}
    assert grant_with(**legacy) == grant_with()
    grant = grant_with(**legacy, open_id="", expires_in=None, refresh_token_expires_in=0)
    assert grant.open_id == "_legacy"
    assert grant.access_token_expires_at == SENT_AT + timedelta(seconds=60)
    assert grant.refresh_token_expires_at == SENT_AT + timedelta(seconds=60)


@pytest.mark.parametrize("missing", [None, ""])
@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("refresh_token", "refresh_token"),
        ("expires_in", "access_token_expires_at"),
        ("refresh_token_expires_in", "refresh_token_expires_at"),
        ("open_id", "open_id"),
        ("scope", "scopes"),
    ],
)
def test_f4_missing_or_empty_field_is_none_so_that_nothing_is_overwritten(
    name: str, attribute: str, missing: Any
) -> None:
    without = {key: value for key, value in ANSWER.items() if key != name}
    assert getattr(read_grant(answer_with(without), SENT_AT), attribute) is None
    assert getattr(grant_with(**{name: missing}), attribute) is None


@pytest.mark.parametrize("token", [None, ""])
def test_f5_grant_without_an_access_token_is_refused(token: Any) -> None:
    with pytest.raises(InvalidResponseError, match=r"used: it has no access_token\. \(request"):
        grant_with(access_token=token)


@pytest.mark.parametrize("token", NO_TOKENS)
@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
def test_f5_token_that_cannot_be_one_refuses_the_whole_grant(name: str, token: Any) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        grant_with(**{name: token})
    assert caught.value.message == f"TikTok's answer cannot be used: {name} is not a token."


@pytest.mark.parametrize("token", [ACCESS_TOKEN, "a", "~!*_-.,;", "x" * 100_000])
def test_any_printable_word_can_be_a_token(token: str) -> None:
    assert is_token(token)
    assert grant_with(access_token=token, refresh_token=token).refresh_token == token


@pytest.mark.parametrize("name", ["expires_in", "refresh_token_expires_in"])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [(60, 60), ("60", 60), (" 60 ", 60), (60.0, 60), (1, 1), (366 * 86400, 31622400)],
)
def test_lifetime_is_read_from_numbers_and_numerals(name: str, value: Any, seconds: int) -> None:
    grant = grant_with(**{name: value})
    attribute = "access_token_expires_at" if name == "expires_in" else "refresh_token_expires_at"
    assert getattr(grant, attribute) == SENT_AT + timedelta(seconds=seconds)


@pytest.mark.parametrize("name", ["expires_in", "refresh_token_expires_in"])
@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, "-1", "--1", "1 000", "1e3", "soon", True, False, 0.5, float("nan")),
        *(float("inf"), -float("inf"), 1e300, 10**12, 10**30, "9" * 19, "9" * 30, [], {}, [60]),
        31_536_000_000,  # a year of milliseconds
    ],
)
def test_f17_lifetime_that_makes_no_sense_is_unknown(name: str, value: Any) -> None:
    grant = grant_with(**{name: value})
    attribute = "access_token_expires_at" if name == "expires_in" else "refresh_token_expires_at"
    assert getattr(grant, attribute) is None


def test_f17_day_of_milliseconds_is_no_lifetime_of_an_access_token() -> None:
    assert grant_with(expires_in=86_400_000).access_token_expires_at is None
    assert grant_with(refresh_token_expires_in=86_400_000).refresh_token_expires_at is not None


@pytest.mark.parametrize("name", ["open_id", "creator_id"])
@pytest.mark.parametrize("value", ["a b", "a\nb", "a\0", "ä", "\ud800", "x" * 256])
def test_open_id_that_cannot_be_one_refuses_the_grant(name: str, value: str) -> None:
    with pytest.raises(InvalidResponseError, match=f"{name} is not an id"):
        grant_with(**{"open_id": None, name: value})
