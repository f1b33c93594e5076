"""The error that each of TikTok's codes becomes."""

from __future__ import annotations

import pytest

from django_tiktok_business.api.errors import CODE_EXCHANGE_ERRORS, REFRESH_ERRORS
from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    APIError,
    AppConfigurationError,
    AppCredentialsRejectedError,
    AuthorizationCodeRejectedError,
    PermissionDeniedError,
    RateLimitError,
    ReauthorizationRequired,
    ServerError,
)
from tests.support.envelopes import REQUEST_ID, error_of, refusal

EVERYWHERE: dict[type[APIError], list[int]] = {
    APIError: [
        *(1, 20000, 20002, 40000, 40002, 40003, 40007, 40050, 40064, 40103, 40106, 40107, 40109),
        *(40110, 40112, 40115, 40120, 40200, 40201, 40700, 40900, 40901, 40907, 40908, 40916),
        *(49999, 54000, 60000, 99999, -1, 2**63 - 1),
    ],
    PermissionDeniedError: [40001, 40130],
    AccessTokenRejectedError: [40102, 40105, 40131],
    AppConfigurationError: [
        *(40006, 40008, 40010, 40051, 40104, 40108, 40116, 40117, 40118, 40400),
        *(41000, 41001, 41002),
    ],
    AppCredentialsRejectedError: [40101, 40113, 40124, 40125],
    RateLimitError: [40016, 40100, 40132, 40133, 61000],
    ServerError: [
        *(40202, 40902, 40903, 40913, 50000, 50002, 51000, 51010, 51030, 51039, 51065, 51099),
        *(51305, 52000, 52999, 53000, 53999, 60001),
    ],
}

AT_CODE_EXCHANGE = {AuthorizationCodeRejectedError: [40110, 40115, 40120, 40131]}

AT_REFRESH: dict[type[APIError], list[int]] = {
    ReauthorizationRequired: [40103, 40107, 40131],
    APIError: [40102, 40105, 40106],  # these say nothing about the refresh token
    AppCredentialsRejectedError: [40101, 40113, 40124, 40125],
    RateLimitError: [40100],
    ServerError: [50000],
}


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in EVERYWHERE.items() for code in codes]
)
def test_f6_each_code_becomes_its_error_although_http_says_200(
    code: int, kind: type[APIError]
) -> None:
    error = error_of(refusal(code, "TikTok's words."))
    assert type(error) is kind
    assert (error.code, error.message) == (code, "TikTok's words.")
    assert (error.request_id, error.http_status) == (REQUEST_ID, 200)
    assert str(error) == f"TikTok's words. (code {code}, request id {REQUEST_ID})"
    assert error.remedy


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in AT_CODE_EXCHANGE.items() for code in codes]
)
def test_code_at_the_code_exchange_restarts_the_browser_flow(
    code: int, kind: type[APIError]
) -> None:
    assert type(error_of(refusal(code), CODE_EXCHANGE_ERRORS)) is kind


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in AT_REFRESH.items() for code in codes]
)
def test_f7_only_known_codes_at_a_refresh_require_reauthorization(
    code: int, kind: type[APIError]
) -> None:
    assert type(error_of(refusal(code), REFRESH_ERRORS)) is kind


def test_f7_no_other_code_requires_reauthorization() -> None:
    kinds = {
        code
        for code in range(39_990, 62_000)
        if isinstance(refusal(code).error(REFRESH_ERRORS), ReauthorizationRequired)
    }
    assert kinds == {40103, 40107, 40131}
