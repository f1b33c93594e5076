"""The front page, the admin, and the package's own pages under /tiktok/."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import TemplateView

urlpatterns = [
    path("", TemplateView.as_view(template_name="home.html"), name="home"),
    path("admin/", admin.site.urls),
    path("tiktok/", include("django_tiktok_business.urls")),
]
