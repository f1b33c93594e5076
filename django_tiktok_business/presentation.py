"""How accounts look to people: relative times, figures, picture, badge, and outcomes in words.

Texts are translated, and what TikTok says is escaped.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.contrib import messages
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from .exceptions import (
    APIError,
    AppConfigurationError,
    ConfigurationError,
    DecryptionError,
    PermissionDeniedError,
    ReauthorizationRequired,
    RetryableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from django.utils.safestring import SafeString

    from .models import BusinessAccount
    from .services import RefreshReport, RefreshResult

__all__ = [
    "explanation",
    "failure_in_words",
    "figure",
    "health_badge",
    "picture",
    "relative_time",
    "report_in_words",
    "scope_list",
    "time_element",
    "time_in_full",
]

# Up to which distance a unit is used, its length in seconds, its name. The names are those of
# Django's `timesince`, for their translations; `timesince` itself rounds down, so that a token
# that has just been renewed would expire "in 23 hours".
_UNITS = (
    (timedelta(minutes=90), 60, ngettext_lazy("%(num)d minute", "%(num)d minutes", "num")),
    (timedelta(hours=48), 3_600, ngettext_lazy("%(num)d hour", "%(num)d hours", "num")),
    (timedelta(days=60), 86_400, ngettext_lazy("%(num)d day", "%(num)d days", "num")),
    (timedelta.max, 2_629_746, ngettext_lazy("%(num)d month", "%(num)d months", "num")),
)

# What can be done, by the kind of error; the first that fits.
_ADVICE = (
    (ReauthorizationRequired, gettext_lazy("The account has to be connected again.")),
    (
        DecryptionError,
        gettext_lazy("Restore the missing encryption key, or connect the account again."),
    ),
    (
        PermissionDeniedError,
        gettext_lazy("Connect the account again and grant the missing permission."),
    ),
    (
        (AppConfigurationError, ConfigurationError),
        gettext_lazy("The configuration of the app has to be corrected."),
    ),
    (RetryableError, gettext_lazy("Nothing is lost: try again later.")),
)

# By the names of RefreshReport, and "not_tried" for what the report does not count.
_REFRESH_OUTCOMES = {
    "refreshed": (
        messages.SUCCESS,
        ngettext_lazy(
            "%(count)d account is refreshed.", "%(count)d accounts are refreshed.", "count"
        ),
    ),
    "retry_later": (
        messages.WARNING,
        ngettext_lazy(
            "%(count)d account could not be refreshed now. Nothing is lost: try again later.",
            "%(count)d accounts could not be refreshed now. Nothing is lost: try again later.",
            "count",
        ),
    ),
    "reauthorization_required": (
        messages.ERROR,
        ngettext_lazy(
            "%(count)d account has to be connected again.",
            "%(count)d accounts have to be connected again.",
            "count",
        ),
    ),
    "undecryptable": (
        messages.ERROR,
        ngettext_lazy(
            "The tokens of %(count)d account cannot be decrypted.",
            "The tokens of %(count)d accounts cannot be decrypted.",
            "count",
        ),
    ),
    "skipped": (
        messages.INFO,
        ngettext_lazy(
            "%(count)d account is being refreshed by somebody else.",
            "%(count)d accounts are being refreshed by somebody else.",
            "count",
        ),
    ),
    "not_tried": (
        messages.WARNING,
        ngettext_lazy(
            "%(count)d account was not tried: only active accounts of this app are refreshed.",
            "%(count)d accounts were not tried: only active accounts of this app are refreshed.",
            "count",
        ),
    ),
}
_STOPS = {
    "app_credentials_rejected": gettext_lazy(
        "Stopped early: TikTok refuses the app's credentials. Check APP_ID and APP_SECRET."
    ),
    "tiktok_unavailable": gettext_lazy("Stopped early: TikTok is not available."),
}


def relative_time(instant: datetime) -> str:
    """Say how far away an instant is: "in 5 hours", "2 days ago", "now"."""
    distance = instant - timezone.now()
    seconds, name = next(
        (seconds, name) for longest, seconds, name in _UNITS if abs(distance) <= longest
    )
    count = round(abs(distance).total_seconds() / seconds)
    if count == 0:
        return _("now")
    period = name % {"num": count}
    if distance > timedelta(0):
        return _("in %(period)s") % {"period": period}
    return _("%(period)s ago") % {"period": period}


def time_element(instant: datetime | None, *, unknown: str | None = None) -> str:
    """The relative time as HTML that gives the exact one on hovering."""
    if instant is None:
        return _("unknown") if unknown is None else unknown
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        instant.isoformat(),
        _exact_time(instant),
        relative_time(instant),
    )


def time_in_full(instant: datetime | None, *, unknown: str | None = None) -> str:
    """The relative and the exact time as HTML."""
    element = time_element(instant, unknown=unknown)
    if instant is None:
        return element
    return format_html('{} <span class="tiktok-exact">{}</span>', element, _exact_time(instant))


def _exact_time(instant: datetime) -> str:
    try:
        local = timezone.localtime(instant) if timezone.is_aware(instant) else instant
    except OverflowError:  # at the ends of the calendar, which may stand for "never" or "for ever"
        local = instant
    return f"{date_format(local, 'DATETIME_FORMAT')} {local.tzname() or ''}".rstrip()


def figure(value: int | None) -> str:
    """A count with its thousands set apart; "-" when TikTok has not told."""
    return "-" if value is None else number_format(value, use_l10n=True, force_grouping=True)


def picture(account: BusinessAccount) -> SafeString:
    """The initials, and over them the picture: its address may have ended or be forbidden."""
    letters = [next(filter(str.isalnum, word), "") for word in account.label.split()]
    image = (
        format_html('<img src="{}" alt="" loading="lazy" referrerpolicy="no-referrer">', url)
        if (url := account.picture_url)
        else ""
    )
    return format_html(
        '<span class="tiktok-picture" aria-hidden="true">{}{}</span>',
        "".join(letters)[:2].upper() or "?",
        image,
    )


def health_badge(account: BusinessAccount) -> SafeString:
    """What `BusinessAccount.health` says, in words and in a colour."""
    health = account.health
    return format_html('<span class="tiktok-badge tiktok-{}">{}</span>', health.value, health.label)


def scope_list(scopes: Iterable[str]) -> SafeString:
    """Scopes as an HTML list, "" when there are none."""
    items = format_html_join("", "<li><code>{}</code></li>", ((scope,) for scope in scopes))
    return format_html('<ul class="tiktok-scopes">{}</ul>', items) if items else items


def explanation(error: Exception) -> str:
    """What can be done about an error, and what TikTok said with its code and request id."""
    advice = next((advice for kind, advice in _ADVICE if isinstance(error, kind)), None)
    return f"{error} {advice}" if advice else str(error)


def report_in_words(report: RefreshReport, asked_for: int) -> list[tuple[int, str]]:
    """What became of a batch of ``asked_for`` accounts: levels and texts of messages."""
    counts = {
        outcome: getattr(report, outcome) for outcome in _REFRESH_OUTCOMES if outcome != "not_tried"
    }
    counts["not_tried"] = asked_for - sum(counts.values())
    words = [
        (_REFRESH_OUTCOMES[outcome][0], _REFRESH_OUTCOMES[outcome][1] % {"count": count})
        for outcome, count in counts.items()
        if count
    ]
    return [*words, (messages.ERROR, str(_STOPS[report.stopped]))] if report.stopped else words


def failure_in_words(failure: RefreshResult) -> str:
    """Which account of a batch failed and why, with TikTok's code and request id."""
    error = APIError(failure.message, code=failure.code, request_id=failure.request_id)
    return f"{failure.open_id}: {error}"
