"""Our admin of the accounts, beside the one that a project gets without any work."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from django_tiktok_business.models import BusinessAccount

__all__ = ["urlpatterns"]


class BareAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # not subscriptable at run time
    """The columns of our list, as Django shows them."""

    list_display = (
        "display_name",
        "status",
        "followers_count",
        "access_token_expires_at",
        "refresh_token_expires_at",
        "owner",
        "profile_synced_at",
    )


bare_site = admin.AdminSite("bare")
bare_site.register(BusinessAccount, BareAdmin)

urlpatterns = [
    path("admin/", admin.site.urls),
    path("bare/", bare_site.urls),
    path("tiktok/", include("django_tiktok_business.urls")),
]
