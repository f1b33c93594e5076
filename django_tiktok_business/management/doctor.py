"""Diagnose a set-up: check for the usual mistakes, one after the other.

Changes nothing. It connects to TikTok's hosts, asks TikTok to refresh a token that does not exist
(the error tells whether TikTok accepts the app's credentials), and fetches information about the
tokens of the given accounts.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as AnyDatabaseError
from django.db import router
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from django_tiktok_business import services
from django_tiktok_business.api import factory
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.checks.encryption import check_stored_tokens
from django_tiktok_business.conf import conf
from django_tiktok_business.db import vendors
from django_tiktok_business.encryption.keys import encryption_secrets
from django_tiktok_business.exceptions import (
    AppCredentialsRejectedError,
    ReauthorizationRequired,
    TikTokBusinessError,
)
from django_tiktok_business.models import BusinessAccount

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"
# HTTP dates are whole seconds, and a response takes its time.
CLOCK_TOLERANCE = timedelta(seconds=30)
_NO_TOKEN = "rft.there-is-no-such-token"  # noqa: S105 -- a token that TikTok never issued


@dataclass(frozen=True)
class Finding:
    """The result of one check; ``hint`` says what to do about it, "" if nothing is wrong."""

    check: str
    level: str
    message: str
    hint: str = ""


def diagnose(open_ids: Iterable[str] = ()) -> Iterator[Finding]:
    """Check settings, URLs, cache, TikTok and all accounts; ask TikTok about ``open_ids``."""
    has_errors = False
    for finding in _settings():
        has_errors = has_errors or finding.level == ERROR
        yield finding
    if has_errors:
        yield Finding(
            "settings", ERROR, "The rest was not looked at.", "Mend the settings and run it again."
        )
        return
    yield _callback()
    yield _cache()
    is_reachable = yield from _tiktok()
    try:
        yield from _accounts()
        for open_id in open_ids if is_reachable else ():
            yield from _account(open_id)
    except AnyDatabaseError as error:
        yield Finding(
            "database",
            ERROR,
            f"{vendors.describe_error(error)}.",
            "Is it up, and is `migrate` done?",
        )


def _settings() -> Iterator[Finding]:
    messages = checks.run_checks(
        tags=["tiktok_business"], include_deployment_checks=not settings.DEBUG
    )
    found = [message for message in messages if not message.is_silenced()]
    yield from map(_from_check, found)
    try:
        encryption_secrets()
    except ImproperlyConfigured as error:
        yield Finding("settings", ERROR, f"{error}", "Set ENCRYPTION_KEYS.")
        return
    if not found:
        yield Finding("settings", OK, "TIKTOK_BUSINESS is complete and well-formed.")


def _from_check(message: checks.CheckMessage) -> Finding:
    level = ERROR if message.level >= checks.ERROR else WARNING
    return Finding("settings", level, f"{message.msg} ({message.id})", message.hint or "")


def _callback() -> Finding:
    try:
        path = reverse("tiktok_business:callback")
    except NoReverseMatch:
        return Finding(
            "redirect_uri",
            ERROR,
            "The callback has no URL.",
            'Put path("tiktok/", include("django_tiktok_business.urls")) into your urls.py.',
        )
    except Exception as error:  # noqa: BLE001 -- raised by importing the project's urls.py
        return Finding(
            "redirect_uri",
            ERROR,
            f"The project's URLs cannot be loaded ({type(error).__name__}).",
            "Try `manage.py check`.",
        )
    uri = conf.REDIRECT_URI
    if uri is None:
        return Finding(
            "redirect_uri", OK, f"The callback is {path}, on whichever host the site is visited."
        )
    try:
        redirect_path = urlsplit(uri).path
    except ValueError:
        return Finding(
            "redirect_uri", ERROR, "REDIRECT_URI is no URL.", f"Write https://YOUR-HOST{path}"
        )
    if redirect_path != path:
        return Finding(
            "redirect_uri",
            WARNING,
            f"REDIRECT_URI leads to {redirect_path}, and the callback is {path}.",
            "Make the two equal, here and in TikTok's portal, unless a proxy changes the path.",
        )
    return Finding("redirect_uri", OK, f"REDIRECT_URI leads to the callback, {path}.")


def _cache() -> Finding:
    alias = conf.CACHE_ALIAS
    key = f"tiktok_business:doctor:{uuid.uuid4().hex}"
    try:
        cache = caches[alias]
        added = [cache.add(key, 1, timeout=10) for _ in range(2)]
        cache.delete(key)
    except Exception as error:  # noqa: BLE001 -- each cache backend has its own errors
        return Finding(
            "cache",
            WARNING,
            f"Cache {alias!r} fails ({type(error).__name__}): each process keeps to "
            "REQUESTS_PER_MINUTE by itself.",
            "Is the cache server up?",
        )
    if added != [True, False]:
        return Finding(
            "cache",
            WARNING,
            f"Cache {alias!r} does not keep what is added: each process keeps to "
            "REQUESTS_PER_MINUTE by itself.",
            "Point CACHE_ALIAS to Redis, Memcached or the database cache.",
        )
    return Finding("cache", OK, f"Cache {alias!r} lets one process at a time take a turn.")


def _tiktok() -> Generator[Finding, None, bool]:
    """Check hosts, clock and credentials; returns whether the API can be reached.

    The host of the authorization page only has to be reachable from browsers.
    """
    with closing(factory.client_from_settings()) as client:
        hosts = {_address(conf.AUTHORIZATION_URL): WARNING, _address(conf.API_BASE_URL): ERROR}
        for address, level in hosts.items():
            host = urlsplit(address).netloc
            try:
                host_time = client.reach(address)
            except TikTokBusinessError as error:
                hint = "Look at the firewall, at the proxy, and at SESSION_FACTORY_PATH."
                if level == WARNING:
                    hint = "Only the browsers of account holders need it, not this machine."
                yield Finding("network", level, f"{host}: {error}", hint)
                if level == ERROR:
                    return False
            except Exception as error:  # noqa: BLE001 -- raised by the project's session factory
                yield Finding(
                    "network",
                    ERROR,
                    f"SESSION_FACTORY_PATH gives no session ({type(error).__name__}).",
                    "Have it return a requests.Session.",
                )
                return False
            else:
                yield Finding("network", OK, f"{host} can be reached.")
                yield from _clock(host, host_time)
        yield _credentials(client)
    return True


def _address(url: str) -> str:
    """Scheme and host of a URL, without the user name and password that it may contain."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"


