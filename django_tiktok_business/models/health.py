"""How a connection is doing: each state in one place, with its condition in SQL and in Python.

To add a state, add a member to `Health`, and exclude its accounts from the SQL conditions of the
others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import Case, Q, Value, When
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_tiktok_business.conf import conf
from django_tiktok_business.encryption.keys import under_known_keys

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


OVERDUE_AFTER = timedelta(hours=1)  # of an access token that nobody has renewed


class Status(models.TextChoices):
    ACTIVE = "active", _("active")
    """The tokens are refreshed when they are due."""
    REAUTHORIZATION_REQUIRED = "reauthorization_required", _("reauthorization required")
    """TikTok rejected the tokens; they are kept. A new consent makes the account active again."""
    REVOKED = "revoked", _("revoked")
    """Disconnected; the tokens are gone."""


def warning_period() -> timedelta:
    """How long before its end a consent is reported as ending soon."""
    return timedelta(days=conf.usable("REAUTHORIZATION_WARNING_DAYS"))


# Conditions that several states share


def has_known_keys() -> Q:
    """Both tokens are empty or encrypted under a configured key."""
    return under_known_keys("access_token", "refresh_token")


def _is_renewable(now: datetime) -> Q:
    """The account is active, and its consent has not ended."""
    return Q(status=Status.ACTIVE) & _ends_after(now)


def _ends_after(instant: datetime) -> Q:
    return Q(refresh_token_expires_at__isnull=True) | Q(refresh_token_expires_at__gt=instant)


def _ends_by(account: Any, instant: datetime) -> bool:
    """Whether the end of the consent is known and not after ``instant``.

    A naive end (assigned in memory, not loaded) is no instant, so it counts as unknown.
    """
    ends_at = account.refresh_token_expires_at
    return ends_at is not None and timezone.is_aware(ends_at) and ends_at <= instant


# The states


@dataclass(frozen=True)
class _Moment:
    now: datetime
    soon: datetime  # a consent that ends before then is reported

    @classmethod
    def current(cls) -> Self:
        now = timezone.now()
        return cls(now, now + warning_period())


@dataclass(frozen=True)
class _State:
    advice: _StrPromise
    """What the state means for the owner of the account, and what to do."""
    in_database: Callable[[_Moment], Q]
    """The condition for rows. Excludes all other states, so that a query can use it alone."""
    in_memory: Callable[[Any, _Moment], bool]
    """The condition for a `BusinessAccount`. Only asked when it is in no worse state."""
    needs_person: bool = False


class Health(models.TextChoices):
    """The state of a connection as people see it, worst first; derived, never stored."""

    REVOKED = (
        "revoked",
        _State(
            _(
                "This account is disconnected, and the access that was kept here is erased. To use "
                "it again, connect it again."
            ),
            lambda moment: Q(status=Status.REVOKED),
            lambda account, moment: account.status == Status.REVOKED,
        ),
        _("revoked"),
    )
    """Disconnected here: there are no tokens any more."""

    RECONNECT_NEEDED = (
        "reconnect_needed",
        _State(
            _("TikTok does not accept this connection any more. Connect the account again."),
            lambda moment: (
                Q(status=Status.REAUTHORIZATION_REQUIRED)
                | Q(status=Status.ACTIVE, refresh_token_expires_at__lte=moment.now)
            ),
            lambda account, moment: (
                account.status == Status.REAUTHORIZATION_REQUIRED or _ends_by(account, moment.now)
            ),
            needs_person=True,
        ),
        _("reconnect needed"),
    )
    """TikTok does not renew the tokens, or the yearly consent has ended."""

    UNDECRYPTABLE = (
        "undecryptable",
        _State(
            _(
                "The access to this account cannot be decrypted. An administrator can restore the "
                "missing key; otherwise connect the account again."
            ),
            lambda moment: _is_renewable(moment.now) & ~has_known_keys(),
            lambda account, moment: not account.is_decryptable(),
            needs_person=True,
        ),
        _("cannot decrypt"),
    )
    """No configured key opens the stored tokens."""

    RETRYING = (
        "retrying",
        _State(
            _(
                "Renewing the access has failed for a passing reason. It is tried again. You have "
                "nothing to do."
            ),
            lambda moment: (
                _is_renewable(moment.now) & Q(consecutive_failures__gt=0) & has_known_keys()
            ),
            lambda account, moment: account.consecutive_failures > 0,
        ),
        _("retrying"),
    )
    """The last refresh failed for a temporary reason."""

    EXPIRES_SOON = (
        "expires_soon",
        _State(
            _("TikTok's consent ends soon. Connect the account again to prolong it."),
            lambda moment: (
                _is_renewable(moment.now)
                & Q(consecutive_failures=0, refresh_token_expires_at__lte=moment.soon)
                & has_known_keys()
            ),
            lambda account, moment: _ends_by(account, moment.soon),
        ),
        _("expires soon"),
    )
    """The yearly consent ends within REAUTHORIZATION_WARNING_DAYS."""

    HEALTHY = (
        "healthy",
        _State(
            _("This site has access, and renews it by itself. You have nothing to do."),
            lambda moment: (
                _is_renewable(moment.now)
                & Q(consecutive_failures=0)
                & _ends_after(moment.soon)
                & has_known_keys()
            ),
            lambda account, moment: True,
        ),
        _("healthy"),
    )

    _state: _State

    # Optional only to type checkers, which take ``Health("healthy")`` for a call of this.
    def __new__(cls, value: str, *state: _State) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        (member._state,) = state
        return member

    @property
    def advice(self) -> str:
        """What the state means for the owner of the account, and what to do."""
        return str(self._state.advice)

    @property
    def needs_person(self) -> bool:
        """Whether only a person can help: until then the account cannot be used."""
        return self._state.needs_person

    @classmethod
    def of(cls, account: Any) -> Self:
        """The state of a `BusinessAccount`; `in_memory` says how far it decrypts the tokens."""
        moment = _Moment.current()
        return next(health for health in cls if health._state.in_memory(account, moment))

    def condition(self) -> Q:
        """The condition that the accounts in this state meet, and no others."""
        return self._state.in_database(_Moment.current())


def health_in_database() -> Case:
    """An expression for the `Health` in which `in_health` finds the account."""
    moment = _Moment.current()
    # Most are healthy, so that comes first: the order does not matter, as only one condition holds.
    cases = [
        When(health._state.in_database(moment), then=Value(health.value))
        for health in reversed(Health)
    ]
    return Case(*cases, output_field=models.CharField())


def overdue_condition(app_id: str) -> Q:
    """The app's tokens that ended OVERDUE_AFTER ago, though a batch could refresh them since."""
    now = timezone.now()
    long_ago = now - OVERDUE_AFTER
    late = Q(access_token_expires_at__lte=long_ago, app_id=app_id)
    waited = Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=long_ago)
    return late & waited & _is_renewable(now) & has_known_keys()
