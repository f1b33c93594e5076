"""TikTok's answers as envelopes, for the tests of `api`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django_tiktok_business.api.envelope import Envelope
from django_tiktok_business.exceptions import APIError
from django_tiktok_business.masking import SecretBytes

REQUEST_ID = "202611221015304A7C19E2D0B85F6A3391"


def answer_of(document: Any, *, status: int = 200, **options: Any) -> Envelope:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Envelope(status, SecretBytes(content), **options)


def refusal(code: Any, message: Any = "No.", **options: Any) -> Envelope:
    return answer_of(
        {"code": code, "message": message, "request_id": REQUEST_ID, "data": {}}, **options
    )


def error_of(answer: Envelope, errors: Mapping[int, type[APIError]] | None = None) -> APIError:
    error = answer.error(errors or {})
    assert error is not None
    return error


def answer_with(data: Any) -> Envelope:
    return answer_of({"code": 0, "message": "OK", "request_id": REQUEST_ID, "data": data})


# Values that cannot be a token.
NO_TOKENS = [
    *("act.a\nb", "act.a\0b", "act.a b", " act.a", "act.a\t", "act.\ud800", "act.ä", "\x7f"),
    *(7, True, ["act.a"], {"token": "act.a"}, 1.5),
]
