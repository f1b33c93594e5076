"""No token, code, state, secret or key gets out, except as ciphertext in the database.

One drive through the whole app (`tests.support.canary_drive`) is followed by a search of all that
it left.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.db import SessionStore
from django.core import mail
from django.core.cache import cache
from django.core.mail import EmailMultiAlternatives
from django.core.management import call_command
from django.test import Client
from pytest_django import DjangoDbBlocker

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import FAULTS
from django_tiktok_business.simulator.faults import NOT_OVER_HTTP
from tests.support.canaries import Evidence, canary, everything_logged
from tests.support.canary_drive import Drive
from tests.support.factories import make_account, make_user
from tests.support.leaks import Search
from tests.support.requires import require
from tests.support.simulator_calls import PROFILE, REFRESH, REVOKE, TOKEN, TOKEN_INFO

pytestmark = [pytest.mark.django_db, pytest.mark.databases("sqlite"), pytest.mark.once]

CALLS = (TOKEN, REFRESH, PROFILE, REVOKE, TOKEN_INFO)
PLACES = (
    *("log", "mail", "response", "session", "database", "history", "dump", "pickle", "cache"),
    *("exception", "outcome", "command", "process", "stdout", "stderr", "warnings"),
    *("redis", "worker", "simulator"),
)


@pytest.fixture(scope="module")
def evidence(
    tmp_path_factory: pytest.TempPathFactory,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Evidence:
    """What one drive leaves behind. Its processes see the database, which is emptied afterwards."""
    require("redis")
    with django_db_blocker.unblock():
        try:
            return Drive(tmp_path_factory.mktemp("drive")).run()
        finally:
            call_command("flush", verbosity=0, interactive=False)


@pytest.fixture(scope="module")
def search(evidence: Evidence) -> Search:
    return Search(evidence.secrets)


@pytest.mark.parametrize("place", PLACES)
def test_f34_nothing_secret_is_seen_anywhere(
    place: str, evidence: Evidence, search: Search
) -> None:
    assert evidence.seen[place]
    found = {when: search.found_in(text) for when, text in evidence.seen[place]}
    assert {when: secrets for when, secrets in found.items() if secrets} == {}


def test_f34_nothing_that_was_seen_is_left_out(evidence: Evidence) -> None:
    assert set(evidence.seen) == set(PLACES)


def test_f33_tokens_in_the_database_are_ciphertext(evidence: Evidence) -> None:
    tokens = [text for text in evidence.ciphertexts if text]
    assert len(tokens) >= 50
    assert {text[:5] for text in tokens} == {"ttb1:"}


# The drive has covered what it claims


def test_drive_has_met_every_fault_in_every_call(evidence: Evidence) -> None:
    over_http = set(FAULTS) - set(NOT_OVER_HTTP)
    met = {(path, fault) for path, fault in evidence.acted_out if fault}
    wanted = {(f"/open_api/v1.3{path}", fault) for path in CALLS for fault in over_http}
    assert wanted - met == set()
    failed = {when for when, _ in evidence.seen["exception"]}
    for fault in NOT_OVER_HTTP:
        assert {f"{call}, {fault}, str" for call in ("profile", "refresh", "revoke")} <= failed
        assert f"callback, {fault}" in {when for when, _ in evidence.seen["response"]}


def test_drive_knows_the_secrets_that_were_at_work(evidence: Evidence) -> None:
    texts = [secret for secret in evidence.secrets if isinstance(secret, str)]
    for beginning, least in (("act.SIM", 100), ("rft.SIM", 50), ("SIMcode_", 50), ("app-", 1)):
        assert sum(secret.startswith(beginning) for secret in texts) >= least
    assert sum(isinstance(secret, bytes) for secret in evidence.secrets) == 12
    assert sum(len(secret) == 43 and secret.isascii() for secret in texts) >= 50  # states


@pytest.mark.parametrize(
    ("place", "texts"),
    [
        ("log", [f'/open_api/v1.3{path} HTTP/1.1" 200' for path in (TOKEN, REFRESH, REVOKE)]),
        ("log", [f"/open_api/v1.3{PROFILE}?business_id=", "DEBUG urllib3.connectionpool"]),
        ("log", ["DEBUG django.db.backends", "WARNING tiktok_business", "ERROR django.dispatch"]),
        ("log", ["ERROR django.request", "secrets in this frame", "held = (<secret>, <secret>"]),
        ("mail", ["secrets in this frame", "Traceback", "(&lt;secret&gt;, &lt;secret&gt;"]),
        ("response", ["secrets in this frame", "(&lt;secret&gt;, &lt;secret&gt;", "no disk"]),
        ("response", ["state=STATE", "Server Error (500)", "after 302", "Disconnect"]),
        ("session", ["tiktok_business_states", "digest"]),
        ("history", ["Disconnected."]),
        ("dump", ['"access_token": "ttb1:', 'name="access_token" type="TextField">ttb1:']),
        ("pickle", ["ttb1:", "RefreshReport"]),
        ("cache", ["tiktok_business.state."]),
        ("exception", ["FieldError", "<secret>", "AccessTokenRejectedError", "CommandError"]),
        ("command", ['"refreshed": ', "unreadable ", "rotated=", "would refresh ", "W014"]),
        ("process", ["DEBUG:urllib3.connectionpool", '"refreshed"', "would_rotate=", "ttb1:"]),
        ("redis", ["tiktok_business.refresh_due", "tiktok_business.sync_profiles", "LPUSH"]),
        ("worker", ["DEBUG", "Traceback", "raised unexpected", "refresh_accounts"]),
        ("simulator", ["grants", "/v2/auth/authorize", "'fault': 'truncated'"]),
    ],
)
def test_drive_has_seen_what_it_is_about(place: str, texts: list[str], evidence: Evidence) -> None:
    everything = evidence.all_of(place)
    assert [text for text in texts if text not in everything] == []


# The search can fail: it finds a leak wherever it is


SECRET = canary("planted")
PLANTED = Search([SECRET])


def _report(secret: str) -> None:
    raise LookupError(len(secret))


def _in_a_report(logger: logging.Logger) -> None:
    held = str(SECRET)
    try:
        _report(held)
    except LookupError:
        logger.exception("It failed.")


def _in_a_frame(logger: logging.Logger) -> None:
    """A library logs harmless words while a secret is in its hands; tests are left out."""
    library: dict[str, Any] = {"__name__": "library"}
    exec("def call(token, logger):\n    logger.debug('Calling.')", library)
    library["call"](SECRET, logger)


class Unprintable:
    """Like Celery's proxy of a task that is still being created."""

    def __repr__(self) -> str:
        raise LookupError("not registered")


