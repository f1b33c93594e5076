"""Rows for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from django_tiktok_business.simulator import Simulator


def make_user(username: str = "ada", **overrides: Any) -> User:
    """Create a user; ``is_superuser=True, is_staff=True`` allow everything."""
    user: User = get_user_model().objects.create_user(
        username, password="correct horse", **overrides
    )
    return user


def make_account(**overrides: Any) -> BusinessAccount:
    """Create a healthy account with tokens that TikTok does not know."""
    now = timezone.now()
    values: dict[str, Any] = {
        "app_id": settings.TIKTOK_BUSINESS["APP_ID"],
        "open_id": "_000TestOpenId0001",
        "access_token": "act.test-access-token",
        "refresh_token": "rft.test-refresh-token",
        "access_token_expires_at": now + timedelta(hours=20),
        "refresh_token_expires_at": now + timedelta(days=300),
        "connected_at": now - timedelta(days=65),
        "metrics_synced_at": now,  # tests of the daily metrics set another time
        **overrides,
    }
    return BusinessAccount.objects.create(**values)


def connect(
    simulator: Simulator, account: str = "harbour_bakery", **overrides: Any
) -> BusinessAccount:
    """Create an account whose tokens the simulator has issued."""
    grant = simulator.issue_grant(account)
    now = timezone.now()
    return make_account(
        **{
            "open_id": grant["open_id"],
            "access_token": grant["access_token"],
            "refresh_token": grant["refresh_token"],
            "access_token_expires_at": now + timedelta(seconds=grant["expires_in"]),
            "refresh_token_expires_at": now + timedelta(seconds=grant["refresh_token_expires_in"]),
            "scopes": sorted(grant["scope"].split(",")),
            **overrides,
        }
    )
