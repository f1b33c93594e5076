"""What to do about an error: texts for people, which pages show, and texts for developers."""

from __future__ import annotations

import pytest
from django.utils import translation
from django.utils.functional import Promise

from django_tiktok_business import exceptions
from django_tiktok_business.exceptions import (
    AppConfigurationError,
    AppCredentialsRejectedError,
    ConfigurationError,
    ConnectionNotMadeError,
    DecryptionError,
    PermissionDeniedError,
    RateLimitError,
    ReauthorizationRequired,
    RetryableError,
)

CLASSES: list[type[Exception]] = [getattr(exceptions, name) for name in exceptions.__all__]


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_class_has_a_remedy(error_class: type[Exception]) -> None:
    assert str(getattr(error_class, "remedy", "")).endswith(".")


def test_pages_show_the_remedies_for_people_and_no_others() -> None:
    shown = {
        error_class
        for error_class in CLASSES
        if isinstance(getattr(error_class, "remedy", None), Promise)
    }
    assert shown == {
        *(ConfigurationError, AppConfigurationError, AppCredentialsRejectedError),
        *(DecryptionError, PermissionDeniedError, ReauthorizationRequired),
        *(each for each in CLASSES if issubclass(each, RetryableError)),
    }


def test_remedy_is_in_the_language_of_the_reader() -> None:
    with translation.override("de"):
        assert str(RetryableError.remedy) != "Nothing is lost: try again later."
    with translation.override("en"):
        assert str(RetryableError.remedy) == "Nothing is lost: try again later."


def test_temporary_api_error_has_the_remedy_of_temporary_errors() -> None:
    assert RateLimitError.remedy == ConnectionNotMadeError.remedy == RetryableError.remedy
