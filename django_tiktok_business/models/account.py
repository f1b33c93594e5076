"""`BusinessAccount`: one TikTok account that the site acts for."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Self
from urllib.parse import parse_qs, quote, urlsplit

from django.conf import settings
from django.db import models
from django.db.models import ExpressionWrapper, F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_tiktok_business.conf import conf
from django_tiktok_business.db.schema import (
    CaseSensitiveCharField,
    NewestFirstIndex,
    UpdateOnlyBigIntegerField,
    UpdateOnlyCharField,
    UpdateOnlyDateTimeField,
)
from django_tiktok_business.encryption.fields import EncryptedTextField
from django_tiktok_business.encryption.model import EncryptedModel
from django_tiktok_business.exceptions import ConfigurationError, DecryptionError
from django_tiktok_business.untrusted import https_host, is_visible, visible_line

from . import health
from .columns import CREDENTIAL_COLUMNS
from .health import Health, has_known_keys, overdue_condition, warning_period


class BusinessAccountQuerySet(models.QuerySet["BusinessAccount"]):
    def active(self) -> Self:
        """Accounts whose tokens are refreshed."""
        return self.filter(status=BusinessAccount.Status.ACTIVE)

    def due_for_refresh(self, within: timedelta) -> Self:
        """Active accounts whose access token expires within ``within`` (or at an unknown time)."""
        return self.active().filter(
            Q(access_token_expires_at__isnull=True)
            | Q(access_token_expires_at__lte=timezone.now() + within)
        )

    def not_backing_off(self) -> Self:
        """Accounts that a batch may try now; those that keep failing have to wait."""
        return self.filter(Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=timezone.now()))

    def needs_attention(self) -> Self:
        """Accounts that a person has to reconnect, now or soon."""
        return self.filter(
            Q(status=BusinessAccount.Status.REAUTHORIZATION_REQUIRED)
            | Q(
                status=BusinessAccount.Status.ACTIVE,
                refresh_token_expires_at__lte=timezone.now() + warning_period(),
            )
        )

    def in_health(self, health: str) -> Self:
        """Accounts in that `Health`.

        The database only sees the key that a token is under. Whether a text under a configured key
        is damaged, or was copied from another row, shows only when it is decrypted: here such
        accounts count as readable.
        """
        return self.filter(Health(health).condition())

    def overdue(self) -> Self:
        """Accounts that a batch should have refreshed long ago; probably none has run."""
        return self.filter(overdue_condition(conf.APP_ID))

    def without_tokens(self) -> Self:
        """Do not load tokens; `BusinessAccount.health` then relies on the keys they are under."""
        known = ExpressionWrapper(has_known_keys(), output_field=models.BooleanField())
        return self.defer("access_token", "refresh_token").annotate(has_known_keys=known)


class BusinessAccount(EncryptedModel):
    """A TikTok account connected through this app: its tokens, its profile, its state.

    Change it through `django_tiktok_business.services`; a row can be created with plain tokens.
    Columns that TikTok fills hold untrusted text.
    """

    Status = health.Status

    app_id = CaseSensitiveCharField(_("app id"), max_length=64)
    open_id = CaseSensitiveCharField(
        _("open id"),
        max_length=255,
        help_text=_("TikTok's id of this account for this app (business_id in API calls)."),
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="tiktok_business_accounts",
        help_text=_("The user who connected the account."),
    )

    access_token = EncryptedTextField(
        _("access token"),
        purpose="tiktok_business.BusinessAccount.access_token",
        bound_to=("app_id", "open_id"),
        blank=True,
        default="",
    )
    refresh_token = EncryptedTextField(
        _("refresh token"),
        purpose="tiktok_business.BusinessAccount.refresh_token",
        bound_to=("app_id", "open_id"),
        blank=True,
        default="",
    )
    access_token_expires_at = models.DateTimeField(
        _("access token expires at"), null=True, blank=True
    )
    refresh_token_expires_at = models.DateTimeField(
        _("refresh token expires at"), null=True, blank=True
    )
    scopes = models.JSONField(_("granted scopes"), default=list, blank=True)
    status = models.CharField(
        _("status"), max_length=32, choices=health.Status.choices, default=health.Status.ACTIVE
    )

    username = models.TextField(_("username"), blank=True, default="")
    display_name = models.TextField(_("display name"), blank=True, default="")
    profile_image_url = models.TextField(_("profile image URL"), blank=True, default="")
    profile_url = models.TextField(_("profile URL"), blank=True, default="")
    bio = models.TextField(_("bio"), blank=True, default="")
    is_verified = models.BooleanField(_("verified"), null=True, blank=True)
    is_business_account = models.BooleanField(_("business account"), null=True, blank=True)
    followers_count = models.BigIntegerField(_("followers"), null=True, blank=True)
    following_count = models.BigIntegerField(_("following"), null=True, blank=True)
    likes_count = models.BigIntegerField(_("likes"), null=True, blank=True)
    videos_count = models.BigIntegerField(_("videos"), null=True, blank=True)
    profile_synced_at = models.DateTimeField(_("profile synced at"), null=True, blank=True)
    # As TikTok last gave it: {"ages": [["18-24", 0.22], ...], "genders": ..., "countries": ...}.
    audience = models.JSONField(_("audience"), default=dict, blank=True)
    metrics_synced_at = models.DateTimeField(_("daily figures synced at"), null=True, blank=True)

    connected_at = models.DateTimeField(_("connected at"), null=True, blank=True)
    last_refreshed_at = models.DateTimeField(_("last refreshed at"), null=True, blank=True)
    last_error_at = models.DateTimeField(_("last error at"), null=True, blank=True)
    last_error_code = models.BigIntegerField(_("last error code"), null=True, blank=True)
    last_error_message = models.TextField(_("last error message"), blank=True, default="")
    last_error_request_id = models.TextField(_("last error request id"), blank=True, default="")
    consecutive_failures = models.PositiveIntegerField(_("consecutive failures"), default=0)

    # Internal. After temporary failures, a batch skips the account until the next attempt. A worker
    # writes its claim here before it refreshes the account. The version counts the token pairs that
    # this row has held, so that a late answer cannot overwrite a newer pair. `rejected_at` is the
    # first of two rejections of the pair by TikTok's refresh endpoint.
    next_attempt_at = UpdateOnlyDateTimeField(
        _("next attempt at"), null=True, blank=True, editable=False, serialize=False
    )
    rejected_at = UpdateOnlyDateTimeField(
        null=True, blank=True, editable=False, serialize=False, once_assigned=models.Value(None)
    )
    claim_id = UpdateOnlyCharField(
        max_length=32, blank=True, default="", editable=False, serialize=False, once_assigned=""
    )
    claim_expires_at = UpdateOnlyDateTimeField(
        null=True, blank=True, editable=False, serialize=False, once_assigned=models.Value(None)
    )
    credentials_version = UpdateOnlyBigIntegerField(
        default=0,
        editable=False,
        serialize=False,
        once_assigned=F("credentials_version") + 1,
    )
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    objects = BusinessAccountQuerySet.as_manager()

    # Annotated by `without_tokens`, otherwise None.
    has_known_keys: ClassVar[bool | None] = None

    class Meta:
        verbose_name = _("TikTok Business account")
        verbose_name_plural = _("TikTok Business accounts")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["app_id", "open_id"], name="tiktok_business_one_row_per_account"
            ),
        ]
        indexes: ClassVar = [
            # In the order in which a batch reads the accounts that are due, so that it finds the
            # next ones as fast among a million rows as among a hundred.
            models.Index(
                fields=["app_id", "status", "access_token_expires_at", "id"],
                name="tiktok_business_due",
            ),
            models.Index(
                fields=["status", "refresh_token_expires_at"], name="tiktok_business_attention"
            ),
            # In the order in which a batch asks once more about those that TikTok has rejected.
            models.Index(fields=["rejected_at", "id"], name="tiktok_business_rejected"),
            # In the order of the lists of accounts.
            NewestFirstIndex(fields=["-connected_at", "-id"], name="tiktok_business_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.label} ({self.open_id})"

    def copy_credentials(self, row: BusinessAccount) -> None:
        """Take over tokens, expiries and status from ``row``; tokens are copied as ciphertext."""
        for name in CREDENTIAL_COLUMNS:
            self.__dict__[name] = row.__dict__[name]

    @property
    def label(self) -> str:
        """What to call the account: its display name, its handle, or its open id.

        A display name without any visible character (only spaces, zero-width and bidi characters)
        is ignored: nobody could see or click it.
        """
        name = self.display_name if any(map(is_visible, self.display_name)) else ""
        return visible_line(name) or self.handle or self.open_id

    @property
    def handle(self) -> str:
        """The username as people write it, "@name"; "" if it is unknown."""
        name = visible_line(self.username)
        return f"@{name}" if name else ""

    @property
    def bio_lines(self) -> list[str]:
        """The lines of the bio, without the invisible characters that `label` leaves out."""
        return [visible_line(line) for line in self.bio.strip().splitlines()]

    def is_access_token_valid_for(self, period: timedelta) -> bool:
        """Whether the access token is valid for ``period`` from now; False if its end is unknown.

        A naive expiry (assigned in memory, not loaded) is no instant, so it counts as unknown.
        """
        expires_at = self.access_token_expires_at
        if expires_at is None or timezone.is_naive(expires_at):
            return False
        return expires_at > timezone.now() + period

    @property
    def health(self) -> Health:
        """The account's `Health`; decrypts the tokens to know, unless loaded `without_tokens`."""
        return Health.of(self)

    def is_decryptable(self) -> bool:
        """Whether the configured keys open both tokens; `without_tokens`, as far as is known."""
        if self.has_known_keys is not None and self._lacks_tokens():
            return self.has_known_keys
        try:
            return self.access_token is not None and self.refresh_token is not None
        except (DecryptionError, ConfigurationError):
            return False

    def _lacks_tokens(self) -> bool:
        return "access_token" not in self.__dict__ or "refresh_token" not in self.__dict__

    @property
    def granted_scopes(self) -> list[str]:
        """``scopes`` as a list of texts, even if the column holds other JSON."""
        scopes = self.scopes if isinstance(self.scopes, list) else []
        return [scope for scope in scopes if isinstance(scope, str)]

    @property
    def missing_scopes(self) -> list[str]:
        """Scopes that the site asks for and the account holder has not granted, sorted."""
        return sorted(set(conf.usable("SCOPES")) - set(self.granted_scopes))

    @property
    def is_of_another_app(self) -> bool:
        """Whether APP_ID names another app, so that nothing here refreshes the account."""
        return bool(conf.usable("APP_ID", fallback=self.app_id) != self.app_id)

    @property
    def profile_link(self) -> str:
        """An https URL of the profile on TikTok's own site, or ""."""
        host = https_host(self.profile_url)
        if host == "tiktok.com" or host.endswith(".tiktok.com"):
            return self.profile_url
        return f"https://www.tiktok.com/@{quote(self.username, safe='')}" if self.username else ""

    @property
    def picture_url(self) -> str:
        """The URL of the profile picture, or "" if there is none, or none any more.

        TikTok's picture URLs are temporary: ``x-expires`` holds the Unix second at which they end
        (API for Business, GET /business/get/, seen 2026-11-22).
        """
        if not self.profile_image_url:
            return ""
        try:
            parts = urlsplit(self.profile_image_url)
            expires_at = parse_qs(parts.query).get("x-expires", [""])[0]
            has_ended = expires_at.isdecimal() and int(expires_at) <= timezone.now().timestamp()
            # The simulator serves the pictures of its accounts itself, without TLS.
            api = urlsplit(conf.API_BASE_URL)
        except (ValueError, ConfigurationError):
            return ""
        is_simulated = (parts.scheme, parts.netloc) == (api.scheme, api.netloc)
        is_shown = not has_ended and (is_simulated or https_host(self.profile_image_url))
        return self.profile_image_url if is_shown else ""
