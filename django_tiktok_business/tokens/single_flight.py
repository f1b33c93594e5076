"""Let one thread of a process refresh an account while the others wait for its result."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable

from django_tiktok_business.exceptions import (
    AccountBusyError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount

IsFreshEnough = Callable[[BusinessAccount], bool]


class SharedRefresh:
    """A refresh that one thread performs, and that later threads wait for."""

    def __init__(self) -> None:
        self.thread_id = threading.get_ident()
        self.done = threading.Event()
        self.error: TikTokBusinessError | None = None  # raised for everybody who waited
        self._first_row: BusinessAccount | None = None  # as it was before the refresh
        self._last_row: BusinessAccount | None = None
        self._is_asking_caller = False

    def check(self, row: BusinessAccount, is_fresh_enough: IsFreshEnough) -> bool:
        """Whether ``row`` needs no refresh (any more).

        Raises what another worker has found out since the first row that was checked.
        """
        first = self._first_row = self._first_row or row
        self._last_row = row
        self._is_asking_caller = True
        if is_fresh_enough(row):
            return True
        self._is_asking_caller = False
        has_failed = row.consecutive_failures > first.consecutive_failures
        rejected = BusinessAccount.Status.REAUTHORIZATION_REQUIRED
        if row.status == rejected and (has_failed or first.status != rejected):
            raise ReauthorizationRequired("TikTok has just rejected the account's tokens.")
        if has_failed:
            raise AccountBusyError(
                f"Another worker failed to refresh the account just now: {row.last_error_message}"
            )
        return bool(row.credentials_version > first.credentials_version)

    def succeed(self, row: BusinessAccount) -> None:
        """Share ``row`` with the threads that wait."""
        self._last_row = row

    def fail(self, error: TikTokBusinessError) -> None:
        """Share ``error`` with the threads that wait.

        Not when the caller's ``is_fresh_enough`` raised it: other callers may judge differently.
        """
        if not self._is_asking_caller:
            self.error = error

    def result(self, is_fresh_enough: IsFreshEnough) -> BusinessAccount | None:
        """The row for a thread that has waited; None when that thread has to refresh it itself."""
        if self.error is not None:
            raise copy.copy(self.error)  # a traceback belongs to one thread
        row = self._last_row
        return row if row is not None and self.check(row, is_fresh_enough) else None


class SharedRefreshes:
    """The refreshes under way in this process, by database and primary key."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.under_way: dict[tuple[str, int], SharedRefresh] = {}

    def join(self, using: str, pk: int) -> tuple[SharedRefresh, bool]:
        """The refresh of this account, and whether the calling thread has to perform it."""
        own = SharedRefresh()
        with self.lock:
            shared = self.under_way.setdefault((using, pk), own)
        # A receiver of a signal may refresh the account while its own thread does: it must not
        # wait for itself.
        if shared.thread_id == own.thread_id:
            return own, True
        return shared, False

    def end(self, using: str, pk: int, shared: SharedRefresh) -> None:
        """Wake up the threads that wait."""
        with self.lock:
            if self.under_way.get((using, pk)) is shared:
                del self.under_way[using, pk]
        shared.done.set()


shared_refreshes = SharedRefreshes()

# A child process has none of its parent's threads, so nothing would ever end their refreshes.
# Windows, which cannot fork, lacks the function.
getattr(os, "register_at_fork", lambda **hooks: None)(after_in_child=shared_refreshes.forget)
