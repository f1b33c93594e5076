"""``manage.py rotate_encryption_keys``: encrypt all stored tokens under the first key."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as AnyDatabaseError
from django.db import connections, router

from django_tiktok_business.db import vendors
from django_tiktok_business.encryption import rotation
from django_tiktok_business.exceptions import DecryptionError
from django_tiktok_business.management.progress import progress_bar
from django_tiktok_business.models import BusinessAccount

SOME_NOT_ROTATED = 1
STOPPED_EARLY = 2
INTERRUPTED = 130  # the exit status that a shell reports after Ctrl-C


class Command(BaseCommand):
    help = (
        "Encrypt the stored tokens of all TikTok Business accounts under the first of "
        "ENCRYPTION_KEYS. Safe to run beside refreshes, twice at once, and to interrupt and "
        "repeat. Exit status: 0 no row needs another key, 1 some do (unreadable, or busy), 2 "
        "stopped early by the database."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="Read and count everything; change nothing."
        )
        parser.add_argument(
            "--no-progress", action="store_true", help="No progress bar, not even on a terminal."
        )

    def handle(self, **options: Any) -> None:
        is_wanted = not options["no_progress"]
        connection = connections[router.db_for_write(BusinessAccount)]
        try:
            if not connection.in_atomic_block:
                connection.set_autocommit(True)  # the project's settings may turn it off
            with progress_bar(
                BusinessAccount.objects.count, unit="account", is_wanted=is_wanted
            ) as advance:
                report = rotation.rotate_encryption_keys(
                    BusinessAccount,
                    dry_run=options["dry_run"],
                    on_unreadable=self._print_unreadable,
                    on_row=advance,
                )
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=SOME_NOT_ROTATED) from error
        except AnyDatabaseError as error:
            raise CommandError(
                f"{vendors.describe_error(error)}. What was encrypted afresh before is saved; run "
                "the command again when the database is well.",
                returncode=STOPPED_EARLY,
            ) from None
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted. Nothing is lost; run the command again to go on.",
                returncode=INTERRUPTED,
            ) from None
        self._print(report, options)
        if not report.is_complete:
            raise CommandError(
                "Some tokens are not under the first key: keep the other keys.",
                returncode=SOME_NOT_ROTATED,
            )

    def _print_unreadable(self, account: BusinessAccount, error: DecryptionError) -> None:
        self.stdout.write(f"unreadable {account.open_id}: {error}")

    def _print(self, report: rotation.RotationReport, options: dict[str, Any]) -> None:
        if options["verbosity"] > 0:
            for key_id, rows in sorted(report.keys.items()):
                note = " (the first)" if key_id == report.first_key else ""
                what = f"key {key_id}{note}" if key_id else "no key's format"
                self.stdout.write(f"{what}: rows={rows}")
        self.stdout.write(
            f"{'would_rotate' if options['dry_run'] else 'rotated'}={report.rotated} "
            f"current={report.current} unreadable={report.unreadable} busy={report.busy}"
        )
