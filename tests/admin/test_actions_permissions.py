"""Row permissions and replicas: what the actions refuse, and which database they ask."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import path

from django_tiktok_business.admin import BusinessAccountAdmin
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.administrators import LIST, log_in_root, page_of, select
from tests.support.factories import connect

Status = BusinessAccount.Status
strict_site = admin.AdminSite(name="strict")

pytestmark = pytest.mark.django_db(transaction=True)


class StrictAccountAdmin(BusinessAccountAdmin):
    """Nobody may change or delete the account of the press office."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _is_open(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and _is_open(obj)


def _is_open(account: BusinessAccount | None) -> bool:
    return account is None or account.username != "press"


strict_site.register(BusinessAccount, StrictAccountAdmin)
urlpatterns = [path("admin/", strict_site.urls)]


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize(
    "action", ["refresh_selected", "sync_selected", "disconnect_selected", "delete_selected"]
)
def test_bulk_action_does_nothing_if_one_row_is_forbidden(
    client: Client, simulator: Simulator, action: str
) -> None:
    log_in_root(client)
    others = [
        connect(simulator, "harbour_bakery"),
        connect(simulator, "lena.draws", username="press"),
    ]
    before = list(BusinessAccount.objects.order_by("pk").values())
    assert select(client, action, others, post="yes").status_code == 403
    assert list(BusinessAccount.objects.order_by("pk").values()) == before
    assert simulator.count("/tt_user/oauth2/revoke/") == 0


class Lagging:
    """A router that reads accounts from a replica, which does not exist here."""

    def db_for_read(self, model: type[models.Model], **hints: object) -> str | None:
        return "replica" if model is BusinessAccount else None


@pytest.mark.parametrize(
    "press",
    [
        lambda client, account: client.post(f"/tiktok/{account.pk}/disconnect/"),
        lambda client, account: client.post(page_of(account, "disconnect")),
        lambda client, account: client.post(page_of(account, "delete"), {"post": "yes"}),
        lambda client, account: client.post(
            LIST,
            {
                "action": "disconnect_selected",
                "_selected_action": [account.pk],
                "post": "yes",
            },
        ),
    ],
)
def test_disconnecting_reads_from_the_primary_database(
    client: Client, simulator: Simulator, press: Any
) -> None:
    log_in_root(client)
    account = connect(simulator, status=Status.ACTIVE)
    with override_settings(DATABASE_ROUTERS=[Lagging()]):
        assert press(client, account).status_code == 302
    assert simulator.count("/tt_user/oauth2/revoke/") == 1
    assert not BusinessAccount.objects.exclude(status=Status.REVOKED).exists()
