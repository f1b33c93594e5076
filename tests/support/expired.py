"""Accounts that TikTok knows and whose access token has expired, and what their rows hold."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.factories import connect

REFRESH = "/tt_user/oauth2/refresh_token/"


def expired(simulator: Simulator) -> BusinessAccount:
    return connect(simulator, access_token_expires_at=timezone.now() - timedelta(hours=1))


def stored_pair(account: BusinessAccount) -> tuple[str, str]:
    row = BusinessAccount.objects.get(pk=account.pk)
    return row.access_token, row.refresh_token
