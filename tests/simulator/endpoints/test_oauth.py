from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from django_tiktok_business.simulator import Clock, ConsentPageError, Simulator
from tests.support.simulator_calls import (
    API,
    APP_ID,
    APP_SECRET,
    NOW,
    REDIRECT_URI,
    REFRESH,
    REVOKE,
    SCOPES,
    TOKEN,
    TOKEN_INFO,
    Caller,
    authorize_url,
    caller,
    frozen,
    query_of,
)

DAY = 86_400
YEAR = 31_536_000
BAKERY = "harbour_bakery"


@pytest.fixture
def simulator() -> Simulator:
    return frozen()


@pytest.fixture
def client(simulator: Simulator) -> Caller:
    return caller(simulator)


def code_from(simulator: Simulator, **changes: Any) -> str:
    return query_of(simulator.authorize(authorize_url(), **changes))["code"]


# The consent page


def test_approval_redirects_with_code_scopes_and_state(simulator: Simulator) -> None:
    location = simulator.authorize(authorize_url())
    assert location.startswith(REDIRECT_URI + "?code=SIMcode_")
    assert "%2A0%21" in location
    answer = query_of(location)
    assert answer["scopes"] == SCOPES
    assert answer["state"] == "x y&z"
    assert re.fullmatch(r"SIMcode_[\w-]+\*0!\d+\.e1", answer["code"])


def test_approval_without_state_returns_none(simulator: Simulator) -> None:
    assert set(query_of(simulator.authorize(authorize_url(state=None)))) == {"code", "scopes"}


def test_both_spellings_of_the_page_work(simulator: Simulator) -> None:
    with_slash = authorize_url().replace("authorize?", "authorize/?")
    assert "code" in query_of(simulator.authorize(with_slash))


def test_partial_approval_grants_only_what_was_ticked(simulator: Simulator, client: Caller) -> None:
    location = simulator.authorize(authorize_url(), scopes=["user.info.basic"])
    assert query_of(location)["scopes"] == "user.info.basic"
    assert client.exchange(query_of(location)["code"])["data"]["scope"] == "user.info.basic"


def test_denial_redirects_with_an_error(simulator: Simulator) -> None:
    assert query_of(simulator.authorize(authorize_url(), approve=False)) == {
        "error": "access_denied",
        "error_code": "-2",
        "error_description": "User cancelled",
        "state": "x y&z",
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"client_key": "7999"}, "client_key: there is no such app."),
        ({"client_key": None}, "Missing parameter: client_key."),
        ({"scope": ""}, "Missing parameter: scope."),
        ({"scope": "user.info.basic,video.fly"}, "scope: the app is not approved for video.fly."),
        ({"scope": "user.info.basic, video.list"}, "scope: the app is not approved for  video.li"),
        ({"redirect_uri": REDIRECT_URI[:-1]}, "redirect_uri: not registered for this app."),
        ({"response_type": "token"}, "response_type: must be code."),
        ({"disable_auto_auth": "yes"}, "disable_auto_auth: must be 1 or be left out."),
        ({"code_challenge": "abc"}, "Unknown parameter: code_challenge."),
    ],
)
def test_wrong_request_shows_an_error_page(
    simulator: Simulator, changes: dict[str, str | None], text: str
) -> None:
    with pytest.raises(ConsentPageError) as caught:
        simulator.authorize(authorize_url(**changes))
    assert caught.value.page_text.startswith(text)
    response = simulator.session().get(authorize_url(**changes), allow_redirects=False)
    assert response.status_code == 400
    assert "Location" not in response.headers


def test_duplicated_parameter_shows_an_error_page(simulator: Simulator) -> None:
    with pytest.raises(ConsentPageError, match="The parameter state is there twice"):
        simulator.authorize(authorize_url() + "&state=again")


def test_wrong_address_of_the_page_is_no_consent(simulator: Simulator) -> None:
    with pytest.raises(ConsentPageError) as caught:
        simulator.authorize(authorize_url().replace("/v2/", "/v1/"))
    assert caught.value.page_text == "404 page not found"


