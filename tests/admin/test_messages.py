"""The messages about a batch of accounts."""

from __future__ import annotations

import pytest
from django.contrib import messages

from django_tiktok_business.admin.messages import (
    describe_failure,
    describe_report,
    describe_untried,
)
from django_tiktok_business.services import RefreshReport, RefreshResult


def test_report_counts_each_outcome_and_leaves_out_zeros() -> None:
    report = RefreshReport(refreshed=2, retry_later=1, skipped=1)
    assert describe_report(report, asked_for=5) == [
        (messages.SUCCESS, "2 accounts are refreshed."),
        (
            messages.WARNING,
            "1 account could not be refreshed now. Nothing is lost: try again later.",
        ),
        (messages.INFO, "1 account is being refreshed by somebody else."),
        (
            messages.WARNING,
            "1 account was not tried: only active accounts of this app are refreshed.",
        ),
    ]


def test_report_calls_permanent_failures_errors() -> None:
    report = RefreshReport(reauthorization_required=1, undecryptable=2)
    assert describe_report(report, asked_for=3) == [
        (messages.ERROR, "1 account has to be connected again."),
        (messages.ERROR, "The tokens of 2 accounts cannot be decrypted."),
    ]


@pytest.mark.parametrize(
    ("reason", "beginning"),
    [
        ("app_credentials_rejected", "Stopped early: TikTok refuses the app's credentials."),
        ("tiktok_unavailable", "Stopped early: TikTok is not available."),
        ("rate_limited", "Stopped early: TikTok goes on to refuse calls"),
        ("interrupted", "Stopped early: there was no time for more in one request."),
    ],
)
def test_report_of_a_stopped_batch_gives_the_reason_and_counts_the_untried(
    reason: str, beginning: str
) -> None:
    report = RefreshReport(refreshed=1, stopped=reason)
    refreshed, stopped, untried = describe_report(report, asked_for=3)
    assert refreshed == (messages.SUCCESS, "1 account is refreshed.")
    assert stopped[0] == messages.ERROR
    assert stopped[1].startswith(beginning)
    assert [untried] == describe_untried(2)


def test_untried_accounts_are_a_warning_and_none_are_no_message() -> None:
    text = "1 more account was not tried. Try it again in a while."
    assert describe_untried(1) == [(messages.WARNING, text)]
    assert describe_untried(0) == []


def test_failure_names_account_code_and_request_id() -> None:
    failure = RefreshResult(
        7, "_000Harbour", "retry_later", code=50000, message="Busy.", request_id="20261122AB"
    )
    text = describe_failure(failure)
    assert text.startswith("_000Harbour: Busy.")
    assert "50000" in text
    assert "20261122AB" in text
