"""How accounts appear to people: relative times, numbers, picture, badge and advice.

Texts are translated, and text from TikTok is escaped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .models import BusinessAccount, Health

__all__ = [
    "advice",
    "explanation",
    "format_count",
    "health_badge",
    "picture",
    "relative_time",
    "time_element",
    "time_in_full",
]

# The longest distance that a unit is used for, its length in seconds, and its name. The names are
# those of Django's `timesince`, so that its translations apply. `timesince` itself rounds down: a
# token that was just refreshed would expire "in 23 hours". The names are functions because
# ngettext_lazy() makes a class for each text, which slows down the start of a project.
_UNITS: tuple[tuple[timedelta, int, Callable[[int], str]], ...] = (
    (timedelta(minutes=90), 60, lambda num: ngettext("%(num)d minute", "%(num)d minutes", num)),
    (timedelta(hours=48), 3_600, lambda num: ngettext("%(num)d hour", "%(num)d hours", num)),
    (timedelta(days=60), 86_400, lambda num: ngettext("%(num)d day", "%(num)d days", num)),
    (timedelta.max, 2_629_746, lambda num: ngettext("%(num)d month", "%(num)d months", num)),
)


def relative_time(instant: datetime) -> str:
    """Say how far away an instant is: "in 5 hours", "2 days ago", "now"."""
    distance = instant - timezone.now()
    seconds, name = next(
        (seconds, name) for longest, seconds, name in _UNITS if abs(distance) <= longest
    )
    count = round(abs(distance).total_seconds() / seconds)
    if count == 0:
        return _("now")
    period = name(count) % {"num": count}
    if distance > timedelta(0):
        return _("in %(period)s") % {"period": period}
    return _("%(period)s ago") % {"period": period}


def time_element(instant: datetime | None, *, unknown: str | None = None) -> str:
    """The relative time as HTML that shows the exact time on hover."""
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
    except OverflowError:  # near datetime.min or datetime.max
        local = instant
    return f"{date_format(local, 'DATETIME_FORMAT')} {local.tzname() or ''}".rstrip()


def format_count(value: int | None) -> str:
    """A count with thousands separators; "-" when it is unknown."""
    return "-" if value is None else number_format(value, use_l10n=True, force_grouping=True)


def picture(account: BusinessAccount) -> SafeString:
    """The initials with the picture over them: its URL may have expired or be blocked."""
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
    """`BusinessAccount.health` as a coloured label."""
    health = account.health
    return format_html('<span class="tiktok-badge tiktok-{}">{}</span>', health.value, health.label)


def advice(account: BusinessAccount) -> str:
    """What the account's health means for its owner, and what to do."""
    if account.health != Health.RETRYING or account.rejected_at is None:
        return account.health.advice
    next_attempt_at = account.next_attempt_at or account.rejected_at
    return _(
        "TikTok rejected this connection at %(rejected_at)s. We ask once more at %(next_attempt)s "
        "before calling it lost."
    ) % {
        "rejected_at": _exact_time(account.rejected_at),
        "next_attempt": _exact_time(next_attempt_at),
    }


def explanation(error: Exception) -> str:
    """What went wrong, with TikTok's code and request id, and what people can do about it."""
    remedy = getattr(error, "remedy", None)
    # Remedies for people are translated; the others are for developers, in English.
    return f"{error} {remedy}" if isinstance(remedy, Promise) else str(error)
