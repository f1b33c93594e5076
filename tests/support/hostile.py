"""Property tests: how many cases they try, and a TikTok that answers anything.

``TEST_HYPOTHESIS=nightly`` (``make fuzz``) tries other cases each time, and many more of them.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
from django.db import connection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from tests.support.simulator import forget_limits, override_tiktok

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    Test = TypeVar("Test", bound=Callable[..., None])

PROFILE = os.environ.get("TEST_HYPOTHESIS", "ci")
TIMES_IN = {"ci": 1, "nightly": 20}

_COMMON: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    # A failing case is shrunk but not explained: that takes longer than all the rest.
    "phases": [Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink],
    "suppress_health_check": [
        HealthCheck.too_slow,  # depends on the load of the machine
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,  # `case` undoes what a case does to them
    ],
}
settings.register_profile("ci", derandomize=True, database=None, **_COMMON)
settings.register_profile("nightly", **_COMMON)
settings.load_profile(PROFILE)

CASES_IN_CI: dict[str, int] = {}  # by the name of the property


def cases(in_ci: int) -> Callable[[Test], Test]:
    """Try a property on this many cases, or a tenth of them if the database is not SQLite."""
    number = in_ci * TIMES_IN[PROFILE] if connection.vendor == "sqlite" else in_ci // 10

    def decorate(test: Test) -> Test:
        CASES_IN_CI[f"{test.__module__}.{test.__name__}"] = in_ci
        return settings(max_examples=number)(test)

    return decorate


@contextmanager
def case() -> Iterator[None]:
    """Undo what one case does to the database and the rate limits.

    Not by atomic(): for the services that would be a transaction of their caller.
    """
    point = connection.savepoint()
    assert point is not None  # inside the test's own transaction
    try:
        yield
    finally:
        connection.savepoint_rollback(point)
        forget_limits()


# TikTok, in process


@dataclass(frozen=True)
class Reply:
    """An HTTP answer with any bytes."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class _Adapter(BaseAdapter):
    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        _asked.set()
        path = urlsplit(request.url or "").path
        reply = next(reply for end, reply in _replies[-1].items() if str(path).endswith(end))
        response = requests.Response()
        response.status_code = reply.status
        response.headers.update(reply.headers)
        response.request = request
        response.raw = HTTPResponse(
            BytesIO(reply.body), headers=reply.headers, status=reply.status, preload_content=False
        )
        return response

    def close(self) -> None:
        pass


_replies: list[Mapping[str, Reply]] = []
_asked = threading.Event()


def session() -> requests.Session:
    """The session factory inside `answering`."""
    new = requests.Session()
    new.mount("https://", _Adapter())
    return new


@contextmanager
def answering(replies: Mapping[str, Reply]) -> Iterator[threading.Event]:
    """Let TikTok answer so, by the end of the path; "" is the end of each.

    Gives an event that the first call sets: as the ``stop`` of a batch it spares the pauses that
    an answer may ask for.
    """
    _asked.clear()
    _replies.append(replies)
    try:
        yield _asked
    finally:
        _replies.pop()


def from_hostile_tiktok() -> AbstractContextManager[object]:
    """Settings that send calls to `answering` and repeat none."""
    return override_tiktok(SESSION_FACTORY_PATH="tests.support.hostile.session", MAX_ATTEMPTS=1)


# JSON, as text: not all of it can be written by json.dumps()

_TEXT = st.text(st.characters(), max_size=40)  # NUL, controls and lone surrogates, too
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(),
    _TEXT,
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=8,
)
_ODDITIES = [
    *("0", "-0", "0.0", "1", "-1", "1e999", "-1e999", "1e400", "NaN", "Infinity", "-Infinity"),
    *("9" * 400, "9" * 5000, f"-{'9' * 19}", "9223372036854775807", "9223372036854775808"),
    *("86400", '"86400"', "31536000", "-86400", "315360001", "1e8", "86400.5", "1795000000000"),
    *("40103", "40107", "40131", '"40107"', "40107.0", "40100", "40105", "40113", "50000", "20001"),
    *('""', '" "', '"\\u0000"', '"a\\u0000b"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"'),
    *('"\\u202e\\u200b"', '"<script>alert(1)</script>"', '"javascript:alert(1)"', '"http://[::1"'),
    *('"https://[x]/"', '"https://a.test/?x-expires=9e9"', '"https://a.test/?x-expires=٣"'),
    *('"x-expires"', f'"https://a.test/?x-expires={"9" * 5000}"', '"act.tok en"', '"act.töken"'),
    *("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000, '[{"a":' * 40_000),
    *('{"code": 0, "code": 40107}', "{}", "[]", "[[]]", "01", "", "}", "'x'", "//", "undefined"),
    *(
        f'"{"a" * 100_000}"',
        f'"{"é" * 50_000}"',
        '"' + "\\\\" * 100_000 + '"',
        f'"{"% " * 50_000}"',
    ),
    json.dumps(["user.info.basic", None, 7, "\ud800", "a,b"]),
    json.dumps([f"scope.{number}" for number in range(2000)]),
]
json_texts = _VALUES.map(json.dumps) | st.sampled_from(_ODDITIES)

_Pairs = list[tuple[str, str]]


def _written(pairs: _Pairs) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in pairs) + "}"


