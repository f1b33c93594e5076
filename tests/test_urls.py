"""The URL names and paths that projects and TikTok's portal rely on."""

from __future__ import annotations

import pytest
from django.urls import resolve, reverse

from django_tiktok_business import urls, views


@pytest.mark.parametrize(
    ("name", "args", "path", "view"),
    [
        ("account_list", [], "/tiktok/", views.AccountListView),
        ("connect", [], "/tiktok/connect/", views.ConnectView),
        ("callback", [], "/tiktok/callback/", views.CallbackView),
        ("account", [7], "/tiktok/7/", views.AccountView),
        ("disconnect", [7], "/tiktok/7/disconnect/", views.DisconnectView),
    ],
)
def test_name_has_its_path_and_its_view(name: str, args: list[int], path: str, view: type) -> None:
    assert reverse(f"tiktok_business:{name}", args=args) == path
    assert resolve(path).func.view_class is view  # type: ignore[attr-defined]


def test_every_path_ends_in_a_slash_or_is_empty() -> None:
    paths = [str(pattern.pattern) for pattern in urls.urlpatterns]
    assert [path for path in paths if path and not path.endswith("/")] == []