def test_scope_that_was_not_asked_for_cannot_be_granted(simulator: Simulator) -> None:
    with pytest.raises(ConsentPageError, match="does not fit"):
        simulator.authorize(authorize_url(), scopes=["video.list"])


def test_approving_nothing_shows_the_page_again(simulator: Simulator) -> None:
    with pytest.raises(ConsentPageError, match="Tick at least one permission"):
        simulator.authorize(authorize_url(), scopes=[])


def test_page_offers_accounts_and_scopes_and_no_secret(simulator: Simulator) -> None:
    response = simulator.session().get(authorize_url())
    assert "TikTok simulator" in response.text
    assert response.text.count('type="radio"') == 6
    assert response.text.count('type="checkbox"') == 3
    assert "Tea &amp; Code &lt;b&gt;&quot;Club&quot;&lt;/b&gt;" in response.text
    assert 'name="state" value="x y&amp;z"' in response.text
    assert "<script" not in response.text
    assert "style=" not in response.text
    assert APP_SECRET not in response.text
    assert "form-action" not in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-store"


def test_page_needs_its_own_method(simulator: Simulator) -> None:
    session = simulator.session()
    assert session.post(authorize_url()).status_code == 405
    assert session.get("https://www.tiktok.com/_simulator/consent").status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"decision=approve",
        b"decision=approve&decision=deny",
        "decision=perhaps&account=harbour_bakery&granted=user.info.basic",
        "decision=approve&account=nobody&granted=user.info.basic",
        "decision=approve&granted=user.info.basic",
    ],
)
def test_decision_is_checked_again(simulator: Simulator, body: bytes | str) -> None:
    if isinstance(body, str):
        body = f"{urlsplit(authorize_url()).query}&{body}".encode()
    response = simulator.session().post(
        "https://www.tiktok.com/_simulator/consent", data=body, allow_redirects=False
    )
    assert response.status_code == 400
    assert "Location" not in response.headers


def test_earlier_grant_skips_the_page(simulator: Simulator) -> None:
    simulator.issue_grant(BAKERY)
    assert "code" in query_of(simulator.authorize(authorize_url(), approve=False))


@pytest.mark.parametrize("disabled", ["0", "1"])
def test_earlier_grant_skips_the_page_unless_disabled(simulator: Simulator, disabled: str) -> None:
    simulator.issue_grant(BAKERY)
    url = authorize_url(disable_auto_auth=disabled)
    answer = query_of(simulator.authorize(url, approve=False))
    assert ("error" in answer) == (disabled == "1")


def test_earlier_grant_of_fewer_scopes_does_not_skip_the_page(simulator: Simulator) -> None:
    simulator.issue_grant(BAKERY, ["user.info.basic"])
    assert "error" in query_of(simulator.authorize(authorize_url(), approve=False))


def test_ended_grant_does_not_skip_the_page(simulator: Simulator) -> None:
    simulator.issue_grant(BAKERY)
    simulator.clock.advance(YEAR)
    assert "error" in query_of(simulator.authorize(authorize_url(), approve=False))


def test_unreadable_cookie_means_signed_out(simulator: Simulator) -> None:
    simulator.issue_grant(BAKERY)
    headers = {"Cookie": f"a/b=c; simulator_account={BAKERY}"}
    response = simulator.session().get(authorize_url(), headers=headers)
    assert response.status_code == 200


def test_unknown_account_is_made_on_the_way(simulator: Simulator, client: Caller) -> None:
    code = code_from(simulator, account="somebody new")
    assert client.exchange(code)["data"]["open_id"] == simulator.open_id("somebody new")


# Redirect URLs


