"""``manage.py refresh_tokens``: renew the access tokens that expire soon."""

from __future__ import annotations

import _thread
import json
import re
import signal
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as AnyDatabaseError
from django.db import close_old_connections

from django_tiktok_business import conf, services
from django_tiktok_business.exceptions import ConfigurationError
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet

__all__ = ["Command"]

EVER = timedelta(days=36500)  # any access token expires within it
SECONDS_PER_UNIT = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
COUNTED = ("refreshed", "retry_later", "reauthorization_required", "undecryptable", "skipped")

SOME_NOT_REFRESHED = 1
STOPPED_EARLY = 2


class Command(BaseCommand):
    help = (
        "Renew the access tokens of connected TikTok Business accounts that expire soon. Safe to "
        "run twice at once, on several machines, and to interrupt. Exit status: 0 every due "
        "account was refreshed, 1 some were not, 2 stopped early (TikTok refuses the app's "
        "credentials or is down, or the database is)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        choice = parser.add_mutually_exclusive_group()
        choice.add_argument(
            "--within",
            type=_duration,
            metavar="TIME",
            help="Refresh what expires within this time: 6h, 90m, 2d or seconds "
            "(default: REFRESH_WITHIN_SECONDS).",
        )
        choice.add_argument(
            "--all", action="store_true", help="Refresh every active account, due or not."
        )
        parser.add_argument(
            "--account",
            action="append",
            dest="open_ids",
            metavar="OPEN_ID",
            help="Refresh this account only, due or not unless --within is given; repeatable.",
        )
        parser.add_argument(
            "--limit",
            type=_positive,
            metavar="N",
            help="Try at most N accounts, most urgent first.",
        )
        parser.add_argument(
            "--concurrency",
            type=_positive,
            metavar="N",
            help="Calls to TikTok at the same time (default: REFRESH_CONCURRENCY).",
        )
        parser.add_argument(
            "--rate-limit",
            type=_not_negative,
            metavar="PER_MINUTE",
            help="Calls of this process per minute, 0 for no limit (default: REQUESTS_PER_MINUTE).",
        )
        parser.add_argument(
            "--sync-profiles",
            action="store_true",
            help="Also update the profiles of the refreshed accounts, after all tokens.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="List what is due; call and change nothing."
        )
        parser.add_argument(
            "--json", action="store_true", help="Print one JSON object instead of the summary."
        )
        parser.add_argument(
            "--no-progress", action="store_true", help="No progress bar, not even on a terminal."
        )
        parser.add_argument(
            "--every",
            type=_duration,
            metavar="TIME",
            help="Stay and repeat at this interval (15m) until SIGTERM or Ctrl-C, then finish the "
            "calls in flight, save them, and exit 0.",
        )

    def handle(self, **options: Any) -> None:
        try:
            with _stop_on_signal() as stop:
                if options["every"] is None:
                    status = self._run_once(options, stop)
                else:
                    self._repeat(options, stop)
                    return
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=SOME_NOT_REFRESHED) from error
        if status:
            raise CommandError("Not every account was refreshed.", returncode=status)

    def _repeat(self, options: dict[str, Any], stop: threading.Event) -> None:
        while not stop.is_set():
            close_old_connections()
            try:
                self._run_once(options, stop)
            except CommandError as error:  # the database may be back next time
                self.stderr.write(str(error))
            stop.wait(options["every"].total_seconds())

    def _run_once(self, options: dict[str, Any], stop: threading.Event) -> int:
        try:
            return self._refresh(options, stop)
        except AnyDatabaseError as error:
            # The text of a database error may quote a row; its kind is enough to act on.
            raise CommandError(
                f"The database failed ({type(error).__name__}). What TikTok had answered before is "
                "saved; run the command again.",
                returncode=STOPPED_EARLY,
            ) from None

    def _refresh(self, options: dict[str, Any], stop: threading.Event) -> int:
        accounts, all_active = self._chosen(options["open_ids"])
        is_ever = options["all"] or (options["open_ids"] and options["within"] is None)
        within: timedelta = (
            EVER if is_ever else options["within"] or timedelta(seconds=conf.REFRESH_WITHIN_SECONDS)
        )
        due = accounts.filter(app_id=conf.APP_ID).due_for_refresh(within)
        if options["dry_run"]:
            report = services.RefreshReport()
            would_refresh = list(due.values_list("open_id", flat=True)[: options["limit"]])
        else:
            would_refresh = []
            with self._progress(due, options) as advance:
                report = services.refresh_due_accounts(
                    within=within,
                    accounts=accounts,
                    limit=options["limit"],
                    concurrency=options["concurrency"],
                    requests_per_minute=options["rate_limit"],
                    sync_profiles=options["sync_profiles"],
                    on_result=advance,
                    stop=stop,
                )
        self._tell(report, would_refresh, options)
        if report.stopped not in (None, "interrupted"):
            return STOPPED_EARLY
        return 0 if report.all_refreshed and all_active else SOME_NOT_REFRESHED

    def _chosen(self, open_ids: list[str] | None) -> tuple[BusinessAccountQuerySet, bool]:
        """The accounts to choose from, and whether all that were named can be refreshed."""
        if not open_ids:
            return BusinessAccount.objects.all(), True
        accounts = BusinessAccount.objects.filter(open_id__in=open_ids, app_id=conf.APP_ID)
        status_of = dict(accounts.values_list("open_id", "status"))
        if unknown := sorted(set(open_ids) - set(status_of)):
            raise CommandError(f"Not connected to the configured app: {', '.join(unknown)}.")
        inactive = {
            open_id: status
            for open_id, status in status_of.items()
            if status != BusinessAccount.Status.ACTIVE
        }
        for open_id, status in inactive.items():
            self.stderr.write(f"{open_id} is {status}: its holder has to connect it again.")
        return accounts, not inactive

    def _tell(
        self, report: services.RefreshReport, would_refresh: list[str], options: dict[str, Any]
    ) -> None:
        counts = {name: getattr(report, name) for name in COUNTED}
        if options["json"]:
            answer = {
                **counts,
                "stopped": report.stopped,
                "duration_seconds": round(report.duration_seconds, 3),
                "failures": [_failure(result) for result in report.failures],
            }
            if options["dry_run"]:
                answer["would_refresh"] = would_refresh
            self.stdout.write(json.dumps(answer))
            return
        if options["verbosity"] > 0:
            for open_id in would_refresh:
                self.stdout.write(f"would refresh {open_id}")
            for result in report.failures:
                facts = [
                    f"code {result.code}" if result.code is not None else "",
                    f"request id {result.request_id}" if result.request_id else "",
                ]
                told = ", ".join(fact for fact in facts if fact)
                self.stdout.write(
                    f"{result.outcome} {result.open_id}: {result.message}"
                    + (f" ({told})" if told else "")
                )
        summary = " ".join(f"{name}={count}" for name, count in counts.items())
        self.stdout.write(f"{summary} stopped={report.stopped or 'no'}")

    @contextmanager
    def _progress(self, due: BusinessAccountQuerySet, options: dict[str, Any]) -> Iterator[Any]:
        """A callback for each account that draws a bar, if there is somebody to see it."""
        if options["no_progress"] or not sys.stderr.isatty():
            yield None
            return
        try:
            from tqdm import tqdm
        except ImportError:  # the extra "progress" is not installed
            yield None
            return
        total = due.count()
        limit = options["limit"]
        with tqdm(total=min(total, limit) if limit else total, unit="account") as bar:
            yield lambda result: bar.update()


def _failure(result: services.RefreshResult) -> dict[str, Any]:
    failure = asdict(result)
    del failure["pk"]
    return failure


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal acts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are the main thread's alone
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: object) -> None:
        # Not set right here: this may have interrupted the very wait() that holds the event's lock.
        _thread.start_new_thread(stop.set, ())
        restore()

    for number in handlers:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if match is None or not int(match[1]):
        raise ArgumentTypeError(f"{text!r} is not a time: give 6h, 90m, 2d or seconds")
    return min(timedelta(seconds=int(match[1]) * SECONDS_PER_UNIT[match[2]]), EVER)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)
