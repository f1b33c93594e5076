"""Calls in threads: each is made once, and no answer is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from django_tiktok_business.api import factory
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.tokens.pool import Call, CallPool


@pytest.fixture
def pool() -> Iterator[CallPool]:
    with CallPool(1, factory.limiter_from_settings(0)) as pool:
        yield pool


def call(number: int, answer: object, *, at: float = 0) -> Call:
    def request(client: TikTokClient) -> object:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return Call(BusinessAccount(pk=number), at, request)


def all_answers(pool: CallPool) -> dict[int, object]:
    """Wait for the answers to all calls; by the primary key of the account."""
    answers = {}
    while pool.in_flight:
        for account, answer in pool.answers(None):
            answers[account.pk] = answer
            pool.acknowledge()
    return answers


def test_answers_are_what_the_calls_return_or_raise(pool: CallPool) -> None:
    error = LookupError()
    pool.submit(call(1, "a grant"), call(2, error))
    assert pool.in_flight == 2
    assert all_answers(pool) == {1: "a grant", 2: error}


def test_answer_is_repeated_until_it_is_acknowledged(pool: CallPool) -> None:
    pool.submit(call(1, "a grant"))
    for _ in range(2):
        assert next(pool.answers(None)) == (BusinessAccount(pk=1), "a grant")
        assert pool.in_flight == 1


def test_wait_for_an_answer_ends_in_time(pool: CallPool) -> None:
    began_at = time.monotonic()
    pool.submit(call(1, "a grant", at=began_at + 1))
    assert list(pool.answers(0.05)) == []
    assert next(pool.answers(None)) == (BusinessAccount(pk=1), "a grant")
    assert time.monotonic() - began_at >= 1, "the call is not made before its time"


def test_calls_that_no_thread_has_begun_can_be_cancelled(pool: CallPool) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def wait(client: TikTokClient) -> str:
        has_begun.set()
        assert may_end.wait(timeout=30)
        return "a grant"

    pool.submit(Call(BusinessAccount(pk=1), 0, wait), call(2, "never made"))
    assert has_begun.wait(timeout=30)
    pool.cancel_pending()
    may_end.set()
    assert all_answers(pool) == {1: "a grant", 2: None}


def test_calls_wait_for_a_thread_only_without_a_rate_limit() -> None:
    with (
        CallPool(8, factory.limiter_from_settings(0)) as free,
        CallPool(8, factory.limiter_from_settings(600)) as limited,
    ):
        assert (free.ahead, limited.ahead) == (4, 0)
