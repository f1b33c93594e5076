"""What tests share: the simulator behind SESSION_FACTORY_PATH, and settings that merge."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.test import override_settings

from django_tiktok_business.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

_current: list[Simulator] = []


def simulator_session() -> requests.Session:
    """The session factory of the test settings: a session of the simulator in use."""
    return _current[-1].session()


@contextmanager
def running_simulator(**options: Any) -> Iterator[Simulator]:
    """Let TikTok be a new simulator inside the block."""
    simulator = Simulator(**options)
    _current.append(simulator)
    try:
        yield simulator
    finally:
        _current.remove(simulator)


def override_tiktok(**keys: Any) -> override_settings:
    """Override some keys of TIKTOK_BUSINESS and keep the rest."""
    return override_settings(TIKTOK_BUSINESS={**settings.TIKTOK_BUSINESS, **keys})