@st.composite
def documents(draw: st.DrawFn, data: Mapping[str, Any]) -> str:
    """TikTok's envelope around ``data``, with some parts replaced by any JSON value."""
    envelope = {"code": 0, "message": "OK", "request_id": "20261122ABC", "data": {}}
    outer = [(name, json.dumps(value)) for name, value in envelope.items()]
    inner = [(name, json.dumps(value)) for name, value in data.items()]
    for _ in range(draw(st.integers(0, 3))):
        pairs = draw(st.sampled_from([outer, inner, inner]))
        place = draw(st.integers(0, len(pairs) - 1))
        name = pairs[place][0]
        change = draw(st.sampled_from(["replace", "replace", "remove", "repeat", "add"]))
        if change == "replace":
            pairs[place] = (name, draw(json_texts))
        elif change == "repeat":
            pairs.append((name, draw(json_texts)))
        elif change == "add":
            pairs.insert(place, (draw(_TEXT), draw(json_texts)))
        else:
            pairs.pop(place)
    keeps_data = dict(outer).get("data") == "{}"
    return _written(
        [(name, _written(inner) if keeps_data and name == "data" else text) for name, text in outer]
    )


# What a proxy, or TikTok itself, may add without meaning anything.
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Retry-After": st.sampled_from(
            [
                *("-1", "0", "1e9", "9" * 400, "9" * 5000, "٣", "²", "nan", "", " ", "Soon", "\t"),
                *("Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359"),
                *("Mon, 99 Foo 99999999999999999999 99:99:99 +9999", "Mon, 1 Jan 2026", "1 2 3 4"),
                *("Wed, 21 Oct 2026 07:28:00 GMT", ", , , ,", "Mon, 01 Jan 2026 00:00:00 -0000"),
            ]
        )
        | st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=40),
        "Content-Type": st.sampled_from(
            ["application/json", "text/html; charset=utf-7", "application/json; charset=undefined"]
        ),
        "Location": st.sampled_from(["http://[", "https://elsewhere.invalid/", "\xff"]),
        "Set-Cookie": st.sampled_from(["a=b; Domain=.tiktok.com", "=;=", "\xff=\xfe"]),
        "Content-Encoding": st.sampled_from(["identity", "gzip", "br", "nonsense", "gzip, gzip"]),
    },
)
STATUSES_WITH_BODY = st.sampled_from([200, 200, 201, 302, 400, 401, 403, 404, 429, 500, 503, 999])
STATUSES = st.just(204) | STATUSES_WITH_BODY
ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be"])


@st.composite
def replies(draw: st.DrawFn, data: Mapping[str, Any]) -> Reply:
    """An answer around ``data`` that resembles TikTok's, or does not at all."""
    body = draw(
        st.builds(str.encode, documents(data), ENCODINGS)
        | st.builds(str.encode, json_texts)
        | st.binary(max_size=60)
    )
    return Reply(body, draw(STATUSES), draw(HEADERS))


def envelope_in(reply: Reply) -> dict[str, Any]:
    """The envelope in an answer, {} if there is none."""
    try:
        # A body after "no content" is not read.
        value = json.loads(b"" if reply.status == 204 else reply.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def code_of(envelope: Mapping[str, Any]) -> float | None:
    """The code of an envelope, read tolerantly; None if it is not a number."""
    try:
        return float(str(envelope.get("code")))
    except ValueError:
        return None