@pytest.mark.parametrize(
    ("redirect_uri", "problem"),
    [
        ("https://h.example/callback", "end with a slash"),
        ("/auth/callback/", "be an absolute https URL"),
        ("https://h.example/?id=1/", "have no query parameters"),
        ("https://h.example/#1/", "have no fragment"),
        ("http://h.example/callback/", "be an absolute https URL"),
        ("https://h.example:3000/callback/", "have no port"),
        ("https://h.example/caf\u00e9/", "be plain ASCII"),
        ("https://h.example/" + "x" * 500 + "/", "be 10 to 512 characters long"),
    ],
)
def test_redirect_url_that_the_portal_refuses(redirect_uri: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Simulator(redirect_uris=[redirect_uri])


def test_local_redirect_url_is_an_exception_that_can_be_switched_off() -> None:
    local = ["http://127.0.0.1:8000/tiktok/callback/", "http://localhost/tiktok/"]
    assert Simulator(redirect_uris=local).summary()["apps"][0]["redirect_uris"] == tuple(local)
    with pytest.raises(ValueError, match="be an absolute https URL, have no port"):
        Simulator(redirect_uris=local, strict_redirects=True)


@pytest.mark.parametrize("number", [0, 11])
def test_app_has_one_to_ten_redirect_urls(number: int) -> None:
    with pytest.raises(ValueError, match="1 to 10 redirect URIs"):
        Simulator(redirect_uris=[f"https://h.example/{n}/" for n in range(number)])


# Codes and the token call


def test_code_becomes_a_grant_of_the_documented_shape(simulator: Simulator, client: Caller) -> None:
    answer = client.exchange(code_from(simulator))
    data = answer.pop("data")
    assert re.fullmatch(r"20261122100000[0-9A-F]{20}", answer.pop("request_id"))
    assert answer == {"code": 0, "message": "OK"}
    assert re.fullmatch(r"act\.SIM[\w-]+!\d+\.e1", data.pop("access_token"))
    assert re.fullmatch(r"rft\.SIM[\w-]+!\d+\.e1", data.pop("refresh_token"))
    assert sorted(data.pop("scope").split(",")) == sorted(SCOPES.split(","))
    assert data == {
        "token_type": "Bearer",
        "expires_in": DAY,
        "refresh_token_expires_in": YEAR,
        "open_id": simulator.open_id(BAKERY),
    }


def test_open_id_is_stable_and_belongs_to_one_app(simulator: Simulator) -> None:
    open_id = simulator.open_id(BAKERY)
    assert re.fullmatch(r"_000SIM[\w-]{29}", open_id)
    assert open_id == Simulator().open_id(BAKERY)
    assert open_id != simulator.open_id(BAKERY, app_id="7000000000000000002")


def test_code_works_once(simulator: Simulator, client: Caller) -> None:
    code = code_from(simulator)
    assert client.exchange(code)["code"] == 0
    second = client.exchange(code)
    assert (second["code"], second["message"]) == (40131, "Authorization code is expired.")
    assert second["data"] == {}


def test_code_lives_ten_minutes(simulator: Simulator, client: Caller) -> None:
    early, late = code_from(simulator), code_from(simulator)
    simulator.clock.advance(599)
    assert client.exchange(early)["code"] == 0
    simulator.clock.advance(1)
    assert client.exchange(late)["code"] == 40131


def test_code_that_is_still_encoded_is_refused(simulator: Simulator, client: Caller) -> None:
    code = code_from(simulator)
    assert client.exchange(code.replace("*", "%2A").replace("!", "%21"))["code"] == 40131


def test_code_belongs_to_its_app(simulator: Simulator, client: Caller) -> None:
    simulator.add_app("7000000000000000002", "other-secret", redirect_uris=[REDIRECT_URI])
    other = {"client_id": "7000000000000000002", "client_secret": "other-secret"}
    assert client.exchange(code_from(simulator), **other)["code"] == 40131


def test_code_with_another_redirect_uri_is_refused_and_still_good(
    simulator: Simulator, client: Caller
) -> None:
    code = code_from(simulator)
    refused = client.exchange(code, redirect_uri="https://testserver.example/other/")
    assert refused["code"] == 40002
    assert "redirect_uri" in refused["message"]
    simulator.configure(wrong_redirect_uri_code=40131)
    assert client.exchange(code, redirect_uri="https://other.example/")["code"] == 40131
    assert client.exchange(code)["code"] == 0


def test_wrong_secret_is_refused_by_either_code(simulator: Simulator, client: Caller) -> None:
    code = code_from(simulator)
    assert client.exchange(code, client_secret="wrong")["code"] == 40113
    assert client.exchange(code, client_id="7999")["code"] == 40113
    simulator.configure(wrong_secret_code=40101)
    refused = client.exchange(code, client_secret="wrong")
    assert refused["code"] == 40101
    assert APP_SECRET not in str(refused)


@pytest.mark.parametrize("name", ["client_id", "client_secret", "auth_code", "redirect_uri"])
@pytest.mark.parametrize("value", ["", None])
def test_missing_field_is_named(
    simulator: Simulator, client: Caller, name: str, value: str | None
) -> None:
    refused = client.exchange(code_from(simulator), **{name: value})
    assert (refused["code"], refused["message"]) == (40002, f"Missing required field(s): {name}.")


def test_unknown_and_odd_fields_are_named(client: Caller) -> None:
    assert client.exchange("x", scope="a")["message"] == "Unknown field(s): scope."
    assert client.exchange("x", client_id=7)["message"] == "Must be a string: client_id."
    assert client.exchange("x", grant_type="refresh_token")["code"] == 40108
    assert client.refresh("x", grant_type="authorization_code")["code"] == 40108


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"{}", "application/x-www-form-urlencoded", "Content-Type must be application/json."),
        (b"{", "application/json", "The body is not valid JSON."),
        (b"\xff", "application/json; charset=utf-8", "The body is not valid JSON."),
        (b"[]", "application/json", "The body is not a JSON object."),
    ],
)
def test_body_that_is_no_json_object(
    client: Caller, body: bytes, content_type: str, message: str
) -> None:
    response = client.session.post(API + TOKEN, data=body, headers={"Content-Type": content_type})
    assert response.status_code == 200
    assert response.json()["code"] == 40002
    assert response.json()["message"] == message


