"""The overview above the list of accounts: health, key numbers and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.conf import settings
from django.contrib.admin.views.main import ChangeList
from django.core import checks
from django.core.checks import CheckMessage
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_tiktok_business.conf import conf
from django_tiktok_business.models import Health
from django_tiktok_business.models.health import warning_period
from django_tiktok_business.presentation import format_count, time_element

from .figures import Figures

_MINUTES_PER_DAY = 1440
_BAR_WIDTH = 100.0  # in units of the SVG


@dataclass(frozen=True)
class NextStep:
    """The most urgent thing to do."""

    level: str  # "error", "warning" or "success"
    text: str
    query: str = ""  # selects the accounts concerned in the list


@dataclass(frozen=True)
class Tally:
    """How many accounts have one health, and their segment of the bar."""

    health: Health
    count: int
    begin: str
    width: str
    is_chosen: bool

    @property
    def shown(self) -> str:
        return format_count(self.count)


class Overview:
    """The overview, as the template reads it."""

    def __init__(self, figures: Figures, chosen_health: str = "") -> None:
        self.figures = figures
        self._chosen_health = chosen_health

    @property
    def total(self) -> int:
        return self.figures.total

    @property
    def total_shown(self) -> str:
        return format_count(self.total)

    @cached_property
    def findings(self) -> list[CheckMessage]:
        """The package's system check messages, the most serious first; none contains a secret.

        Like `tiktok_doctor`, it runs the deployment checks only while DEBUG is off.
        """
        found = checks.run_checks(
            tags=["tiktok_business"], include_deployment_checks=not settings.DEBUG
        )
        return sorted(
            (message for message in found if not message.is_silenced()),
            key=lambda message: -message.level,
        )

    @property
    def errors(self) -> list[CheckMessage]:
        return [message for message in self.findings if message.level >= checks.ERROR]

    @cached_property
    def tallies(self) -> list[Tally]:
        """One tally for each health, from good to bad."""
        tallies, begin = [], 0.0
        for health in reversed(Health):
            count = self.figures.counts.get(health, 0)
            width = _BAR_WIDTH * count / self.total if self.total else 0.0
            tallies.append(
                Tally(
                    *(health, count, f"{begin:.3f}", f"{width:.3f}"),
                    is_chosen=health == self._chosen_health,
                )
            )
            begin += width
        return tallies

    @property
    def next_expiry(self) -> str:
        return time_element(self.figures.next_expiry, unknown=_("none"))

    @property
    def last_refresh(self) -> str:
        return time_element(self.figures.last_refresh, unknown=_("never"))

    @property
    def next_consent_end(self) -> str:
        return time_element(self.figures.next_consent_end, unknown=_("none"))

    @property
    def overdue_shown(self) -> str:
        return format_count(self.figures.overdue)

    @property
    def ending_shown(self) -> str:
        return format_count(self.figures.counts.get(Health.EXPIRES_SOON, 0))

    @property
    def is_configured(self) -> bool:
        return not self.errors

    @property
    def warning_days(self) -> int:
        return warning_period().days

    @property
    def calls_today(self) -> str:
        return format_count(self.figures.calls_today)

    @property
    def calls_a_day(self) -> int:
        """How many calls a day REQUESTS_PER_MINUTE allows; 0 without a rate limit.

        The default equals the 864,000 calls a day of TikTok's basic level ("Rate limits", TikTok
        API for Business, 2026-08-13).
        """
        return int(conf.usable("REQUESTS_PER_MINUTE", fallback=0)) * _MINUTES_PER_DAY

    @property
    def calls_a_day_shown(self) -> str:
        return format_count(self.calls_a_day)

    @property
    def calls_share(self) -> str:
        """The width of the bar of today's calls in percent; any call at all makes it visible."""
        minimum = 1 if self.figures.calls_today else 0
        return f"{min(max(self._calls_in_percent, minimum), 100):.3f}"

    @property
    def calls_percent(self) -> str:
        percent = self._calls_in_percent
        if 0 < percent < 0.1:
            return _("less than %(share)s") % {"share": _percent(0.1)}
        return _percent(percent)

    @property
    def _calls_in_percent(self) -> float:
        return 100 * self.figures.calls_today / self.calls_a_day

    @property
    def next_step(self) -> NextStep:
        counts = self.figures.counts
        if self.errors:
            return NextStep("error", _("The settings of the app have to be corrected first."))
        if count := counts.get(Health.UNDECRYPTABLE, 0):
            text = ngettext(
                "The tokens of %(count)s account cannot be decrypted: put the missing key back "
                "into ENCRYPTION_KEYS, or have it connected again.",
                "The tokens of %(count)s accounts cannot be decrypted: put the missing key back "
                "into ENCRYPTION_KEYS, or have them connected again.",
                count,
            )
            return _step_about(count, text, Health.UNDECRYPTABLE, "error")
        if count := counts.get(Health.RECONNECT_NEEDED, 0):
            text = ngettext(
                "%(count)s account needs reconnecting.",
                "%(count)s accounts need reconnecting.",
                count,
            )
            return _step_about(count, text, Health.RECONNECT_NEEDED, "error")
        if count := self.figures.overdue:
            text = ngettext(
                "%(count)s access token ended over an hour ago: “manage.py refresh_tokens” has "
                "not run. Add it to cron.",
                "%(count)s access tokens ended over an hour ago: “manage.py refresh_tokens” has "
                "not run. Add it to cron.",
                count,
            )
            return NextStep("error", text % {"count": format_count(count)}, "?refresh=overdue")
        return self._less_urgent_step

    @property
    def _less_urgent_step(self) -> NextStep:
        counts = self.figures.counts
        if count := counts.get(Health.EXPIRES_SOON, 0):
            text = ngettext(
                "The yearly consent of %(count)s account ends soon: have it reconnected before.",
                "The yearly consent of %(count)s accounts ends soon: have them reconnected before.",
                count,
            )
            return _step_about(count, text, Health.EXPIRES_SOON, "warning")
        if count := counts.get(Health.RETRYING, 0):
            text = ngettext(
                "%(count)s account could not be refreshed and is tried again by itself.",
                "%(count)s accounts could not be refreshed and are tried again by themselves.",
                count,
            )
            return _step_about(count, text, Health.RETRYING, "warning")
        return NextStep("success", _("Nothing to do."))


def _step_about(count: int, text: str, health: Health, level: str) -> NextStep:
    return NextStep(level, text % {"count": format_count(count)}, f"?health={health.value}")


def _percent(value: float) -> str:
    return f"{number_format(value, 1 if 0 < value < 10 else 0)}\u00a0%"


class AccountChangeList(ChangeList):
    """The list, loaded without tokens, with an overview unless it is a popup."""

    overview: Overview | None = None

    def get_results(self, request: HttpRequest) -> None:
        if request.method in ("GET", "HEAD") and not self.is_popup:
            root: Any = self.root_queryset
            figures = Figures.cached(root)
            self.overview = Overview(figures, self.params.get("health", ""))
            queryset: Any = self.queryset
            if queryset.query.where == root.query.where:
                queryset.known_count = figures.total
        super().get_results(request)
        self.result_list = self.result_list.without_tokens()
        if self.overview is not None:
            # The overview has the count at no cost, so show it in spite of the ModelAdmin's option.
            self.show_full_result_count = True
            self.full_result_count = self.overview.total
            self.show_admin_actions = self.overview.total > 0
