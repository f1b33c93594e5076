"""The messages that the admin shows about a batch of accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from django.contrib import messages
from django.utils.translation import gettext_lazy, ngettext

from django_tiktok_business.exceptions import APIError

if TYPE_CHECKING:
    from django_tiktok_business.services import RefreshReport, RefreshResult


# By attribute of RefreshReport; "not_tried" is for accounts that the report does not count.
_COUNTS: dict[str, tuple[int, Callable[[int], str]]] = {
    "refreshed": (
        messages.SUCCESS,
        lambda count: ngettext(
            "%(count)d account is refreshed.", "%(count)d accounts are refreshed.", count
        ),
    ),
    "retry_later": (
        messages.WARNING,
        lambda count: ngettext(
            "%(count)d account could not be refreshed now. Nothing is lost: try again later.",
            "%(count)d accounts could not be refreshed now. Nothing is lost: try again later.",
            count,
        ),
    ),
    "reauthorization_required": (
        messages.ERROR,
        lambda count: ngettext(
            "%(count)d account has to be connected again.",
            "%(count)d accounts have to be connected again.",
            count,
        ),
    ),
    "undecryptable": (
        messages.ERROR,
        lambda count: ngettext(
            "The tokens of %(count)d account cannot be decrypted.",
            "The tokens of %(count)d accounts cannot be decrypted.",
            count,
        ),
    ),
    "skipped": (
        messages.INFO,
        lambda count: ngettext(
            "%(count)d account is being refreshed by somebody else.",
            "%(count)d accounts are being refreshed by somebody else.",
            count,
        ),
    ),
    "not_tried": (
        messages.WARNING,
        lambda count: ngettext(
            "%(count)d account was not tried: only active accounts of this app are refreshed.",
            "%(count)d accounts were not tried: only active accounts of this app are refreshed.",
            count,
        ),
    ),
}
_STOPS = {
    "app_credentials_rejected": gettext_lazy(
        "Stopped early: TikTok refuses the app's credentials. Check APP_ID and APP_SECRET."
    ),
    "tiktok_unavailable": gettext_lazy("Stopped early: TikTok is not available."),
    "rate_limited": gettext_lazy(
        "Stopped early: TikTok goes on to refuse calls because there were too many."
    ),
    "interrupted": gettext_lazy("Stopped early: there was no time for more in one request."),
}


def describe_report(report: RefreshReport, asked_for: int) -> list[tuple[int, str]]:
    """The levels and texts of the messages about a batch of ``asked_for`` accounts."""
    counts = {name: getattr(report, name) for name in _COUNTS if name != "not_tried"}
    left = asked_for - sum(counts.values())
    counts["not_tried"] = 0 if report.stopped else left
    described = [
        (level, text(count) % {"count": count})
        for name, (level, text) in _COUNTS.items()
        if (count := counts[name])
    ]
    if report.stopped:
        described.append((messages.ERROR, str(_STOPS[report.stopped])))
        described += describe_untried(left)
    return described


def describe_untried(count: int) -> list[tuple[int, str]]:
    """The message about accounts that were not tried because the batch ended early."""
    text = ngettext(
        "%(count)d more account was not tried. Try it again in a while.",
        "%(count)d more accounts were not tried. Try them again in a while.",
        count,
    )
    return [(messages.WARNING, text % {"count": count})] if count else []


def describe_failure(failure: RefreshResult) -> str:
    """The account that failed and why, with TikTok's code and request id."""
    error = APIError(failure.message, code=failure.code, request_id=failure.request_id)
    return f"{failure.open_id}: {error}"
