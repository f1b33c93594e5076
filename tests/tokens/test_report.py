"""What a batch reports about one account, and counts as a whole."""

from __future__ import annotations

import pytest

from django_tiktok_business.exceptions import (
    APIError,
    DecryptionError,
    ReauthorizationRequired,
    RetryableError,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.tokens.report import RefreshReport, RefreshResult

ACCOUNT = BusinessAccount(pk=7, open_id="an open id")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "refreshed"),
        (RetryableError("later"), "retry_later"),
        (DecryptionError("no key"), "undecryptable"),
        (ReauthorizationRequired("rejected"), "reauthorization_required"),
    ],
)
def test_error_gives_the_outcome(error: TikTokBusinessError | None, outcome: str) -> None:
    message = "" if error is None else str(error)
    expected = RefreshResult(7, "an open id", outcome, message=message)
    assert RefreshResult.of(ACCOUNT, error) == expected


def test_error_of_tiktok_gives_code_message_and_request_id() -> None:
    error = APIError("Not today.", code=50000, request_id="2026", http_status=200)
    assert RefreshResult.of(ACCOUNT, error) == RefreshResult(
        7, "an open id", "retry_later", 50000, "Not today.", "2026"
    )


def test_results_are_counted_and_failures_kept() -> None:
    report = RefreshReport()
    for outcome in ("refreshed", "refreshed", "skipped"):
        report.add(RefreshResult(1, "one", outcome))
    assert (report.refreshed, report.skipped, report.failures) == (2, 1, [])
    assert report.all_refreshed
    failure = RefreshResult(2, "two", "undecryptable")
    report.add(failure)
    assert (report.undecryptable, report.failures) == (1, [failure])
    assert not report.all_refreshed


@pytest.mark.parametrize("changes", [{"stopped": "interrupted"}, {"backing_off": 1}])
def test_run_that_left_accounts_out_has_not_refreshed_all(changes: dict[str, object]) -> None:
    report = RefreshReport(**changes)  # type: ignore[arg-type]
    assert not report.all_refreshed