@pytest.mark.parametrize("path", [TOKEN, REFRESH, REVOKE, TOKEN_INFO])
def test_wrong_method_and_missing_slash_are_not_json(client: Caller, path: str) -> None:
    wrong_method = client.session.get(API + path)
    assert wrong_method.status_code == 405
    no_slash = client.session.post(API + path[:-1], json={})
    assert (no_slash.status_code, no_slash.text) == (404, "404 page not found")
    for response in (wrong_method, no_slash):
        assert response.headers["Content-Type"].startswith("text/plain")
        with pytest.raises(requests.JSONDecodeError):
            response.json()


# Refresh


def test_refresh_counts_down_from_the_consent(simulator: Simulator, client: Caller) -> None:
    first = simulator.issue_grant(BAKERY)
    simulator.clock.advance(7_200)
    second = client.refresh(first["refresh_token"])["data"]
    assert second["refresh_token"] == first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert second["expires_in"] == DAY
    assert second["refresh_token_expires_in"] == YEAR - 7_200
    assert second["open_id"] == first["open_id"]
    assert second["scope"] != first["scope"]
    assert sorted(second["scope"].split(",")) == sorted(first["scope"].split(","))


def test_refresh_ignores_a_redirect_uri(simulator: Simulator, client: Caller) -> None:
    token = simulator.issue_grant()["refresh_token"]
    assert client.refresh(token, redirect_uri=REDIRECT_URI)["code"] == 0


def test_refresh_never_extends_the_year(simulator: Simulator, client: Caller) -> None:
    simulator.configure(rotate="always")
    token = simulator.issue_grant()["refresh_token"]
    simulator.clock.advance(YEAR - 1)
    answer = client.refresh(token)["data"]
    assert answer["refresh_token_expires_in"] == 1
    simulator.clock.advance(1)
    expired = client.refresh(answer["refresh_token"])
    assert (expired["code"], expired["message"]) == (40103, "The refresh token has expired.")
    simulator.configure(expired_refresh_code=40131)
    assert client.refresh(token)["code"] == 40131


