"""Measurements inside one process: ``python -m benchmarks.probe NAME ...`` prints JSON.

The imports are inside the functions, because `setup` measures how long imports take.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

APP_ID = "7000000000000000001"
APP_SECRET = "simulator-app-secret-not-real"  # noqa: S105 -- opens nothing
BATCH_ROWS = 32  # what the engine claims at once with 32 calls in flight


def _django() -> None:
    import django

    django.setup()


def _cpu_seconds() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_kib() -> int:
    """The peak memory of this process."""
    import resource
    from pathlib import Path

    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a new process starts at that of its parent
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# What is there


def database() -> dict[str, Any]:
    _django()
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return {"version": f"PostgreSQL {cursor.fetchone()[0].split()[0]}"}


def cache() -> dict[str, Any]:
    _django()
    from django.conf import settings

    try:
        from redis import Redis, RedisError
    except ImportError:
        return {"version": "", "error": "the package redis is not installed"}
    try:
        with Redis.from_url(settings.CACHES["default"]["LOCATION"]) as server:
            return {"version": f"Redis {server.info('server')['redis_version']}", "error": ""}
    except RedisError as error:
        return {"version": "", "error": type(error).__name__}


# Rows


def fill(grants_path: str) -> dict[str, Any]:
    """Store the simulator's accounts as due rows, for us and for the plain loop."""
    _django()
    from datetime import timedelta
    from pathlib import Path

    from django.utils import timezone

    from benchmarks.models import PlainAccount
    from django_tiktok_business.models import BusinessAccount

    now = timezone.now()
    grants = json.loads(Path(grants_path).read_text(encoding="utf-8"))
    BusinessAccount.objects.all().delete()
    PlainAccount.objects.all().delete()
    for start in range(0, len(grants), 1000):
        values = [
            {
                "open_id": grant["open_id"],
                "access_token": grant["access_token"],
                "refresh_token": grant["refresh_token"],
                "access_token_expires_at": now - timedelta(minutes=1),
                "refresh_token_expires_at": now + timedelta(days=300),
                "scopes": sorted(grant["scope"].split(",")),
                "display_name": "Harbour Bakery",
                "username": "harbour_bakery",
            }
            for grant in grants[start : start + 1000]
        ]
        BusinessAccount.objects.bulk_create(
            BusinessAccount(app_id=APP_ID, connected_at=now, **each) for each in values
        )
        PlainAccount.objects.bulk_create(PlainAccount(**each) for each in values)
    _analyze()
    return {"rows": len(grants)}


def reset() -> dict[str, Any]:
    """Make all accounts due again."""
    _django()
    from datetime import timedelta

    from django.utils import timezone

    from benchmarks.models import PlainAccount
    from django_tiktok_business.models import BusinessAccount

    due = {"access_token_expires_at": timezone.now() - timedelta(minutes=1)}
    BusinessAccount.objects.update(**due, last_refreshed_at=None)
    PlainAccount.objects.update(**due)
    _analyze()
    return {}


def _analyze() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


# Refreshing


def command(*arguments: str) -> dict[str, Any]:
    """Run ``manage.py refresh_tokens``; its report and peak memory."""
    _django()
    from io import StringIO

    from django.core.management import CommandError, call_command

    output = StringIO()
    try:
        call_command("refresh_tokens", "--json", "--no-progress", *arguments, stdout=output)
    except CommandError as error:
        if not output.getvalue():
            return {"error": str(error)}
    report = json.loads(output.getvalue().splitlines()[-1])
    report["failures"] = len(report["failures"])
    return {**report, "peak_kib": _peak_kib()}


def command_cpu(accounts: str) -> dict[str, Any]:
    """CPU seconds per account of the batch behind the command, without starting up."""
    _django()
    from django_tiktok_business import services

    services.refresh_due_accounts(limit=20)
    begin = _cpu_seconds()
    report = services.refresh_due_accounts(limit=int(accounts))
    return {"cpu_seconds": (_cpu_seconds() - begin) / report.refreshed}


