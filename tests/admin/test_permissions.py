"""What the admin of a project that is stricter than usual still refuses: rows, and other models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection, models
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import path
from django.utils import timezone

from django_tiktok_business.admin import BusinessAccountAdmin
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import Simulator
from tests.support.administrators import LIST, html, log_in_root, log_in_staff, page_of, select
from tests.support.factories import connect, make_account, make_user
from tests.support.simulator import running_simulator

pytestmark = pytest.mark.django_db(transaction=True)

Status = BusinessAccount.Status
strict_site = admin.AdminSite(name="strict")


class StrictAccountAdmin(BusinessAccountAdmin):
    """Nobody may touch the accounts of the press office; it has filters of its own, too."""

    date_hierarchy = "connected_at"
    list_filter = (
        *BusinessAccountAdmin.list_filter,
        "status",
        "app_id",
        "is_verified",
        "profile_synced_at",
        ["owner", admin.RelatedFieldListFilter],
        ("bio", admin.EmptyFieldListFilter),
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _is_open(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and _is_open(obj)


def _is_open(account: BusinessAccount | None) -> bool:
    return account is None or account.username != "press"


strict_site.register(BusinessAccount, StrictAccountAdmin)
urlpatterns = [path("admin/", strict_site.urls)]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize(
    "action", ["refresh_selected", "sync_selected", "disconnect_selected", "delete_selected"]
)
def test_bulk_action_does_nothing_to_a_row_that_may_not_be_touched(
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


# MariaDB knows no time zones here, which Django's date hierarchy takes.
@pytest.mark.databases("sqlite", "postgresql")
@override_settings(ROOT_URLCONF=__name__)
def test_links_of_a_projects_own_filters_are_followed(client: Client) -> None:
    log_in_root(client)
    now = timezone.now()
    for number in range(3):  # so that there is something to choose
        made = {"app_id": str(number), "owner": make_user(f"user{number}")}
        at = now - timedelta(days=400 * number)
        make_account(**made, connected_at=at, profile_synced_at=at, is_verified=bool(number))
    links = set(re.findall(r'href="(\?[^"]+)"', html(client.get(LIST))))
    parameters = {unescape(link)[1:].partition("=")[0].partition("__")[0] for link in links}
    assert parameters >= {"status", "app_id", "is_verified", "profile_synced_at", "owner", "bio"}
    assert parameters >= {"connected_at", "health"}
    assert {client.get(f"{LIST}{unescape(link)}").status_code for link in links} == {200}


@pytest.fixture
def notices() -> Iterator[type[models.Model]]:
    """A model of the project's that is called as one of ours, and goes with its account."""

    class Notice(models.Model):
        account = models.ForeignKey(BusinessAccount, models.CASCADE, related_name="press_notices")

        class Meta:
            app_label = "auth"

        def __str__(self) -> str:
            return "Fire in the harbour"

    with connection.schema_editor() as editor:
        editor.create_model(Notice)
    admin.site.register(Notice)
    yield Notice
    admin.site.unregister(Notice)
    with connection.schema_editor() as editor:
        editor.delete_model(Notice)
    del apps.all_models["auth"]["notice"]
    apps.clear_cache()


def test_models_of_the_project_need_their_own_permission_whatever_they_are_called(
    client: Client, notices: Any
) -> None:
    log_in_staff(client, "view delete")
    account = make_account(status=Status.REVOKED)
    notices.objects.create(account=account)
    page = html(client.get(page_of(account, "delete")))
    assert "permission to delete the following types" in page
    client.post(page_of(account, "delete"), {"post": "yes"})
    select(client, "delete_selected", [account], post="yes")
    assert notices.objects.count() == 1
    log_in_root(client)
    assert "Fire in the harbour" in html(client.get(page_of(account, "delete")))


class Lagging:
    """A router that reads accounts from a replica, which nobody can reach here."""

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
def test_what_ends_a_connection_is_decided_where_it_is_written(
    client: Client, simulator: Simulator, press: Any
) -> None:
    log_in_root(client)
    account = connect(simulator, status=Status.ACTIVE)
    with override_settings(DATABASE_ROUTERS=[Lagging()]):
        assert press(client, account).status_code == 302
    assert simulator.count("/tt_user/oauth2/revoke/") == 1
    assert not BusinessAccount.objects.exclude(status=Status.REVOKED).exists()