def _credentials(client: TikTokClient) -> Finding:
    # Inferred: TikTok checks the app's credentials before it checks the token.
    try:
        OAuth(client).refresh(_NO_TOKEN)
    except ReauthorizationRequired:
        pass
    except AppCredentialsRejectedError as error:
        return Finding(
            "credentials",
            ERROR,
            f"TikTok refuses the app: {error}",
            "Copy APP_ID and APP_SECRET from TikTok's portal once more.",
        )
    except TikTokBusinessError as error:
        return Finding(
            "credentials",
            WARNING,
            f"Whether TikTok accepts the app could not be found out: {error}",
            "Run it again later.",
        )
    return Finding("credentials", OK, "TikTok accepts APP_ID and APP_SECRET.")


def _clock(host: str, host_time: datetime | None) -> Iterator[Finding]:
    if host_time is None:
        return
    difference = datetime.now(UTC) - host_time
    if abs(difference) > CLOCK_TOLERANCE:
        direction = "ahead of" if difference > timedelta(0) else "behind"
        yield Finding(
            "clock",
            WARNING,
            f"This machine's clock is {abs(difference.total_seconds()):.0f} seconds {direction} "
            f"that of {host}.",
            "Set it by NTP: expiries are counted from the clock.",
        )
    else:
        yield Finding("clock", OK, f"This machine's clock agrees with that of {host}.")


def _accounts() -> Iterator[Finding]:
    using = router.db_for_read(BusinessAccount)
    now = timezone.now()
    accounts = BusinessAccount.objects.using(using)
    rows = accounts.filter(app_id=conf.APP_ID)
    counts = {status: rows.filter(status=status).count() for status in BusinessAccount.Status}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    yield Finding("accounts", OK, f"Accounts: {summary}.")
    problems = (
        (
            accounts.exclude(app_id=conf.APP_ID),
            "accounts belong to another app than APP_ID and are never refreshed.",
            "Put that app's id back, or have them connected again.",
        ),
        (
            rows.needs_attention(),
            "accounts have to be connected again, now or soon.",
            "The admin lists them; only their holders can do it.",
        ),
        (
            rows.active().filter(access_token_expires_at__lte=now),
            "active accounts have an expired access token.",
            "Does refresh_tokens run, every quarter of an hour or so?",
        ),
        (
            rows.active().filter(consecutive_failures__gt=0),
            "active accounts could not be refreshed the last time.",
            "The admin shows why; they are tried again.",
        ),
        (
            rows.filter(claim_expires_at__lte=now),
            "accounts are still claimed by a worker that is gone.",
            "The next refresh takes them over.",
        ),
    )
    for queryset, message, hint in problems:
        if count := queryset.count():
            yield Finding("accounts", WARNING, f"{count} {message}", hint)
    yield from map(_from_check, check_stored_tokens(None, databases=[using]))


def _account(open_id: str) -> Iterator[Finding]:
    account = BusinessAccount.objects.filter(app_id=conf.APP_ID, open_id=open_id).first()
    if account is None:
        yield Finding(
            "account", ERROR, f"{open_id} is not connected to the configured app.", "Is it whole?"
        )
        return
    try:
        with services.account_client(account) as client:
            info = client.token_info()
    except TikTokBusinessError as error:
        yield Finding(
            "account", ERROR, f"{open_id}: {error}", "README, under Errors, says what to do."
        )
        return
    if info.open_id != open_id or set(info.scopes) != set(account.granted_scopes):
        yield Finding(
            "account",
            WARNING,
            f"{open_id}: TikTok says that the token is for {info.open_id}, with the scopes "
            f"{', '.join(sorted(info.scopes)) or 'none'}; stored are "
            f"{', '.join(account.granted_scopes) or 'none'}.",
            f"Run manage.py refresh_tokens --account {open_id}, which stores what TikTok grants.",
        )
        return
    yield Finding("account", OK, f"{open_id}: TikTok accepts the token, with the stored scopes.")
    if missing := account.missing_scopes:
        yield Finding(
            "account",
            WARNING,
            f"{open_id}: its holder has not granted {', '.join(missing)}.",
            "Have it connected again, or take these out of SCOPES.",
        )