def test_new_consent_starts_a_new_year(simulator: Simulator, client: Caller) -> None:
    first = simulator.issue_grant()
    simulator.clock.advance(1_000)
    again = client.exchange(code_from(simulator))["data"]
    assert again["refresh_token_expires_in"] == YEAR
    assert again["refresh_token"] != first["refresh_token"]
    assert simulator.live_tokens(again["open_id"]) == (
        again["access_token"],
        again["refresh_token"],
    )
    assert client.refresh(first["refresh_token"])["data"]["refresh_token_expires_in"] == YEAR - 1000


def test_bad_refresh_token(simulator: Simulator, client: Caller) -> None:
    assert client.refresh("rft.SIMunknown!1.e1")["code"] == 40107
    assert client.refresh(simulator.issue_grant()["access_token"])["code"] == 40107
    simulator.configure(bad_refresh_code=40131)
    assert client.refresh("rft.SIMunknown!1.e1")["code"] == 40131


def test_refresh_token_of_another_app_is_refused(simulator: Simulator, client: Caller) -> None:
    simulator.add_app("7000000000000000002", "other-secret", redirect_uris=[REDIRECT_URI])
    foreign = simulator.issue_grant(app_id="7000000000000000002")
    assert client.refresh(foreign["refresh_token"])["code"] == 40107
    assert client.token_info(foreign["access_token"])["code"] == 40105


@pytest.mark.parametrize(("mode", "code"), [("yes", 0), ("no", 40107)])
def test_rotated_refresh_token_lives_as_the_mode_says(
    simulator: Simulator, client: Caller, mode: str, code: int
) -> None:
    simulator.configure(rotate="always", old_refresh_valid=mode)
    old = simulator.issue_grant()["refresh_token"]
    new = client.refresh(old)["data"]["refresh_token"]
    assert new != old
    assert client.refresh(old)["code"] == code


def test_rotated_refresh_token_lives_until_its_successor_is_used(
    simulator: Simulator, client: Caller
) -> None:
    simulator.configure(rotate="always", old_refresh_valid="until_successor_used")
    old = simulator.issue_grant()["refresh_token"]
    lost = client.refresh(old)["data"]["refresh_token"]
    new = client.refresh(old)["data"]["refresh_token"]
    assert new not in (old, lost)
    assert client.refresh(new)["code"] == 0
    assert client.refresh(old)["code"] == 40107


@pytest.mark.parametrize(("mode", "code"), [("yes", 0), ("no", 40105)])
def test_access_token_of_before_the_refresh_lives_as_the_mode_says(
    simulator: Simulator, client: Caller, mode: str, code: int
) -> None:
    simulator.configure(old_access_valid=mode)
    first = simulator.issue_grant()
    second = client.refresh(first["refresh_token"])["data"]
    assert client.token_info(first["access_token"])["code"] == code
    assert client.token_info(second["access_token"])["code"] == 0


def test_strict_profile_kills_and_rotates_everything() -> None:
    simulator = frozen(strict=True)
    client = caller(simulator)
    first = simulator.issue_grant()
    second = client.refresh(first["refresh_token"])["data"]
    assert second["refresh_token"] != first["refresh_token"]
    assert client.refresh(first["refresh_token"])["code"] == 40107
    assert client.token_info(first["access_token"])["code"] == 40105
    assert client.exchange("SIMcode_unknown*0!1.e1")["code"] == 40110
    assert simulator.summary()["settings"]["rate_penalty_seconds"] == 300


def test_settings_given_explicitly_win_over_strict() -> None:
    simulator = frozen(strict=True, rotate="never")
    token = simulator.issue_grant()["refresh_token"]
    assert caller(simulator).refresh(token)["data"]["refresh_token"] == token