def loop(accounts: str, base_url: str) -> dict[str, Any]:
    """What a project would write with python-tiktok: one account after the other."""
    _django()
    from datetime import timedelta

    from django.utils import timezone
    from pytiktok import BusinessAccountApi

    from benchmarks.models import PlainAccount

    api = BusinessAccountApi(
        app_id=APP_ID, app_secret=APP_SECRET, base_url=f"{base_url}/open_api", timeout=20
    )
    begin = time.perf_counter()
    soon = timezone.now() + timedelta(hours=6)
    due = PlainAccount.objects.filter(access_token_expires_at__lte=soon)
    for account in due.order_by("access_token_expires_at")[: int(accounts)]:
        answer = api.refresh_access_token(account.refresh_token, return_json=True)
        now = timezone.now()
        account.access_token = answer["access_token"]
        account.refresh_token = answer["refresh_token"]
        account.access_token_expires_at = now + timedelta(seconds=answer["expires_in"])
        lifetime = timedelta(seconds=answer["refresh_token_expires_in"])
        account.refresh_token_expires_at = now + lifetime
        account.scopes = sorted(answer["scope"].split(","))
        account.save()
    return {"duration_seconds": time.perf_counter() - begin}


def _refresh_calls(grants_path: str) -> list[dict[str, str]]:
    from pathlib import Path

    grants = json.loads(Path(grants_path).read_text(encoding="utf-8"))
    return [
        {
            "client_id": APP_ID,
            "client_secret": APP_SECRET,
            "grant_type": "refresh_token",
            "refresh_token": grant["refresh_token"],
        }
        for grant in grants
    ]


def post_cpu(calls: str, base_url: str, grants_path: str) -> dict[str, Any]:
    """CPU seconds of the bare call: alone, and with a session that keeps its connection."""
    import requests

    url = f"{base_url}/open_api/v1.3/tt_user/oauth2/refresh_token/"
    bodies = _refresh_calls(grants_path)[: int(calls)]

    def each_with(post: Callable[..., requests.Response]) -> float:
        for body in bodies[:20]:
            post(url, json=body, timeout=20).json()
        begin = _cpu_seconds()
        for body in bodies:
            post(url, json=body, timeout=20).json()
        return (_cpu_seconds() - begin) / len(bodies)

    with requests.Session() as session:
        return {"cpu_seconds": each_with(requests.post), "session": each_with(session.post)}


