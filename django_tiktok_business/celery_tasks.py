"""The jobs of `services.chunks` as Celery tasks; Celery's autodiscovery finds them in `tasks`.

Tasks are acknowledged early and not retried: accounts that a task did not reach, even because its
worker was killed, are still due and handed out again. They have no Celery rate limit, because
REQUESTS_PER_MINUTE holds for all workers together.
"""

from __future__ import annotations

from typing import Any

from .exceptions import ConfigurationError
from .services import chunks

try:
    from celery import shared_task
    from celery.signals import worker_shutting_down
except ImportError as error:
    raise ConfigurationError(
        "Celery is not installed: python -m pip install 'django_tiktok_business[celery]'"
    ) from error

__all__ = ["refresh_accounts", "refresh_due", "sync_profiles"]

# A project's own time limits, meant for pages and mails, would be too short. The jobs return after
# LONGEST_RUN_SECONDS by themselves, so these limits only end a job that hangs.
_SOFT_LIMIT_SECONDS = chunks.LONGEST_RUN_SECONDS + 300
_OPTIONS: dict[str, Any] = {
    "acks_late": False,
    "ignore_result": True,
    "expires": chunks.MESSAGE_LIFETIME_SECONDS,
    "soft_time_limit": _SOFT_LIMIT_SECONDS,
    "time_limit": _SOFT_LIMIT_SECONDS + 300,
}


@shared_task(name="tiktok_business.refresh_due", **_OPTIONS)
def refresh_due(
    within_seconds: float | None = None,
    *,
    sync_profiles: bool = False,
    chunk_size: int = chunks.CHUNK_SIZE,
) -> dict[str, Any]:
    """Queue the accounts whose tokens expire soon (default: REFRESH_WITHIN_SECONDS), in chunks."""

    def send(pks: list[int]) -> None:
        refresh_accounts.delay(pks, within_seconds, sync_profiles=sync_profiles)

    return chunks.hand_out(send, within_seconds=within_seconds, chunk_size=chunk_size)


@shared_task(name="tiktok_business.refresh_accounts", **_OPTIONS)
def refresh_accounts(
    pks: list[int], within_seconds: float | None = None, *, sync_profiles: bool = False
) -> dict[str, Any]:
    """Refresh the accounts that are still due, then queue the sync of their profiles."""
    then = _sync_profiles_of if sync_profiles else None
    return chunks.refresh_chunk(pks, within_seconds=within_seconds, then=then)


@shared_task(name="tiktok_business.sync_profiles", **_OPTIONS)
def sync_profiles(pks: list[int], since: float) -> dict[str, Any]:
    """Sync the profiles of the accounts that were refreshed ``since`` this Unix time."""
    return chunks.sync_chunk(pks, since=since)


def _sync_profiles_of(pks: list[int], since: float) -> None:
    sync_profiles.delay(pks, since)


@worker_shutting_down.connect
def _stop_running(**kwargs: object) -> None:
    # For thread pools, which operating system signals do not reach.
    chunks.stop_running()
