from __future__ import annotations

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import APP_SECRET, authorize_url


def test_page_offers_accounts_and_scopes_and_no_secret(simulator: Simulator) -> None:
    response = simulator.session().get(authorize_url())
    assert "TikTok simulator" in response.text
    assert response.text.count('type="radio"') == 6
    assert response.text.count('type="checkbox"') == 3
    assert "Tea &amp; Code &lt;b&gt;&quot;Club&quot;&lt;/b&gt;" in response.text
    assert 'name="state" value="x y&amp;z"' in response.text
    assert "<script" not in response.text
    assert "style=" not in response.text
    assert APP_SECRET not in response.text
    assert "form-action" not in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-store"


def test_style_sheet_is_served(simulator: Simulator) -> None:
    response = simulator.session().get("https://x.example/_simulator/consent.css")
    assert response.headers["Content-Type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in response.text
