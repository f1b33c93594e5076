"""What a batch of refreshes reports, for each account and as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from django_tiktok_business.exceptions import (
    APIError,
    DecryptionError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount


@dataclass(frozen=True)
class RefreshResult:
    """The result for one account.

    ``outcome`` is "refreshed", "retry_later", "reauthorization_required", "undecryptable" or
    "skipped" (another worker held the account). The other attributes are None or "" when TikTok
    reported no error.
    """

    pk: int
    open_id: str
    outcome: str
    code: int | None = None
    message: str = ""
    request_id: str = ""

    @classmethod
    def of(cls, account: BusinessAccount, error: TikTokBusinessError | None) -> RefreshResult:
        """The result of a refresh that ended with ``error``, or with success if it is None."""
        if error is None:
            return cls(account.pk, account.open_id, "refreshed")
        if isinstance(error, ReauthorizationRequired):
            outcome = "reauthorization_required"
        else:
            outcome = "undecryptable" if isinstance(error, DecryptionError) else "retry_later"
        if not isinstance(error, APIError):
            return cls(account.pk, account.open_id, outcome, message=str(error))
        return cls(
            account.pk, account.open_id, outcome, error.code, error.message, error.request_id
        )


@dataclass
class RefreshReport:
    """The results of a batch, counted by outcome.

    ``backing_off`` counts due accounts that were not tried because they kept failing for temporary
    reasons and their next attempt is still to come. ``stopped`` is None, or why the rest was not
    tried: "app_credentials_rejected", "tiktok_unavailable", "rate_limited" or "interrupted".
    """

    refreshed: int = 0
    retry_later: int = 0
    reauthorization_required: int = 0
    undecryptable: int = 0
    skipped: int = 0
    backing_off: int = 0
    stopped: str | None = None
    duration_seconds: float = 0.0
    failures: list[RefreshResult] = field(default_factory=list)

    @property
    def all_refreshed(self) -> bool:
        """Whether every due account was refreshed, by us or by the worker that held it."""
        return self.stopped is None and not self.failures and not self.backing_off

    def add(self, result: RefreshResult) -> None:
        outcome = result.outcome
        setattr(self, outcome, getattr(self, outcome) + 1)
        if outcome not in ("refreshed", "skipped"):
            self.failures.append(result)
