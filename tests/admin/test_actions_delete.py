"""Deleting accounts in the admin: it revokes first, and takes records along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import connection, models
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import path, reverse

from django_tiktok_business import events, services
from django_tiktok_business.admin import BusinessAccountAdmin
from django_tiktok_business.models import BusinessAccount, ConnectionEvent, DailyMetrics
from django_tiktok_business.simulator import Call, Simulator
from tests.support.administrators import (
    BY_HAND,
    add_metrics,
    html,
    log_in_root,
    log_in_staff,
    make_unreadable,
    messages_in,
    page_of,
    press,
    select,
    words,
)
from tests.support.factories import connect, make_account
from tests.support.simulator import override_tiktok, running_simulator

REVOKE = "/tt_user/oauth2/revoke/"

# A project with an admin site of its own that protects accounts from deletion.
second_site = admin.AdminSite(name="second")


class ProtectedAccountAdmin(BusinessAccountAdmin):
    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        return [], {}, set(), ["an invoice"]


second_site.register(BusinessAccount, ProtectedAccountAdmin)
urlpatterns = [path("second/", second_site.urls)]


def delete_one(client: Client, account: BusinessAccount) -> Any:
    return press(client, account, "delete", post="yes")


def delete_selected(client: Client, account: BusinessAccount) -> Any:
    return select(client, "delete_selected", [account], post="yes")


Status = BusinessAccount.Status


@pytest.fixture
def notices() -> Iterator[type[models.Model]]:
    """A model in the project, named like one of ours, whose rows are deleted with the account."""

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


def test_delete_page_announces_the_revocation_without_revoking_yet(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    sentence = "TikTok is told to end this site&#x27;s access"
    # The sentence belongs to this package, so it is quoted in full.
    assert sentence.replace("&#x27;", "'") in html(root.get(page_of(account, "delete")))
    assert simulator.calls == []
    BusinessAccount.objects.update(status="revoked")
    assert "TikTok is told" not in html(root.get(page_of(account, "delete")))


def test_f50_deleting_revokes_first_and_reports_it(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    page = press(root, account, "delete", post="yes")
    assert messages_in(page) == [
        ("success", f"{account} is disconnected, and TikTok has confirmed it."),
        ("success", f"The TikTok Business account “{account}” was deleted successfully."),
    ]
    assert simulator.live_tokens(account.open_id) is None
    assert not BusinessAccount.objects.exists()


def test_f50_deleting_with_tiktok_down_deletes_and_warns(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    simulator.fail_next(http_status=503, path=REVOKE, times=None)
    with override_tiktok(MAX_ATTEMPTS=1):
        page = press(root, account, "delete", post="yes")
    (warning, success) = messages_in(page)
    assert warning[0] == "warning"
    assert warning[1].endswith(BY_HAND)
    assert success[0] == "success"
    assert not BusinessAccount.objects.exists()


def test_deleting_a_disconnected_account_does_not_ask_tiktok(
    root: Client, account: BusinessAccount, simulator: Simulator
) -> None:
    services.disconnect_account(account)
    page = press(root, account, "delete", post="yes")
    assert [level for level, _ in messages_in(page)] == ["success"]
    assert simulator.count(REVOKE) == 1
    assert not BusinessAccount.objects.exists()


def test_deleting_an_unreadable_account_works(root: Client, account: BusinessAccount) -> None:
    make_unreadable(account)
    page = press(root, account, "delete", post="yes")
    assert [level for level, _ in messages_in(page)] == ["warning", "success"]
    assert "cannot be decrypted" in messages_in(page)[0][1]
    assert not BusinessAccount.objects.exists()


def test_account_that_is_connected_again_meanwhile_is_not_deleted(
    root: Client, reconnected_meanwhile: Simulator
) -> None:
    account = connect(reconnected_meanwhile)
    page = press(root, account, "delete", post="yes")
    assert page.redirect_chain == [(page_of(account), 302)]
    assert [level for level, _ in messages_in(page)] == ["error"]
    page = select(root, "delete_selected", [account], post="yes")
    assert [level for level, _ in messages_in(page)] == ["error"]
    assert BusinessAccount.objects.get().access_token == account.access_token


def test_deleting_by_another_field_revokes_the_account_that_it_names(
    root: Client, simulator: Simulator, account: BusinessAccount
) -> None:
    root.post(page_of(account, "delete"), {"post": "yes", "_to_field": "id"})
    assert simulator.live_tokens(account.open_id) is None
    assert not BusinessAccount.objects.exists()


def test_code_that_deletes_through_the_admin_revokes_first(
    simulator: Simulator, account: BusinessAccount
) -> None:
    model_admin = BusinessAccountAdmin(BusinessAccount, admin.site)
    revoked = make_account(status="revoked")
    model_admin.delete_queryset(HttpRequest(), BusinessAccount.objects.all())
    assert simulator.live_tokens(account.open_id) is None
    assert simulator.count(REVOKE) == 1
    assert not BusinessAccount.objects.filter(pk__in=[account.pk, revoked.pk]).exists()


@override_settings(ROOT_URLCONF=__name__)
def test_account_that_may_not_be_deleted_stays_connected(
    root: Client, simulator: Simulator, account: BusinessAccount
) -> None:
    page = root.post(
        reverse("second:tiktok_business_businessaccount_delete", args=[account.pk]), {"post": "yes"}
    )
    assert "an invoice" in html(page)
    assert "TikTok is told" not in html(page)
    listed = reverse("second:tiktok_business_businessaccount_changelist")
    form = {"action": "delete_selected", "_selected_action": [account.pk], "post": "yes"}
    assert "an invoice" in html(root.post(listed, form))
    assert simulator.calls == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("atomic_requests", [False, True])
@pytest.mark.parametrize("delete", [delete_one, delete_selected])
def test_f13_deleting_asks_tiktok_outside_of_the_admins_transaction(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    delete: Callable[[Client, BusinessAccount], Any],
    atomic_requests: bool,
) -> None:
    in_transaction: list[bool] = []

    def look(call: Call) -> None:
        in_transaction.append(connection.in_atomic_block)

    log_in_root(client)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic_requests)
    with running_simulator(on_call=look) as simulator:
        account = connect(simulator)
        page = delete(client, account)
        assert [level for level, _ in messages_in(page)] == ["success", "success"]
        assert simulator.live_tokens(account.open_id) is None
    # With ATOMIC_REQUESTS this cannot work on SQLite, where one transaction blocks all others.
    assert in_transaction == [atomic_requests and connection.vendor == "sqlite"]
    assert not BusinessAccount.objects.exists()


def test_delete_page_lists_no_metrics_and_events(root: Client) -> None:
    with running_simulator() as simulator:
        account = connect(simulator, metrics_synced_at=None)
        services.sync_profile(account)
        events.record(account, events.Kind.CONNECTED, "default")
        page = html(root.get(page_of(account, "delete")))
        assert "Harbour Bakery" in page
        assert "Connection event: " not in page
        assert "Figures of a day: " not in page
        root.post(page_of(account, "delete"), {"post": "yes"})
    assert not BusinessAccount.objects.exists()
    assert not DailyMetrics.objects.exists()
    assert not ConnectionEvent.objects.exists()


@pytest.mark.django_db
def test_deleting_needs_no_permission_for_metrics_and_events(client: Client) -> None:
    log_in_staff(client, "view delete")
    with running_simulator() as simulator:
        account = connect(simulator)
        events.record(account, events.Kind.CONNECTED, "default")
        add_metrics(account, 1, likes=1)
        page = client.get(page_of(account, "delete"))
        assert "deleting the" not in words(html(page))
        client.post(page_of(account, "delete"), {"post": "yes"})
    assert not BusinessAccount.objects.exists()
    assert Permission.objects.filter(codename="delete_connectionevent").exists()


@pytest.mark.django_db(transaction=True)
def test_models_of_the_project_need_their_own_permission_even_with_the_same_name(
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
