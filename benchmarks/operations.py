"""What one refresh costs the database and the cache: the numbers of docs/operations.rst.

``python -m benchmarks.operations`` runs against the simulator. DATABASE_URL and CACHE_URL name what
to measure (default: a SQLite file and local memory); on a server a database is made for the run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import django
import environ
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_tiktok_business.simulator import Simulator


def configure(folder: str, requests_per_minute: int) -> None:
    env = environ.Env()
    settings.configure(
        SECRET_KEY="signs nothing that matters",  # noqa: S106
        USE_TZ=True,
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django_tiktok_business",
        ],
        DATABASES={"default": env.db_url("DATABASE_URL", default=f"sqlite:///{folder}/db.sqlite3")},
        CACHES={"default": env.cache_url("CACHE_URL", default="locmemcache://")},
        TIKTOK_BUSINESS={
            "APP_ID": "7000000000000000001",
            "APP_SECRET": "simulator-app-secret-not-real",
            "ENCRYPTION_KEYS": ["for-this-run-only-Xk2pQv7nLw4sRt9yBm3cHd6f"],
            "REQUESTS_PER_MINUTE": requests_per_minute,
        },
    )
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = (
        f"{folder}/test.sqlite3"
        if "sqlite3" in settings.DATABASES["default"]["ENGINE"]
        else f"test_operations_{os.getpid()}"
    )
    django.setup()


def fill(simulator: Simulator, accounts: int) -> None:
    """Make accounts as they are after a few days, all due."""
    from django.utils import timezone

    from django_tiktok_business.models import BusinessAccount

    now = timezone.now()
    rows = []
    for number in range(accounts):
        grant = simulator.issue_grant(f"account_{number}")
        rows.append(
            BusinessAccount(
                app_id=simulator.app_id,
                open_id=grant["open_id"],
                access_token=grant["access_token"],
                refresh_token=grant["refresh_token"],
                access_token_expires_at=now + timedelta(hours=1, milliseconds=number),
                refresh_token_expires_at=now + timedelta(days=300),
                scopes=sorted(grant["scope"].split(",")),
                username=f"account_{number}",
                display_name=f"Account number {number}",
                bio="Bread, cakes and coffee. Open every day from seven to six.",
                profile_image_url="https://p16-sign-va.tiktokcdn.com/" + 150 * "x",
                profile_url="https://vm.tiktok.com/SIMabc123/",
                followers_count=number,
                connected_at=now,
            )
        )
    BusinessAccount.objects.bulk_create(rows, batch_size=1000)


class Statements:
    """Counts what is sent to the database, by kind and table."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        kind = sql.split(maxsplit=1)[0]
        if kind == "SELECT":
            kind = "SELECT what is due" if "profile_image_url" not in sql else "SELECT the claimed"
        elif kind == "UPDATE":
            kind = "UPDATE to save" if "refresh_token" in sql else "UPDATE to claim"
        self.counts[kind] += 1
        return execute(sql, *arguments)


def count_cache_calls(counts: Counter[str]) -> None:
    from django.core.cache import caches

    kind = type(caches["default"])
    for name in ("add", "get", "set"):
        counted = _counting(getattr(kind, name), name, counts)
        setattr(kind, name, counted)


def _counting(method: Callable[..., Any], name: str, counts: Counter[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        counts[name] += 1
        return method(*arguments, **keywords)

    return call


def sizes() -> dict[str, int]:
    """Bytes of the table and of its indexes, {} if the database is one file."""
    from django.db import connection

    from django_tiktok_business.models import BusinessAccount

    table = BusinessAccount._meta.db_table
    queries = {
        "postgresql": "SELECT pg_table_size(%s), pg_indexes_size(%s)",
        "mysql": "SELECT data_length, index_length FROM information_schema.tables "
        "WHERE table_name = %s AND table_name = %s AND table_schema = DATABASE()",
    }
    if connection.vendor not in queries:
        return {}
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"ANALYZE TABLE {table}")
            cursor.fetchall()
        cursor.execute(queries[connection.vendor], [table, table])
        rows, indexes = cursor.fetchone()
    return {"rows": int(rows), "indexes": int(indexes)}


def measure(accounts: int, *, sync_profiles: bool) -> None:
    from django.db import connection

    from django_tiktok_business import services
    from django_tiktok_business.simulator import Simulator

    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        simulator = Simulator(rate_limits=False)
        fill(simulator, accounts)
        before = sizes()
        statements, cache_calls = Statements(), Counter[str]()
        count_cache_calls(cache_calls)
        with simulator.serve() as base_url:
            settings.TIKTOK_BUSINESS["API_BASE_URL"] = f"{base_url}/open_api/v1.3"
            with connection.execute_wrapper(statements):
                report = services.refresh_due_accounts(sync_profiles=sync_profiles)
        assert report.refreshed == accounts, report  # noqa: S101
        tell(accounts, len(simulator.calls), statements.counts, cache_calls)
        for name, size in before.items():
            report_progress(f"{name}: {size / accounts:.0f} bytes an account")
    finally:
        connection.creation.destroy_test_db("", verbosity=0)


def tell(accounts: int, calls: int, statements: Counter[str], cache_calls: Counter[str]) -> None:
    from django.db import connection

    report_progress(
        f"{accounts} accounts refreshed on {connection.vendor}, {calls} calls to TikTok"
    )
    for title, counts in (
        ("database statements", statements),
        ("cache operations", cache_calls),
    ):
        report_progress(f"{sum(counts.values()) / accounts:.2f} {title} an account")
        for what, number in counts.most_common(8):
            report_progress(f"  {number / accounts:6.3f} {what}")


def report_progress(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=300)
    parser.add_argument("--requests-per-minute", type=int, default=600)
    parser.add_argument("--sync-profiles", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        configure(folder, options.requests_per_minute)
        measure(options.accounts, sync_profiles=options.sync_profiles)


if __name__ == "__main__":
    main()
