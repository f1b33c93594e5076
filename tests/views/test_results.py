"""The pages for errors while connecting."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_tiktok_business.exceptions import (
    AccountOwnedByAnotherUserError,
    APIError,
    AppConfigurationError,
    AuthorizationCodeRejectedError,
    InvalidResponseError,
    ServerError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.views import results
from django_tiktok_business.views.results import Result
from tests.support.simulator import override_tiktok
from tests.support.visits import (
    TOKEN_CALL,
    assert_nothing_holds,
    rendered,
    text_of,
    value_in,
    visit,
)


def test_code_that_expired_at_tiktok_is_explained(
    ada: User, client: Client, simulator: Simulator
) -> None:
    back = visit(client, simulator)
    simulator.clock.advance(601)
    response = client.get(back)
    assert response.status_code == 400
    text = text_of(response)
    assert "TikTok did not accept its answer any more" in text
    assert "TikTok's code 40131" in text
    assert "Authorization code is expired" not in text
    assert not BusinessAccount.objects.exists()


@pytest.mark.parametrize(
    ("fault", "status", "title"),
    [
        ({"fault": "timeout_before"}, 503, "It did not work just now"),
        ({"fault": "timeout_after"}, 503, "It did not work just now"),
        ({"fault": "connection_refused"}, 503, "It did not work just now"),
        ({"fault": "http_429"}, 503, "It did not work just now"),
        ({"code": 40100}, 503, "It did not work just now"),
        ({"code": 50000}, 503, "It did not work just now"),
        ({"http_status": 502}, 503, "It did not work just now"),
        ({"fault": "html"}, 502, "TikTok's answer could not be understood"),
        ({"fault": "truncated"}, 502, "TikTok's answer could not be understood"),
        ({"fault": "null_data"}, 502, "TikTok's answer could not be understood"),
        (
            {"fault": "missing_field", "field": "access_token"},
            502,
            "TikTok's answer could not be understood",
        ),
        ({"code": 40113}, 502, "TikTok does not accept this site"),
        ({"code": 40002}, 502, "TikTok refused"),
        ({"code": 40110}, 400, "TikTok did not accept its answer any more"),
    ],
)
def test_f54_failing_exchange_shows_a_page_and_is_not_repeated(
    ada: User,
    client: Client,
    simulator: Simulator,
    fault: dict[str, Any],
    status: int,
    title: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    back = visit(client, simulator, "/settings/")
    simulator.fail_next(path=TOKEN_CALL, **fault)
    with override_tiktok(MAX_ATTEMPTS=3):
        response = client.get(back)
    assert response.status_code == status
    text = text_of(response)
    assert title in text
    assert "Simulated failure" not in text
    if "code" in fault:
        assert f"TikTok's code {fault['code']} TikTok's request id 20" in text
    assert simulator.count(TOKEN_CALL) == 1
    assert not BusinessAccount.objects.exists()
    assert "An account was not connected: " in caplog.text
    assert_nothing_holds(
        [value_in(back, "code"), value_in(back, "state")], rendered(response), caplog.text
    )
    assert client.get(back).status_code == 409
    assert simulator.count(TOKEN_CALL) == 1


def test_request_id_is_escaped(ada: User, client: Client, simulator: Simulator) -> None:
    back = visit(client, simulator)
    simulator.fail_next(code=40131, message="<b>no</b>", path=TOKEN_CALL)
    page = client.get(back).content.decode()
    assert "<b>no" not in page


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (AuthorizationCodeRejectedError("No."), results.CODE_REJECTED),
        (AccountOwnedByAnotherUserError("No."), results.OWNED_BY_ANOTHER),
        (InvalidResponseError("No."), results.INVALID_RESPONSE),
        (ServerError("No."), results.TRY_LATER),
        (AppConfigurationError("No."), results.SITE_REFUSED),
        (APIError("No."), results.REFUSED),
        (TikTokBusinessError("No."), results.REFUSED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_has_the_result_of_its_type(error: TikTokBusinessError, result: Result) -> None:
    assert results.from_error(error) is result
