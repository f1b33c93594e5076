"""Build clients and rate limiters from the settings."""

from __future__ import annotations

from django.utils.module_loading import import_string

from django_tiktok_business.conf import conf

from .client import TikTokClient
from .rate_limit import RateLimiter, shared_limiter


def limiter_from_settings(requests_per_minute: int | None = None) -> RateLimiter:
    """The shared rate limit: REQUESTS_PER_MINUTE unless another number is given."""
    if requests_per_minute is None:
        requests_per_minute = conf.REQUESTS_PER_MINUTE
    return shared_limiter(requests_per_minute, app_id=conf.APP_ID, cache_alias=conf.CACHE_ALIAS)


def client_from_settings(limiter: RateLimiter | None = None) -> TikTokClient:
    """A client of the configured app, with sessions from SESSION_FACTORY_PATH."""
    path = conf.SESSION_FACTORY_PATH
    return TikTokClient(
        conf.APP_ID,
        conf.APP_SECRET,
        base_url=conf.API_BASE_URL,
        limiter=limiter or limiter_from_settings(),
        timeout=conf.REQUEST_TIMEOUT_SECONDS,
        max_attempts=conf.MAX_ATTEMPTS,
        session_factory=import_string(path) if path else None,
    )