def test_access_token_lifetime_can_be_set(simulator: Simulator, client: Caller) -> None:
    simulator.configure(access_token_lifetime_seconds=60)
    token = client.refresh(simulator.issue_grant()["refresh_token"])["data"]
    assert token["expires_in"] == 60
    simulator.clock.advance(59)
    assert client.token_info(token["access_token"])["code"] == 0
    simulator.clock.advance(1)
    expired = client.token_info(token["access_token"])
    assert (expired["code"], expired["message"]) == (40102, "Access token has expired.")
    simulator.configure(expired_access_code=40105)
    assert client.token_info(token["access_token"])["code"] == 40105


# Revoke and inspect


def test_revoke_ends_the_whole_grant(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    other = simulator.issue_grant("lena.draws")
    pending, foreign = code_from(simulator), code_from(simulator, account="lena.draws")
    answer = client.revoke(grant["access_token"])
    assert (answer["code"], answer["data"]) == (0, {})
    assert client.token_info(grant["access_token"])["code"] == 40105
    assert client.refresh(grant["refresh_token"])["code"] == 40107
    assert client.revoke(grant["access_token"])["code"] == 40105
    assert client.exchange(pending)["code"] == 40131
    assert simulator.live_tokens(grant["open_id"]) is None
    assert client.refresh(other["refresh_token"])["code"] == 0
    assert client.exchange(foreign)["code"] == 0


def test_revoke_with_an_expired_access_token_is_refused(
    simulator: Simulator, client: Caller
) -> None:
    grant = simulator.issue_grant()
    simulator.clock.advance(DAY)
    assert client.revoke(grant["access_token"])["code"] == 40102
    assert client.refresh(grant["refresh_token"])["code"] == 0


def test_account_holder_revokes(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant()
    assert simulator.revoke_grant(grant["open_id"]) is True
    assert simulator.revoke_grant(grant["open_id"]) is False
    assert client.refresh(grant["refresh_token"])["code"] == 40107


def test_token_info_tells_account_and_scopes(simulator: Simulator, client: Caller) -> None:
    grant = simulator.issue_grant(BAKERY, SCOPES.split(","))
    first, second = (client.token_info(grant["access_token"])["data"] for _ in range(2))
    assert first["app_id"] == APP_ID
    assert first["creator_id"] == grant["open_id"]
    assert sorted(first["scope"].split(",")) == sorted(SCOPES.split(","))
    assert first["scope"] != second["scope"]


def test_token_info_of_an_unknown_app_is_refused(simulator: Simulator, client: Caller) -> None:
    assert (
        client.token_info(simulator.issue_grant()["access_token"], app_id="7999")["code"] == 40113
    )


@pytest.mark.parametrize("scopes", [[], ["video.fly"]])
def test_grant_of_impossible_scopes_cannot_be_made(simulator: Simulator, scopes: list[str]) -> None:
    with pytest.raises(ValueError, match="some of the app's"):
        simulator.issue_grant(scopes=scopes)


def test_clock_runs_with_real_time_by_default() -> None:
    clock = Clock()
    before = clock.now()
    clock.advance(100)
    assert 100 <= clock.now() - before < 200
    clock.set(NOW)
    assert NOW <= clock.now() < NOW + 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotate", "sometimes"),
        ("rate_limits", 1),
        ("wrong_secret_code", 40000),
        ("access_token_lifetime_seconds", 0),
        ("access_token_lifetime_seconds", 1.5),
        ("access_token_lifetime_seconds", True),
        ("latency_seconds", float("nan")),
        ("image_base_url", "ftp://x"),
        ("rotation", "always"),
    ],
)
def test_wrong_setting_is_named_and_nothing_changes(
    simulator: Simulator, name: str, value: Any
) -> None:
    before = simulator.summary()["settings"]
    with pytest.raises(ValueError, match=name):
        simulator.configure(code_lifetime_seconds=1, **{name: value})
    assert simulator.summary()["settings"] == before
