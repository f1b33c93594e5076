"""Known secrets, code that fails while it holds them, and observers of what comes out."""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import django
import requests
from django.contrib import admin
from django.db import connection
from django.urls import include, path
from django.utils.log import AdminEmailHandler
from requests.adapters import HTTPAdapter

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from django_tiktok_business.views import CallbackView
from tests.support.leaks import variables_of, with_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from django.http import HttpRequest, HttpResponse

    from django_tiktok_business.simulator.wire import Request, Response

TABLE = BusinessAccount._meta.db_table
ADMINS = ["a@b.example"] if django.VERSION >= (6,) else [("A", "a@b.example")]
ISSUED = re.compile(r"(?:act|rft)\.SIM[^\"\s]+|SIMcode_[^\"\s]+")


def canary(name: str) -> str:
    """A secret that is in no source file, where a debug page would show it."""
    return f"{name}-{secrets.token_urlsafe(24)}+/=*!'&"


# What is driven


class CanarySimulator(Simulator):
    """Remembers every code and token that it has issued, including the dead ones."""

    def __init__(self, state_path: Path, **options: Any) -> None:
        super().__init__(state_path=state_path, **options)
        self._state = state_path
        self.issued: set[str] = set()

    def handle(self, request: Request) -> Response:
        response = super().handle(request)
        self.issued.update(ISSUED.findall(self._state.read_text(encoding="utf-8")))
        return response


class CrashingCallback(CallbackView):
    """A project's view whose own hook fails at the end, while it holds a token."""

    def get_success_url(self, account: BusinessAccount) -> str:
        held = (account.access_token, account.refresh_token, self._response.code)
        raise LookupError(f"{len(held)} secrets in this frame")


def crashing_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def crash(request: HttpRequest) -> HttpResponse:
        raise LookupError(f"after {get_response(request).status_code}")

    return crash


urlpatterns = [
    path("admin/", admin.site.urls),
    path("tiktok/", include("django_tiktok_business.urls")),
    path("crash/", CrashingCallback.as_view()),
]


def impatient_session() -> requests.Session:
    """A session factory: its calls do not wait for answers that never come."""
    session = requests.Session()
    session.mount("http://", ImpatientAdapter())
    return session


class ImpatientAdapter(HTTPAdapter):
    def send(self, *arguments: Any, **options: Any) -> requests.Response:
        return super().send(*arguments, **{**options, "timeout": 0.2})


def crashing_receiver(account: BusinessAccount, **_: Any) -> None:
    held = (account.access_token, account.refresh_token)
    raise LookupError(f"{len(held)} secrets in this frame")


# What is seen


class Evidence:
    """Everything that has come out: what, where, and when."""

    def __init__(self) -> None:
        self.seen: defaultdict[str, list[tuple[str, str | bytes]]] = defaultdict(list)
        self.secrets: set[str | bytes] = {"act.SIM", "rft.SIM", "SIMcode_"}
        self.ciphertexts: list[str] = []
        self.acted_out: set[tuple[str, str | None]] = set()  # ends of paths, faults

    def keep(self, place: str, when: str, text: str | bytes) -> None:
        self.seen[place].append((when, text))

    def all_of(self, place: str) -> str:
        return "\n".join(f"{when}: {text!s}" for when, text in self.seen[place])


class Witness(logging.Handler):
    """Sees what error trackers see of a record: all attributes, and the frames' variables."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(logging.DEBUG)
        self.evidence = evidence
        self._is_busy = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_busy:  # the repr of a queryset asks the database, which logs
            return
        self._is_busy = True
        # In a thread without a connection, nobody would close the one opened for this.
        leave = str if connection.connection else connection.close
        try:
            texts = [self.format(record), repr(vars(record))]
            if record.exc_info and record.exc_info[1] and record.levelno > logging.DEBUG:
                texts.append(with_variables(record.exc_info[1]))
            if not record.name.startswith(("django.db", "django.template")):
                texts += [
                    f"{frame.f_code.co_name} {variables_of(frame)}"
                    for frame in _frames_of(sys._getframe(1))
                ]
            self.evidence.keep("log", f"{record.levelname} {record.name}", "\n".join(texts))
        finally:
            leave()
            self._is_busy = False


def _frames_of(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a call, up to the test that made it and knows the secrets."""
    while frame and not str(frame.f_globals["__name__"]).startswith(("tests.", "django.test.")):
        yield frame
        frame = frame.f_back


@contextmanager
def everything_logged(evidence: Evidence) -> Iterator[None]:
    mails = AdminEmailHandler(include_html=True)
    mails.setLevel(logging.ERROR)
    loggers = [logging.getLogger(), logging.getLogger("django")]
    levels = [logger.level for logger in loggers]
    usual = loggers[0].handlers[:]  # pytest would record everything twice more
    loggers[0].handlers[:] = [Witness(evidence), mails]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        loggers[0].handlers[:] = usual
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
