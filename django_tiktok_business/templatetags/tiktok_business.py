"""``{% load tiktok_business %}``: a connect button and an account's picture on any page."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.context import Context
from django.utils.translation import gettext as _

from django_tiktok_business import presentation
from django_tiktok_business.conf import conf
from django_tiktok_business.models import BusinessAccount

register = template.Library()


@register.inclusion_tag("tiktok_business/connect_button.html", takes_context=True)
def connect_tiktok(context: Context, label: str = "", next: Any = "") -> dict[str, Any]:  # noqa: A002 -- the name of the view's parameter
    """A button that connects an account; nothing for users without the permission.

    Visitors who are not logged in, or whom the context does not name, get a link to the confirm
    page, which asks for a login and checks the permission. So does everybody where the context has
    no CSRF token for a form.
    """
    user = _user(context)
    is_known = user is not None and user.is_authenticated
    if is_known and not _may_connect(user):
        how = ""
    else:
        how = "form" if is_known and context.get("csrf_token") else "link"
    return {"how": how, "label": label or _("Connect TikTok"), "next_url": str(next or "")}


@register.simple_tag
def tiktok_avatar(account: Any) -> str:
    """The account's picture over its initials; nothing without an account."""
    return presentation.picture(account) if isinstance(account, BusinessAccount) else ""


def _user(context: Context) -> Any:
    # A RequestContext has its request even without the context processor for templates.
    request = getattr(context, "request", None) or context.get("request")
    return getattr(request, "user", None) or context.get("user")


def _may_connect(user: Any) -> bool:
    permission = conf.CONNECT_PERMISSION
    return permission is None or bool(user.has_perm(permission))
