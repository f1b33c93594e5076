from __future__ import annotations

import pytest

from django_tiktok_business.simulator import Simulator


@pytest.mark.parametrize(
    ("redirect_uri", "problem"),
    [
        ("https://h.example/callback", "end with a slash"),
        ("/auth/callback/", "be an absolute https URL"),
        ("https://h.example/?id=1/", "have no query parameters"),
        ("https://h.example/#1/", "have no fragment"),
        ("http://h.example/callback/", "be an absolute https URL"),
        ("https://h.example:3000/callback/", "have no port"),
        ("https://h.example/caf\u00e9/", "be plain ASCII"),
        ("https://h.example/" + "x" * 500 + "/", "be 10 to 512 characters long"),
    ],
)
def test_redirect_url_that_the_portal_refuses(redirect_uri: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Simulator(redirect_uris=[redirect_uri])


def test_local_redirect_url_is_an_exception_that_can_be_switched_off() -> None:
    local = ["http://127.0.0.1:8000/tiktok/callback/", "http://localhost/tiktok/"]
    assert Simulator(redirect_uris=local).summary()["apps"][0]["redirect_uris"] == tuple(local)
    with pytest.raises(ValueError, match="be an absolute https URL, have no port"):
        Simulator(redirect_uris=local, strict_redirects=True)


@pytest.mark.parametrize("number", [0, 11])
def test_app_has_one_to_ten_redirect_urls(number: int) -> None:
    with pytest.raises(ValueError, match="1 to 10 redirect URIs"):
        Simulator(redirect_uris=[f"https://h.example/{n}/" for n in range(number)])
