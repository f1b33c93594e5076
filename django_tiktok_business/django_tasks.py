"""The jobs of `services.chunks` as Django tasks: Django 6.0, or 5.2 with ``django-tasks``.

The backend in the ``TASKS`` setting runs them. Its messages do not expire, so each task checks how
old its message is. Tasks are not retried: accounts that a task did not reach are still due and
handed out again.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .exceptions import ConfigurationError
from .services import chunks

if TYPE_CHECKING or find_spec("django.tasks"):
    from django.tasks import TaskContext, task
else:
    try:
        from django_tasks import TaskContext, task
    except ImportError as error:
        raise ConfigurationError(
            "Django has a tasks framework since 6.0. For an older Django install the backport: "
            "python -m pip install django-tasks"
        ) from error

__all__ = ["refresh_accounts", "refresh_due", "sync_profiles"]

_STALE = {"stopped": "stale"}


@task(takes_context=True)
def refresh_due(
    context: TaskContext[..., Any],
    within_seconds: float | None = None,
    *,
    sync_profiles: bool = False,
    chunk_size: int = chunks.CHUNK_SIZE,
) -> dict[str, Any]:
    """Queue the accounts whose tokens expire soon (default: REFRESH_WITHIN_SECONDS), in chunks."""

    def send(pks: list[int]) -> None:
        refresh_accounts.enqueue(pks, within_seconds, sync_profiles=sync_profiles)

    if chunks.is_stale(context.task_result.enqueued_at):
        return _STALE
    return chunks.hand_out(send, within_seconds=within_seconds, chunk_size=chunk_size)


@task(takes_context=True)
def refresh_accounts(
    context: TaskContext[..., Any],
    pks: list[int],
    within_seconds: float | None = None,
    *,
    sync_profiles: bool = False,
) -> dict[str, Any]:
    """Refresh the accounts that are still due, then queue the sync of their profiles."""
    then = _sync_profiles_of if sync_profiles else None
    if chunks.is_stale(context.task_result.enqueued_at):
        return _STALE
    return chunks.refresh_chunk(pks, within_seconds=within_seconds, then=then)


@task(takes_context=True)
def sync_profiles(context: TaskContext[..., Any], pks: list[int], since: float) -> dict[str, Any]:
    """Sync the profiles of the accounts that were refreshed ``since`` this Unix time."""
    if chunks.is_stale(context.task_result.enqueued_at):
        return _STALE
    return chunks.sync_chunk(pks, since=since)


def _sync_profiles_of(pks: list[int], since: float) -> None:
    sync_profiles.enqueue(pks, since)
