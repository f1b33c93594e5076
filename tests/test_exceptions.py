"""What callers can tell from an error."""

from __future__ import annotations

import pickle

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_tiktok_business import exceptions
from django_tiktok_business.exceptions import (
    APIError,
    ConfigurationError,
    InvalidResponseError,
    RateLimitError,
    RetryableError,
    ServerError,
    TikTokBusinessError,
)


@pytest.mark.parametrize("error_class", [RateLimitError, ServerError, InvalidResponseError])
def test_temporary_api_errors_are_retryable(error_class: type[APIError]) -> None:
    assert issubclass(error_class, RetryableError)
    assert issubclass(error_class, APIError)
    assert error_class.remedy == "Nothing is lost: try again later."


@pytest.mark.parametrize("name", sorted({*exceptions.__all__} - {"ConfigurationError"}))
def test_every_error_has_the_same_base(name: str) -> None:
    assert issubclass(getattr(exceptions, name), TikTokBusinessError)


def test_configuration_error_is_hidden_by_no_broad_except() -> None:
    assert issubclass(ConfigurationError, ImproperlyConfigured)
    assert not issubclass(ConfigurationError, TikTokBusinessError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (APIError("No."), "No."),
        (APIError("No.", code=0, http_status=200), "No. (code 0)"),
        (APIError("No.", code=40002, request_id="A1"), "No. (code 40002, request id A1)"),
        (
            APIError("No.", code=40002, request_id="A1", http_status=401),
            "No. (code 40002, HTTP 401, request id A1)",
        ),
        (ServerError("No.", http_status=502), "No. (HTTP 502)"),
    ],
)
def test_text_of_an_api_error_holds_what_tiktoks_support_asks_for(
    error: APIError, text: str
) -> None:
    assert str(error) == text
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), text, vars(error))
