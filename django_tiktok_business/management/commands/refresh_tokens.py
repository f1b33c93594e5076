"""``manage.py refresh_tokens``: refresh the access tokens that expire soon."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as AnyDatabaseError
from django.db import close_old_connections

from django_tiktok_business import services
from django_tiktok_business.conf import conf
from django_tiktok_business.db import vendors
from django_tiktok_business.exceptions import ConfigurationError
from django_tiktok_business.interrupts import stop_on_signal
from django_tiktok_business.management.progress import progress_bar
from django_tiktok_business.models import BusinessAccount, BusinessAccountQuerySet

EVER = timedelta(days=36500)  # every access token expires within this time
SECONDS_PER_UNIT = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
COUNTED = ("refreshed", "retry_later", "reauthorization_required", "undecryptable", "skipped")

LARGEST_NUMBER = 10**9  # larger numbers mean the same, and databases refuse some as a LIMIT

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
            "--all",
            action="store_true",
            help="Refresh every active account, due or not, and though it keeps failing.",
        )
        parser.add_argument(
            "--account",
            action="append",
            dest="open_ids",
            type=_open_id,
            metavar="OPEN_ID",
            help="Refresh this account only, due or not unless --within is given, and though it "
            "keeps failing; repeatable.",
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
            help="Calls per minute, 0 for no limit; shared by the processes with the same number "
            "(default: REQUESTS_PER_MINUTE).",
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
            with stop_on_signal() as stop:
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
            next_at = time.monotonic() + options["every"].total_seconds()
            close_old_connections()
            try:
                self._run_once(options, stop)
            except CommandError as error:  # the database may be available again next time
                self.stderr.write(str(error))
            stop.wait(max(0.0, next_at - time.monotonic()))

    def _run_once(self, options: dict[str, Any], stop: threading.Event) -> int:
        try:
            return self._refresh(options, stop)
        except AnyDatabaseError as error:
            raise CommandError(
                f"{vendors.describe_error(error)}. What TikTok had answered before is saved; run "
                "the command again when the database is well.",
                returncode=STOPPED_EARLY,
            ) from None

    def _refresh(self, options: dict[str, Any], stop: threading.Event) -> int:
        accounts, all_active = self._chosen(options["open_ids"])
        is_ever = options["all"] or (options["open_ids"] and options["within"] is None)
        within: timedelta = (
            EVER if is_ever else options["within"] or timedelta(seconds=conf.REFRESH_WITHIN_SECONDS)
        )
        is_by_hand = bool(options["all"] or options["open_ids"])
        due = accounts.filter(app_id=conf.APP_ID).due_for_refresh(within)
        tried = due if is_by_hand else due.not_backing_off()
        if options["dry_run"]:
            report = services.RefreshReport(backing_off=due.count() - tried.count())
            would_refresh = list(tried.values_list("open_id", flat=True)[: options["limit"]])
        else:
            would_refresh = []
            limit = options["limit"]

            def total() -> int:
                return tried[:limit].count()

            is_wanted = not options["no_progress"]
            with progress_bar(total, unit="account", is_wanted=is_wanted) as advance:
                report = services.refresh_due_accounts(
                    within=within,
                    accounts=accounts if options["open_ids"] else None,
                    limit=limit,
                    concurrency=options["concurrency"],
                    requests_per_minute=options["rate_limit"],
                    ignore_backoff=is_by_hand,
                    sync_profiles=options["sync_profiles"],
                    # The next round of --every does not wait for profiles: tokens come first.
                    sync_seconds=options["every"].total_seconds() if options["every"] else math.inf,
                    on_result=lambda _: advance(),
                    stop=stop,
                )
        self._print(report, would_refresh, options)
        if report.stopped not in (None, "interrupted"):
            return STOPPED_EARLY
        return 0 if report.all_refreshed and all_active else SOME_NOT_REFRESHED

    def _chosen(self, open_ids: list[str] | None) -> tuple[BusinessAccountQuerySet, bool]:
        """The accounts to refresh, and whether all of ``open_ids`` can be refreshed."""
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

    def _print(
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
            if report.backing_off:
                answer["backing_off"] = report.backing_off
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
                details = ", ".join(fact for fact in facts if fact)
                self.stdout.write(
                    f"{result.outcome} {result.open_id}: {result.message}"
                    + (f" ({details})" if details else "")
                )
            if report.backing_off:
                self.stdout.write(
                    f"{report.backing_off} due accounts kept failing and wait for their next "
                    "attempt (--all tries them now)"
                )
        summary = " ".join(f"{name}={count}" for name, count in counts.items())
        self.stdout.write(f"{summary} stopped={report.stopped or 'no'}")


def _failure(result: services.RefreshResult) -> dict[str, Any]:
    failure = asdict(result)
    del failure["pk"]
    return failure


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if match is None or not int(match[1]):
        raise ArgumentTypeError(f"{text!r} is not a time: give 6h, 90m, 2d or seconds")
    return min(timedelta(seconds=int(match[1]) * SECONDS_PER_UNIT[match[2]]), EVER)


def _positive(text: str) -> int:
    if not _whole_number(text):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return _whole_number(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return _whole_number(text)


def _whole_number(text: str) -> int:
    """The number, at most LARGEST_NUMBER; 0 if the text is not a number."""
    if not text.isdecimal():
        return 0
    return int(text) if len(text) <= 9 else LARGEST_NUMBER


def _open_id(text: str) -> str:
    if not text.isprintable():  # not an id of TikTok, and some databases fail on it
        raise ArgumentTypeError(f"{text!r} is not an open id")
    return text
