"""Search for secrets: every spelling of one, and everything an error shows."""

from __future__ import annotations

import base64
import json
import pickle
import pprint
import re
import traceback
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from django.test import override_settings
from django.utils.html import escapejs
from django.views.debug import ExceptionReporter

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator
    from types import FrameType

WINDOW = 12  # this many successive characters of a spelling give the secret away
SHORTEST = 7  # anything shorter occurs in texts by chance
# Every piece of WINDOW characters contains this many from some multiple of _STRIDE on.
_STRIDE = 5
_SAMPLE = WINDOW - _STRIDE + 1


def spellings(secret: str | bytes) -> set[bytes]:
    """Every way in which a text may contain the secret."""
    plain = secret if isinstance(secret, bytes) else secret.encode()
    written = {repr(plain)[2:-1], plain.hex(), plain.hex().upper(), quote(plain), quote_plus(plain)}
    if isinstance(secret, str):
        written |= {repr(secret)[1:-1], json.dumps(secret)[1:-1], escape(secret), escapejs(secret)}
    written |= {quote(plain, safe="")}
    written |= {re.sub("%..", lambda sign: sign[0].lower(), text) for text in written}
    return {plain, *(text.encode() for text in written), *_inside_base64(plain)}


def _inside_base64(plain: bytes) -> Iterator[bytes]:
    """The part of base64 text that does not depend on what surrounds the secret."""
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + plain)
        whole = encoded[-(-offset * 8 // 6) : (offset + len(plain)) * 8 // 6]
        yield whole
        yield whole.replace(b"+", b"-").replace(b"/", b"_")


def _pieces(text: bytes, length: int) -> Iterator[bytes]:
    return (text[start : start + length] for start in range(len(text) - length + 1))


class Search:
    """A search for many secrets at once: each piece of WINDOW characters, in every spelling."""

    def __init__(self, secrets: Iterable[str | bytes]) -> None:
        self._whole: dict[bytes, str] = {}
        self._pieces: dict[bytes, str] = {}
        for secret in secrets:
            assert len(secret) >= SHORTEST, secret
            name = f"{secret[:WINDOW]!r}..."
            for spelling in spellings(secret):
                if len(spelling) <= WINDOW:
                    self._whole[spelling] = name
                self._pieces.update(dict.fromkeys(_pieces(spelling, WINDOW), name))
        self._samples = {sample for piece in self._pieces for sample in _pieces(piece, _SAMPLE)}

    def found_in(self, text: str | bytes) -> set[str]:
        """The beginnings of the secrets that the text contains."""
        if isinstance(text, str):
            text = text.encode(errors="surrogatepass")
        found = {name for spelling, name in self._whole.items() if spelling in text}
        samples = (text[at : at + _SAMPLE] for at in range(0, len(text), _STRIDE))
        if not self._samples.isdisjoint(samples):  # rare, which makes this five times as fast
            pieces = self._pieces.keys() & set(_pieces(text, WINDOW))
            found |= {self._pieces[piece] for piece in pieces}
        return found


def shown_of(error: BaseException, *, with_pages: bool = True) -> dict[str, str]:
    """Everything an error shows, by who sees it; ``with_pages`` adds Django's slow reports."""
    exc_info = (type(error), error, error.__traceback__)
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    return {
        **(_reports(error) if with_pages else {}),
        "str": str(error),
        "repr": repr(error),
        "attributes": f"{error.args!r} {vars(error)!r}",
        "pickle": pickle.dumps(error).decode("latin-1"),
        "traceback": "".join(traceback.format_exception(*exc_info)),
        "traceback with variables": with_variables(error),
        "variables": repr(frames) + pprint.pformat(frames),
    }


def _reports(error: BaseException) -> dict[str, str]:
    reports = {}
    for debug in (True, False):
        with override_settings(DEBUG=debug):
            reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
            reports[f"page, DEBUG={debug}"] = reporter.get_traceback_html()
    return {**reports, "mail": reporter.get_traceback_text()}


def with_variables(error: BaseException) -> str:
    """A traceback as error trackers show it: with the variables of each frame."""
    texts = traceback.format_exception(error)
    errors = [error]
    while errors:
        error = errors.pop()
        for frame, _ in traceback.walk_tb(error.__traceback__):
            texts.append(f"In {frame.f_code.co_name}:\n")
            texts += [f"    {name} = {shown}\n" for name, shown in variables_of(frame).items()]
        context = None if error.__suppress_context__ else error.__context__
        related = [error.__cause__ or context, *getattr(error, "exceptions", ())]
        errors += [other for other in related if other is not None]
    return "".join(texts)


def variables_of(frame: FrameType) -> dict[str, str]:
    """The variables of a frame; if the ``repr`` of one fails, the others are still shown.

    Before Python 3.13, `traceback` shows none of them then.
    """
    return {name: _shown(value) for name, value in frame.f_locals.items()}


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 -- whatever somebody's `__repr__` raises
        return f"<{type(error).__name__} in repr>"


def shown_in(records: Iterable[logging.LogRecord]) -> dict[str, str]:
    """Everything that log records show, by logger."""
    return {
        f"log record {record.name}": f"{record.getMessage()} {vars(record)!r}"
        for record in records
        if record.name != "asyncio"
    }
