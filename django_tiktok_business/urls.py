"""The URLs of the pages, for the project's ``include()``.

The callback's path ends in a slash because TikTok does not register a redirect URL without one
("Accounts API - Authorization", doc id 1738083939371009, 2026-11-22).
"""

from __future__ import annotations

from django.urls import path

from . import views

__all__ = ["app_name", "urlpatterns"]

app_name = "tiktok_business"

urlpatterns = [
    path("", views.AccountListView.as_view(), name="account_list"),
    path("connect/", views.ConnectView.as_view(), name="connect"),
    path("callback/", views.CallbackView.as_view(), name="callback"),
    path("<int:pk>/", views.AccountView.as_view(), name="account"),
    path("<int:pk>/disconnect/", views.DisconnectView.as_view(), name="disconnect"),
]
