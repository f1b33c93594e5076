"""What users rely on keeps its path: names to import, settings, pages, commands and ids.

Each list is written out here, so that a name which moves or vanishes fails a test. Something new
that users may rely on is added to its list.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import get_commands
from django.template.loader import get_template
from django.urls import reverse
from django.utils.module_loading import import_string

import django_tiktok_business
from django_tiktok_business import conf, fields
from django_tiktok_business.conf.settings import SETTINGS
from django_tiktok_business.models import BusinessAccount

NAME = "django_tiktok_business"
PACKAGE = Path(django_tiktok_business.__file__).parent

# Modules and packages that users import from -> all that they export.
FACES = {
    "admin": {"BusinessAccountAdmin", "ConnectionEventAdmin"},
    "apps": {"TikTokBusinessConfig"},
    "celery_tasks": {"refresh_accounts", "refresh_due", "sync_profiles"},
    "checks": {"register"},
    "conf": {"conf", "from_env"},
    "django_tasks": {"refresh_accounts", "refresh_due", "sync_profiles"},
    "exceptions": {
        "APIError",
        "AccessTokenRejectedError",
        "AccountBusyError",
        "AccountGoneError",
        "AccountOwnedByAnotherUserError",
        "AppConfigurationError",
        "AppCredentialsRejectedError",
        "AuthorizationCodeRejectedError",
        "ConfigurationError",
        "ConnectionFailedError",
        "ConnectionNotMadeError",
        "DecryptionError",
        "InvalidResponseError",
        "PermissionDeniedError",
        "RateLimitError",
        "ReauthorizationRequired",
        "RejectionUnconfirmedError",
        "RetryableError",
        "ServerError",
        "TikTokBusinessError",
    },
    # Migrations name them, also those of projects that use the fields in models of their own.
    "fields": {
        "CaseSensitiveCharField",
        "Ciphertext",
        "EncryptedModel",
        "EncryptedTextField",
        "NewestFirstIndex",
        "SealedModel",
        "UpdateOnlyBigIntegerField",
        "UpdateOnlyCharField",
        "UpdateOnlyDateTimeField",
    },
    "models": {
        "BusinessAccount",
        "BusinessAccountQuerySet",
        "ConnectionEvent",
        "DailyMetrics",
        "Health",
        "Notice",
    },
    "services": {
        "AccountClient",
        "RefreshReport",
        "RefreshResult",
        "account_client",
        "connect_account",
        "disconnect_account",
        "get_access_token",
        "refresh_account",
        "refresh_due_accounts",
        "sync_profile",
    },
    "signals": {
        "account_connected",
        "account_disconnected",
        "consent_ends_soon",
        "profile_synced",
        "reauthorization_required",
        "refresh_failed",
        "tokens_refreshed",
        "webhook_received",
    },
    "simulator": {
        "FAULTS",
        "Call",
        "Clock",
        "ConsentPageError",
        "Simulator",
        "StateFileError",
    },
    "tasks": {"refresh_accounts", "refresh_due", "sync_profiles"},
    "urls": {"app_name", "urlpatterns"},
    "views": {
        "AccountListView",
        "AccountView",
        "CallbackView",
        "ConnectPermissionMixin",
        "ConnectView",
        "DisconnectView",
    },
}
# Paths below those: methods, and single names in modules that also hold what only we use.
PATHS = [
    "masking.RedactCallbackQuery",
    "models.BusinessAccountQuerySet.active",
    "models.BusinessAccountQuerySet.due_for_refresh",
    "models.BusinessAccountQuerySet.needs_attention",
    "services.AccountClient.close",
    "services.AccountClient.profile",
    "services.AccountClient.request",
    "services.AccountClient.token_info",
    "simulator.Simulator.add_app",
    "simulator.Simulator.authorize",
    "simulator.Simulator.calls",
    "simulator.Simulator.clear_faults",
    "simulator.Simulator.configure",
    "simulator.Simulator.count",
    "simulator.Simulator.fail_next",
    "simulator.Simulator.fail_randomly",
    "simulator.Simulator.issue_grant",
    "simulator.Simulator.live_tokens",
    "simulator.Simulator.move_clock",
    "simulator.Simulator.open_id",
    "simulator.Simulator.reset",
    "simulator.Simulator.revoke_grant",
    "simulator.Simulator.save",
    "simulator.Simulator.serve",
    "simulator.Simulator.session",
    "simulator.Simulator.set_profile",
    "simulator.Simulator.summary",
]
SETTING_NAMES = [
    "APP_ID",
    "APP_SECRET",
    "ENCRYPTION_KEYS",
    "REDIRECT_URI",
    "AUTHORIZATION_URL",
    "API_BASE_URL",
    "SCOPES",
    "DISABLE_AUTO_AUTH",
    "CONNECT_PERMISSION",
    "CONNECT_REDIRECT_URL",
    "STATE_MAX_AGE_SECONDS",
    "REQUEST_TIMEOUT_SECONDS",
    "MAX_ATTEMPTS",
    "REQUESTS_PER_MINUTE",
    "CACHE_ALIAS",
    "REFRESH_WITHIN_SECONDS",
    "REFRESH_MARGIN_SECONDS",
    "REFRESH_CONCURRENCY",
    "CLAIM_SECONDS",
    "REJECTION_CONFIRM_SECONDS",
    "REAUTHORIZATION_WARNING_DAYS",
    "NOTIFY",
    "EVENTS_KEPT_DAYS",
    "EVENTS_KEPT_PER_ACCOUNT",
    "WEBHOOK_TOLERANCE_SECONDS",
    "SESSION_FACTORY_PATH",
]
COLUMNS = [
    "app_id",
    "open_id",
    "owner",
    "access_token",
    "refresh_token",
    "access_token_expires_at",
    "refresh_token_expires_at",
    "scopes",
    "status",
    "username",
    "display_name",
    "profile_image_url",
    "profile_url",
    "bio",
    "is_verified",
    "is_business_account",
    "followers_count",
    "following_count",
    "likes_count",
    "videos_count",
    "profile_synced_at",
    "connected_at",
    "last_refreshed_at",
    "last_error_at",
    "last_error_code",
    "last_error_message",
    "last_error_request_id",
    "consecutive_failures",
    "created_at",
    "updated_at",
]
PAGES = {
    "tiktok_business:account_list": "/tiktok/",
    "tiktok_business:connect": "/tiktok/connect/",
    "tiktok_business:callback": "/tiktok/callback/",
    "tiktok_business:account": "/tiktok/7/",
    "tiktok_business:disconnect": "/tiktok/7/disconnect/",
    "admin:tiktok_business_businessaccount_changelist": "/admin/tiktok_business/businessaccount/",
    "admin:tiktok_business_businessaccount_change": (
        "/admin/tiktok_business/businessaccount/7/change/"
    ),
    "admin:tiktok_business_connectionevent_changelist": "/admin/tiktok_business/connectionevent/",
}
COMMANDS = {"refresh_tokens", "rotate_encryption_keys", "tiktok_doctor"}
# Never reused: W010 is what E010 was called once.
CHECK_IDS = {
    *(f"tiktok_business.E{number:03}" for number in range(1, 11)),
    *(f"tiktok_business.W{number:03}" for number in range(1, 17) if number != 10),
}
TEMPLATES = [
    "account.html",
    "account_actions.html",
    "account_list.html",
    "account_state.html",
    "base.html",
    "connect_button.html",
    "connect_confirm.html",
    "connect_form.html",
    "connect_result.html",
    "disconnect_confirm.html",
    "mail/base.html",
    "mail/consent_ends_soon_body.html",
    "mail/consent_ends_soon_body.txt",
    "mail/consent_ends_soon_subject.txt",
    "mail/reauthorization_required_body.html",
    "mail/reauthorization_required_body.txt",
    "mail/reauthorization_required_subject.txt",
]


@pytest.mark.parametrize("module", FACES)
def test_module_exports_exactly_the_public_names(module: str) -> None:
    exported = import_module(f"{NAME}.{module}")
    assert set(exported.__all__) == FACES[module]
    for name in FACES[module]:
        import_string(f"{NAME}.{module}.{name}")


@pytest.mark.parametrize("path", PATHS)
def test_public_path_leads_somewhere(path: str) -> None:
    module, *attributes = path.split(".")
    found: Any = import_module(f"{NAME}.{module}")
    for attribute in attributes:
        found = getattr(found, attribute)


def test_other_packages_are_internal_and_export_nothing() -> None:
    bodies = {
        path.parent.relative_to(PACKAGE).as_posix(): ast.parse(
            path.read_text(encoding="utf-8")
        ).body
        for path in PACKAGE.rglob("__init__.py")
    }
    faces = {
        name
        for name, body in bodies.items()
        if not all(isinstance(node, ast.Expr) for node in body)  # a docstring
    }
    assert faces == {".", "admin", "checks", "conf", "models", "services", "simulator", "views"}


def test_version_is_at_the_top() -> None:
    assert django_tiktok_business.__all__ == ["__version__"]


def test_old_names_of_encryption_still_work() -> None:
    model, field = fields.EncryptedModel, fields.EncryptedTextField
    assert fields.SealedModel is model
    assert model.seal is model.encrypt
    assert (field.seal, field.unseal) == (field.encrypt, field.decrypt)


def test_each_setting_is_read_by_its_name() -> None:
    assert list(SETTINGS) == SETTING_NAMES
    for name in SETTING_NAMES:
        assert getattr(conf, name) == getattr(conf.conf, name)


def test_name_that_is_no_setting_is_no_attribute_of_conf() -> None:
    for name in ("NOT_A_SETTING", "not_a_setting"):
        with pytest.raises(AttributeError, match=name):
            getattr(conf, name)


def test_app_and_columns_keep_their_names() -> None:
    assert apps.get_model("tiktok_business", "BusinessAccount") is BusinessAccount
    assert {field.name for field in BusinessAccount._meta.get_fields()} >= set(COLUMNS)
    assert BusinessAccount.Status.values == ["active", "reauthorization_required", "revoked"]


@pytest.mark.parametrize("name", PAGES)
def test_page_has_its_name_and_path(name: str) -> None:
    needs_account = "7" in PAGES[name]
    assert reverse(name, args=[7] if needs_account else []) == PAGES[name]


def test_commands_have_their_names() -> None:
    assert {name for name, app in get_commands().items() if app == NAME} == COMMANDS


def test_ids_of_checks_are_these() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (PACKAGE / "checks").glob("*.py"))
    used = re.findall(r"""["']([EW]\d{3})["']""", "".join(sources))
    assert {f"tiktok_business.{number}" for number in used} == CHECK_IDS


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_can_be_replaced_by_its_name(name: str) -> None:
    get_template(f"tiktok_business/{name}")


def test_no_template_of_the_pages_is_missing_here() -> None:
    folder = PACKAGE / "templates" / "tiktok_business"
    existing = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert existing == set(TEMPLATES)


def test_simulator_is_a_program() -> None:
    program = subprocess.run(
        [sys.executable, "-m", f"{NAME}.simulator", "--help"],
        cwd=PACKAGE.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    options = {"--port", "--strict", "--rotate", "--latency", "--state"}
    assert options <= set(re.findall(r"--[a-z-]+", program.stdout))
