"""`Notice`: one row for each account and kind, which nobody edits."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.db import IntegrityError, transaction
from django.utils import timezone

from django_tiktok_business.models import BusinessAccount, Notice
from tests.support.factories import make_account

pytestmark = pytest.mark.django_db


def make_notice(account: BusinessAccount, kind: Notice.Kind) -> Notice:
    now = timezone.now()
    return Notice.objects.create(
        account=account, kind=kind, consent_at=now, credentials_version=1, claimed_until=now
    )


def test_account_has_one_notice_of_each_kind() -> None:
    account = make_account()
    notices = [make_notice(account, kind) for kind in Notice.Kind]
    with pytest.raises(IntegrityError), transaction.atomic():
        make_notice(account, Notice.Kind.CONSENT_ENDS_SOON)
    assert [str(notice) for notice in notices] == [str(kind.label) for kind in Notice.Kind]
    assert {notice.told_at for notice in account.notices.all()} == {None}
    account.delete()
    assert not Notice.objects.exists()


def test_nobody_gets_a_permission_for_notices() -> None:
    assert not Permission.objects.filter(content_type__model="notice").exists()
