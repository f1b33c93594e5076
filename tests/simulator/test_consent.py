from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
import requests

from django_tiktok_business.simulator import ConsentPageError, Simulator
from tests.support.simulator_calls import (
    BAKERY,
    REDIRECT_URI,
    SCOPES,
    YEAR,
    Caller,
    authorize_url,
    code_from,
    query_of,
)


def test_browser_goes_through_the_page_by_its_form(
    simulator: Simulator, address: str, http: requests.Session
) -> None:
    query = authorize_url().partition("?")[2]
    page = http.get(f"{address}/v2/auth/authorize/?{query}")
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    action = re.search(r'<form method="post" action="([^"]+)">', page.text)
    assert action is not None
    form = [
        *((name, value.replace("&amp;", "&")) for name, value in hidden.items()),
        ("account", "lena.draws"),
        ("granted", "user.info.basic"),
        ("decision", "approve"),
    ]
    answer = http.post(address + action[1], data=form, allow_redirects=False)
    assert answer.status_code == 302
    location = query_of(answer.headers["Location"])
    assert (location["state"], location["scopes"]) == ("x y&z", "user.info.basic")
    data = Caller(http, address + "/open_api/v1.3").exchange(location["code"])["data"]
    assert data["open_id"] == simulator.open_id("lena.draws")

    # The cookie says who is signed in: the account is chosen, and the next time the page skipped.
    again = http.get(f"{address}/v2/auth/authorize?{query}", allow_redirects=False)
    assert 'value="lena.draws" checked' in again.text
    narrow = authorize_url(scope="user.info.basic").partition("?")[2]
    skipped = http.get(f"{address}/v2/auth/authorize?{narrow}", allow_redirects=False)
    assert "code" in query_of(skipped.headers["Location"])
    style_sheet = re.search(r'<link rel="stylesheet" href="([^"]+)">', page.text)
    assert style_sheet is not None
    for path in (style_sheet[1], *re.findall(r'<img src="([^"]+)"', page.text)):
        assert http.get(address + path).status_code == 200


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


def test_scope_that_was_not_asked_for_cannot_be_granted(simulator: Simulator) -> None:
    with pytest.raises(ConsentPageError, match="does not fit"):
        simulator.authorize(authorize_url(), scopes=["video.list"])


def test_approving_nothing_shows_the_page_again(simulator: Simulator) -> None:
    with pytest.raises(ConsentPageError, match="Tick at least one permission"):
        simulator.authorize(authorize_url(), scopes=[])


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
