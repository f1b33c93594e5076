"""``{% load tiktok_business %}``: a button to connect, and an account's picture, on any page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template
from django.utils.translation import gettext as _

from django_tiktok_business import presentation
from django_tiktok_business.conf import conf
from django_tiktok_business.models import BusinessAccount

if TYPE_CHECKING:
    from django.template.context import Context

__all__ = ["connect_tiktok", "register", "tiktok_avatar"]

register = template.Library()


@register.inclusion_tag("tiktok_business/connect_button.html", takes_context=True)
def connect_tiktok(context: Context, label: str = "", next: Any = "") -> dict[str, Any]:  # noqa: A002 -- as the view calls it
    """A button to connect an account; nothing for who may not.

    Who is not logged in, or not known here, gets a link to the page that asks: it has people log in
    and looks at their permission. So does everybody where the context has no CSRF token for a form.
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
    """The account's picture over its initials; nothing where there is no account."""
    return presentation.picture(account) if isinstance(account, BusinessAccount) else ""


def _user(context: Context) -> Any:
    # A RequestContext knows its request also where no context processor tells the template of it.
    request = getattr(context, "request", None) or context.get("request")
    return getattr(request, "user", None) or context.get("user")


def _may_connect(user: Any) -> bool:
    permission = conf.CONNECT_PERMISSION
    return permission is None or bool(user.has_perm(permission))
