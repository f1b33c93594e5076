"""Compose and send the mail about an account."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import mail
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.validators import validate_email
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils import timezone, translation

from django_tiktok_business.conf import conf
from django_tiktok_business.models import BusinessAccount, Notice

logger = logging.getLogger("tiktok_business")

TIMEOUT_SECONDS = 10  # for each answer of a mail server, unless the settings have a time-out


def send(kind: Notice.Kind, account: BusinessAccount) -> None:
    """Send one mail about ``account``; raises what the mail backend or a template raises."""
    owner, others = _recipients(account)
    if not owner and not others:
        logger.info("There is no address to notify about %s (%s).", account.open_id, kind)
        return
    site_zone = timezone.get_default_timezone()
    with translation.override(settings.LANGUAGE_CODE), timezone.override(site_zone):
        context = _context(account)
        subject, text, html = (
            render_to_string(f"tiktok_business/mail/{kind}_{part}", context)
            for part in ("subject.txt", "body.txt", "body.html")
        )
    message = EmailMultiAlternatives(
        " ".join(subject.split()),
        f"{text.strip()}\n",
        # The owner does not see the other recipients.
        to=owner or others,
        bcc=others if owner else [],
    )
    message.attach_alternative(html.strip(), "text/html")
    _backend().send_messages([message])


def _recipients(account: BusinessAccount) -> tuple[list[str], list[str]]:
    """The owner's address, if it is wanted and valid, and the other addresses."""
    notify = conf.NOTIFY
    others = [address for address in notify if address != "owner"]
    owner = account.owner if "owner" in notify else None
    if owner is None or not owner.is_active:
        return [], others
    address = getattr(owner, owner.get_email_field_name(), "")
    try:
        validate_email(address)
    except ValidationError:
        return [], others
    if not address.isprintable():  # no mail backend sends to such an address
        return [], others
    return [address], [other for other in others if other != address]


def _context(account: BusinessAccount) -> dict[str, Any]:
    return {
        "account": account,
        "label": account.label,
        # Empty where the label is the handle already.
        "handle": account.handle if account.handle != account.label else "",
        "ends_at": account.refresh_token_expires_at,
        "message": _plain(account.last_error_message),
        "code": account.last_error_code,
        "request_id": _plain(account.last_error_request_id),
        "link": _accounts_page(),
    }


def _plain(text: str) -> str:
    """TikTok's text in one line, without characters that hide or reorder text."""
    return "".join(filter(str.isprintable, " ".join(text.split()))).strip()


def _accounts_page() -> str:
    """The absolute address of the accounts page, on the host of REDIRECT_URI; "" if unknown."""
    try:
        site = urlsplit(conf.REDIRECT_URI or "")
        page = reverse("tiktok_business:account_list")
    except (ValueError, NoReverseMatch):
        return ""
    return f"{site.scheme}://{site.netloc}{page}" if site.scheme and site.netloc else ""


def _backend() -> Any:
    """The project's default mail backend, with a time-out if it has none."""
    # Django 6.1 has "mailers" and deprecates get_connection().
    mailers = getattr(mail, "mailers", None)
    backend: Any = mail.get_connection() if mailers is None else mailers.default
    if getattr(backend, "timeout", TIMEOUT_SECONDS) is None:
        backend.timeout = TIMEOUT_SECONDS
    return backend