def hammer(seconds: str, base_url: str, grants_path: str, part: str, parts: str) -> dict[str, Any]:
    """Refresh over a plain socket for this long, doing as little as possible on our side."""
    import socket
    from urllib.parse import urlsplit

    address = urlsplit(base_url)
    requests = []
    for call in _refresh_calls(grants_path)[int(part) :: int(parts)]:
        body = json.dumps(call)
        requests.append(
            "POST /open_api/v1.3/tt_user/oauth2/refresh_token/ HTTP/1.1\r\n"
            f"Host: {address.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
    answered = 0
    with socket.create_connection((address.hostname or "", address.port or 80)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = time.perf_counter()
        while (duration := time.perf_counter() - begin) < float(seconds):
            connection.sendall(requests[answered % len(requests)])
            if not connection.recv(65536).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("the simulator refused a call")
            answered += 1
    return {"calls": answered, "duration_seconds": duration}


# Finding and claiming


def fill_many(rows: str) -> dict[str, Any]:
    """Make this many rows whose tokens expire within a day, in the database alone."""
    _django()
    from datetime import timedelta

    from django.db import connection
    from django.utils import timezone

    from django_tiktok_business.models import BusinessAccount

    BusinessAccount.objects.all().delete()
    now = timezone.now()
    first = BusinessAccount.objects.create(
        app_id=APP_ID,
        open_id="_000BENCHTemplate",
        access_token="act.SIM" + "x" * 60,
        refresh_token="rft.SIM" + "x" * 60,
        access_token_expires_at=now,
        refresh_token_expires_at=now + timedelta(days=300),
        connected_at=now,
        scopes=["user.info.basic", "user.info.username", "video.list"],
    )
    made = {
        "open_id": "'_000BENCH' || lpad(number::text, 20, '0')",
        # Spread over a day, in random order.
        "access_token_expires_at": "now() + mod(number::bigint * 7919, 86400) * interval '1s'",
    }
    quote = connection.ops.quote_name
    columns = [
        field.column or field.name
        for field in BusinessAccount._meta.concrete_fields
        if not field.primary_key
    ]
    names = ", ".join(map(quote, columns))
    values = ", ".join(made.get(column, quote(column)) for column in columns)
    table = quote(BusinessAccount._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({names}) SELECT {values} FROM {table}, "  # noqa: S608
            "generate_series(1, %s) AS number",
            [int(rows)],
        )
    first.delete()
    _analyze()
    return {"rows": BusinessAccount.objects.count()}


def claims(batches: str) -> dict[str, Any]:
    """Seconds to find the next page of due accounts and to claim a batch of them."""
    _django()
    import statistics
    from datetime import timedelta

    from django_tiktok_business.conf import conf
    from django_tiktok_business.models import BusinessAccount
    from django_tiktok_business.tokens.claims import claim
    from django_tiktok_business.tokens.due import Due

    within = timedelta(seconds=conf.REFRESH_WITHIN_SECONDS)
    due = Due.now(BusinessAccount.objects.using("default").filter(app_id=APP_ID), within)
    pages = due.pages()
    finding, claiming = [], []
    for _ in range(int(batches)):
        begin = time.perf_counter()
        pks = [row.pk for row in pages.next()[:BATCH_ROWS]]
        found = time.perf_counter()
        claimed = claim(pks, "default", condition=due.condition)
        claiming.append(time.perf_counter() - found)
        finding.append(found - begin)
        if len(claimed) != BATCH_ROWS:
            raise RuntimeError(f"{len(claimed)} rows were claimed")
    BusinessAccount.objects.exclude(claim_id="").update(claim_id="", claim_expires_at=None)
    return {
        "first": finding[0] + claiming[0],
        "find": statistics.median(finding),
        "claim": statistics.median(claiming),
    }


# Another key


def fill_encrypted(rows: str) -> dict[str, Any]:
    """Add this many rows under the current key, and as many in the plain project's table."""
    _django()
    from datetime import timedelta

    from cryptography.fernet import Fernet
    from django.utils import timezone

    from benchmarks.models import PlainAccount
    from django_tiktok_business.models import BusinessAccount

    access_token, refresh_token = "act.SIM" + "x" * 60, "rft.SIM" + "x" * 60
    numbers = range(int(rows))
    BusinessAccount.objects.filter(open_id__startswith="_000SEALED").delete()
    BusinessAccount.objects.bulk_create(
        BusinessAccount(
            app_id=APP_ID,
            open_id=f"_000SEALED{number}",
            access_token=access_token,
            refresh_token=refresh_token,
        )
        for number in numbers
    )
    PlainAccount.objects.all().delete()
    cipher = Fernet(_fernet_key("old"))
    now = timezone.now()
    PlainAccount.objects.bulk_create(
        PlainAccount(
            open_id=f"_000SEALED{number}",
            access_token=cipher.encrypt(access_token.encode()).decode(),
            refresh_token=cipher.encrypt(refresh_token.encode()).decode(),
            access_token_expires_at=now,
            refresh_token_expires_at=now + timedelta(days=300),
        )
        for number in numbers
    )
    _analyze()
    return {"rows": BusinessAccount.objects.count()}


def _fernet_key(name: str) -> bytes:
    import base64
    import hashlib

    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest())


def rotate() -> dict[str, Any]:
    """Run ``manage.py rotate_encryption_keys``; its counts and peak memory."""
    _django()
    from django_tiktok_business.encryption.rotation import rotate_encryption_keys
    from django_tiktok_business.models import BusinessAccount

    begin = time.perf_counter()
    report = rotate_encryption_keys(BusinessAccount)
    duration = time.perf_counter() - begin
    return {
        "rotated": report.rotated,
        "seen": report.rotated + report.unreadable,
        "duration_seconds": duration,
        "peak_kib": _peak_kib(),
    }


def rotate_plain() -> dict[str, Any]:
    """What a project would write with Fernet: every row read, rotated and saved."""
    _django()
    from cryptography.fernet import Fernet, MultiFernet

    from benchmarks.models import PlainAccount

    ciphers = MultiFernet([Fernet(_fernet_key("new")), Fernet(_fernet_key("old"))])
    rotated = 0
    begin = time.perf_counter()
    for account in PlainAccount.objects.iterator():
        account.access_token = ciphers.rotate(account.access_token).decode()
        account.refresh_token = ciphers.rotate(account.refresh_token).decode()
        account.save(update_fields=["access_token", "refresh_token"])
        rotated += 1
    return {"rotated": rotated, "duration_seconds": time.perf_counter() - begin}


# Reading a token


def access(reads: str) -> dict[str, Any]:
    """Microseconds to get a good token, each way; the best of many alternating tries."""
    _django()
    from datetime import timedelta
    from secrets import token_hex
    from types import SimpleNamespace

    from cryptography.fernet import Fernet
    from django.utils import timezone

    from django_tiktok_business import services
    from django_tiktok_business.fields import Ciphertext
    from django_tiktok_business.models import BusinessAccount

    text = "act.SIM" + "x" * 60

    def account() -> BusinessAccount:
        """An instance as loaded, of an account that this process has not seen before."""
        loaded = BusinessAccount(
            app_id=APP_ID,
            open_id=f"_000BENCH{token_hex(10)}",
            access_token_expires_at=timezone.now() + timedelta(hours=20),
        )
        loaded.access_token = Ciphertext(loaded.encrypt("access_token", text).text, "row")
        return loaded

    fernet = Fernet(Fernet.generate_key())
    plain = SimpleNamespace(access_token=fernet.encrypt(text.encode()).decode())
    ours = account()
    number = int(reads)

    def by_fernet() -> str:
        return fernet.decrypt(plain.access_token.encode()).decode()

    def microseconds(read: Callable[[], str]) -> float:
        read()
        begin = time.perf_counter()
        for _ in range(number):
            read()
        return (time.perf_counter() - begin) / number * 1e6

    with_fernet, with_us = [], []
    for _ in range(15):
        with_fernet.append(microseconds(by_fernet))
        with_us.append(microseconds(lambda: services.get_access_token(ours)))
    strangers = [account() for _ in range(1000)][:200]  # whose keys are no longer cached
    first_and_second = []
    for _ in range(2):
        begin = time.perf_counter()
        for stranger in strangers:
            services.get_access_token(stranger)
        first_and_second.append((time.perf_counter() - begin) / len(strangers) * 1e6)
    return {
        "fernet": min(with_fernet),
        "ours": min(with_us),
        "first": first_and_second[0],
        "second": first_and_second[1],
    }


# The admin's list


def pages(views: str) -> dict[str, Any]:
    """Milliseconds of the list of accounts: ours, the bare admin's, and ours with new counts."""
    _django()
    import statistics

    from django.contrib.auth import get_user_model
    from django.core.cache import cache
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    call_command("migrate", verbosity=0)
    user, _ = get_user_model().objects.get_or_create(
        username="root", defaults={"is_staff": True, "is_superuser": True}
    )
    client = Client()
    client.force_login(user)

    def milliseconds(site: str, *, afresh: bool = False) -> float:
        if afresh:
            cache.clear()
        begin = time.perf_counter()
        response = client.get(f"/{site}/tiktok_business/businessaccount/")
        elapsed = (time.perf_counter() - begin) * 1000
        if response.status_code != 200 or b"result_list" not in response.content:
            raise RuntimeError(f"/{site}/ answered {response.status_code}")
        return elapsed

    counts: list[float] = []

    def timed(execute: Any, sql: str, *arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return execute(sql, *arguments)
        finally:
            if "GROUP BY" in sql:
                counts.append((time.perf_counter() - begin) * 1000)

    queries = {}
    cache.clear()
    for site in ("admin", "bare"):  # also fills all caches
        with CaptureQueriesContext(connection) as captured:
            milliseconds(site)
        queries[site] = len(captured)
    ours, bare, afresh = [], [], []
    for _ in range(int(views)):
        ours.append(milliseconds("admin"))
        bare.append(milliseconds("bare"))
        with connection.execute_wrapper(timed):
            afresh.append(milliseconds("admin", afresh=True))
    return {
        "ours": statistics.median(ours),
        "bare": statistics.median(bare),
        "afresh": statistics.median(afresh),
        "counting": statistics.median(counts),
        "queries": queries["admin"],
        "bare_queries": queries["bare"],
    }


# Starting


def setup(site: str, apps: str) -> dict[str, Any]:
    """Milliseconds of ``django.setup()``: a bare project, or one as `startproject` makes it."""
    from django.conf import settings

    installed = ["django.contrib.auth", "django.contrib.contenttypes"]
    if site == "admin":
        installed += [
            "django.contrib.admin",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.staticfiles",
        ]
    settings.configure(
        SECRET_KEY="benchmarks-only",  # noqa: S106 -- opens nothing
        USE_TZ=True,
        INSTALLED_APPS=[*installed, *filter(None, apps.split(","))],
        TIKTOK_BUSINESS={"APP_ID": APP_ID, "APP_SECRET": APP_SECRET},
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    import django

    # It waits for nothing, so CPU time leaves out only what other processes take from it.
    begin = time.process_time()
    django.setup()
    milliseconds = (time.process_time() - begin) * 1000
    early = sorted({"cryptography", "requests"} & set(sys.modules))
    return {"milliseconds": milliseconds, "imported_early": early}


def main() -> None:
    name, *arguments = sys.argv[1:]
    probes: dict[str, Callable[..., dict[str, Any]]] = {
        probe.__name__: probe
        for probe in (
            *(database, cache, fill, reset, command, command_cpu, loop, post_cpu, hammer),
            *(fill_many, claims, fill_encrypted, rotate, rotate_plain, pages, access, setup),
        )
    }
    sys.stdout.write(json.dumps(probes[name](*arguments)) + "\n")


if __name__ == "__main__":
    main()