def _beside_what_cannot_be_shown(logger: logging.Logger) -> None:
    """Before Python 3.13, `traceback` shows no variables at all if one of them cannot be shown."""
    library: dict[str, Any] = {"__name__": "library"}
    exec("def call(first, token, last, logger):\n    logger.debug('Calling.')", library)
    library["call"](Unprintable(), SECRET, Unprintable(), logger)


def _in_a_report_beside_what_cannot_be_shown(logger: logging.Logger) -> None:
    first, held = Unprintable(), str(SECRET)
    try:
        _report(held)
    except LookupError:
        logger.exception("It failed beside %s.", type(first))


@pytest.mark.parametrize(
    "leak",
    [
        lambda logger: logger.debug("Token: %s", SECRET),
        lambda logger: logger.debug("Calling.", extra={"token": SECRET}),
        lambda logger: logger.debug("Body: %r", {"token": SECRET.encode().hex()}),
        _in_a_report,
        _in_a_frame,
        _beside_what_cannot_be_shown,
        _in_a_report_beside_what_cannot_be_shown,
    ],
    ids=["message", "attribute", "hex", "report", "frame", "frame beside", "report beside"],
)
def test_leak_into_the_log_is_noticed(leak: Callable[[logging.Logger], None]) -> None:
    evidence = Evidence()
    with everything_logged(evidence):
        leak(logging.getLogger("another"))
    assert PLANTED.found_in(evidence.all_of("log"))


def test_leak_into_an_error_or_what_is_returned_is_noticed(tmp_path: Path) -> None:
    drive = Drive(tmp_path)
    drive.attempt("error", lambda: _report(str(SECRET)))
    drive.attempt("returned", lambda: [SECRET])
    drive.attempt("not to be pickled", lambda: iter(lambda: SECRET, None))
    noticed = {when for when, text in drive.evidence.seen["exception"] if PLANTED.found_in(text)}
    assert {"error, traceback with variables", "error, page, DEBUG=True"} <= noticed
    assert [bool(PLANTED.found_in(text)) for _, text in drive.evidence.seen["pickle"]] == [
        False,
        True,
    ]


@pytest.fixture
def leaking_places() -> Iterator[None]:
    account = make_account(last_error_message=f"TikTok said {SECRET}")
    kind = ContentType.objects.get_for_model(BusinessAccount)
    LogEntry.objects.create(
        user=make_user(),
        content_type=kind,
        object_id=str(account.pk),
        action_flag=CHANGE,
        object_repr="An account",
        change_message=f"Renewed to {SECRET}",
    )
    session = SessionStore()
    session["next"] = f"/shop/?code={SECRET}" * 9  # long enough to be packed, as stored
    session.save()
    cache.set("tokens", {account.pk: SECRET})
    message = EmailMultiAlternatives("An error", "No token here", to=["a@b.example"])
    message.attach_alternative(f"<p>{SECRET}</p>", "text/html")
    mail.outbox.append(message)
    yield
    cache.clear()


@pytest.mark.usefixtures("leaking_places")
def test_leak_into_what_is_stored_or_sent_is_noticed(tmp_path: Path) -> None:
    drive = Drive(tmp_path)
    drive.look("planted")
    noticed = {
        place
        for place, seen in drive.evidence.seen.items()
        if any(PLANTED.found_in(text) for _, text in seen)
    }
    assert noticed == {"database", "history", "session", "cache", "mail"}


def test_leak_into_a_response_is_noticed(tmp_path: Path) -> None:
    drive = Drive(tmp_path)
    response = Client().get("/tiktok/", {"next": SECRET})
    drive.see("redirect to the login page", response)
    assert PLANTED.found_in(drive.evidence.all_of("response"))
    assert not PLANTED.found_in(pickle.dumps(response.content))
