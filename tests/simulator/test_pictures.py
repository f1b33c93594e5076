from __future__ import annotations

from django_tiktok_business.simulator import Simulator
from tests.support.simulator_calls import NOW, ask_profile, frozen


def test_local_pictures_are_served_until_they_expire() -> None:
    simulator = frozen(image_base_url="http://127.0.0.1:8420/")
    url = ask_profile(simulator, "profile_image", account="tea_and_code")["data"]["profile_image"]
    assert url == (
        f"http://127.0.0.1:8420/_simulator/avatar/tea_and_code.svg?x-expires={NOW + 172_800}"
    )
    session = simulator.session()
    response = session.get(url)
    assert response.headers["Content-Type"] == "image/svg+xml"
    assert ">T<" not in response.text
    assert ">TC</text>" in response.text
    simulator.clock.advance(172_800)
    assert session.get(url).status_code == 403
    assert session.get(url.partition("?")[0]).status_code == 200
    assert session.get(url.partition("?")[0] + "?x-expires=soon").status_code == 403
    assert session.get(url.replace("tea_and", "coffee_and")).status_code == 404


def test_picture_of_a_name_without_letters_shows_a_question_mark(simulator: Simulator) -> None:
    simulator.set_profile("lena.draws", display_name="")
    response = simulator.session().get("https://x.example/_simulator/avatar/lena.draws.svg")
    assert ">?</text>" in response.text
