"""The state machine of a connection, in Python and in SQL side by side."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.db.models import Case, Q, Value, When
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_tiktok_business.conf import conf
from django_tiktok_business.encryption.keys import under_known_keys

__all__ = [
    "Health",
    "Status",
    "has_known_keys",
    "health_conditions",
    "health_in_database",
    "is_past",
    "overdue_condition",
    "warning_period",
]

OVERDUE_AFTER = timedelta(hours=1)  # of an access token that nobody has renewed


class Status(models.TextChoices):
    ACTIVE = "active", _("active")
    """The tokens are renewed when they are due."""
    REAUTHORIZATION_REQUIRED = "reauthorization_required", _("reauthorization required")
    """TikTok rejected the tokens; they are kept, and a new consent makes it active again."""
    REVOKED = "revoked", _("revoked")
    """Disconnected; the tokens are gone."""


class Health(models.TextChoices):
    """What a person wants to know about a connection, worst first; derived, never stored."""

    REVOKED = "revoked", _("revoked")
    """Disconnected here: there are no tokens any more."""
    RECONNECT_NEEDED = "reconnect_needed", _("reconnect needed")
    """TikTok does not renew the tokens, or the yearly consent has ended."""
    UNDECRYPTABLE = "undecryptable", _("cannot decrypt")
    """No configured key opens the stored tokens."""
    RETRYING = "retrying", _("retrying")
    """The last refresh failed for a passing reason."""
    EXPIRES_SOON = "expires_soon", _("expires soon")
    """The yearly consent ends within REAUTHORIZATION_WARNING_DAYS."""
    HEALTHY = "healthy", _("healthy")


def has_known_keys() -> Q:
    return under_known_keys("access_token", "refresh_token")


def _may_be_renewed() -> Q:
    no_end = Q(refresh_token_expires_at__isnull=True)
    lasts = no_end | Q(refresh_token_expires_at__gt=timezone.now())
    return Q(status=Status.ACTIVE) & lasts


def overdue_condition(app_id: str) -> Q:
    """Tokens of the app that ended OVERDUE_AFTER ago, though a batch was free to try ever since."""
    long_ago = timezone.now() - OVERDUE_AFTER
    late = Q(access_token_expires_at__lte=long_ago, app_id=app_id)
    waited = Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=long_ago)
    return late & waited & _may_be_renewed() & has_known_keys()


def health_in_database() -> Case:
    """An expression: the `Health` in which `in_health` finds the account."""
    # Most are healthy, so that is looked at first: no two of the conditions hold at once.
    cases = [
        When(condition, then=Value(health.value))
        for health, condition in reversed(health_conditions().items())
    ]
    return Case(*cases, output_field=models.CharField())


def health_conditions() -> dict[Health, Q]:
    """For each `Health` the condition that its accounts meet, and no others, worst first."""
    now = timezone.now()
    soon = now + warning_period()
    ends_late = Q(refresh_token_expires_at__isnull=True) | Q(refresh_token_expires_at__gt=soon)
    opens = has_known_keys()
    well = _may_be_renewed() & Q(consecutive_failures=0)
    return {
        Health.REVOKED: Q(status=Status.REVOKED),
        Health.RECONNECT_NEEDED: Q(status=Status.REAUTHORIZATION_REQUIRED)
        | Q(status=Status.ACTIVE, refresh_token_expires_at__lte=now),
        Health.UNDECRYPTABLE: _may_be_renewed() & ~opens,
        Health.RETRYING: _may_be_renewed() & Q(consecutive_failures__gt=0) & opens,
        Health.EXPIRES_SOON: well & Q(refresh_token_expires_at__lte=soon) & opens,
        Health.HEALTHY: well & ends_late & opens,
    }


def warning_period() -> timedelta:
    """How long before its end a consent is reported."""
    return timedelta(days=conf.usable("REAUTHORIZATION_WARNING_DAYS"))


def is_past(instant: datetime | None, now: datetime) -> bool:
    """Whether the instant is known and past; a naive one says no instant."""
    return instant is not None and timezone.is_aware(instant) and instant <= now
