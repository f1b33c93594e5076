"""The registered system checks, with every fault that the tests of the single checks have."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks.registry import registry
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from django_tiktok_business.checks import encryption, oauth, settings
from tests.support.checks import (
    APP_SECRET,
    DJANGO_KEY,
    GOOD_CASE,
    KEY,
    OLD_DJANGO_KEY,
    OTHER_KEY,
    TAG,
    Case,
    reported,
)

from . import test_encryption, test_oauth, test_settings

CASES = [*test_settings.CASES, *test_oauth.CASES, *test_encryption.CASES]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_case
def test_check_command_reports_the_fault_until_it_is_silenced(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sorted({str(message.id) for message in case.expected})
    options: dict[str, Any] = {"tags": [TAG], "deploy": case.deploy, "fail_level": "WARNING"}
    with case.configured(), pytest.raises(SystemCheckError) as caught:
        call_command("check", **options)
    assert all(f"({message_id})" in str(caught.value) for message_id in ids)
    with case.configured(SILENCED_SYSTEM_CHECKS=ids):
        call_command("check", **options)
    assert "System check identified no issues" in capsys.readouterr().out


@each_case
def test_f34_no_message_shows_a_secret(case: Case) -> None:
    with case.configured():
        texts = "".join(f"{message}" for message in reported(deploy=True))
    secrets = {APP_SECRET, KEY, OTHER_KEY, DJANGO_KEY, OLD_DJANGO_KEY}
    assert [secret for secret in secrets if secret in texts] == []


def test_every_id_has_a_case() -> None:
    assert {message.id for case in CASES for message in case.expected} == {
        f"tiktok_business.{number}"
        for number in (
            *(f"E{number:03}" for number in range(1, 11)),
            *(f"W{number:03}" for number in range(1, 14) if number != 10),
        )
    }


@pytest.mark.parametrize("debug", [True, False])
def test_good_configuration_is_silent(debug: bool) -> None:
    with GOOD_CASE.configured(DEBUG=debug):
        assert reported(deploy=True) == []


def test_every_check_is_registered() -> None:
    registered = registry.get_checks(include_deployment_checks=True)
    ours = {
        check
        for module in (settings, oauth, encryption)
        for name, check in vars(module).items()
        if name.startswith("check_")
    }
    assert ours <= set(registered)


def test_check_that_queries_a_database_is_not_under_our_tag() -> None:
    registered: set[Any] = set(registry.get_checks(include_deployment_checks=True))
    ours = {check for check in registered if check.__module__.startswith(oauth.__package__ or "")}
    assert {check for check in ours if TAG not in check.tags} == {encryption.check_stored_tokens}


def test_checks_for_deployment_run_only_with_deploy() -> None:
    usual = set(registry.get_checks())
    deployment = set(registry.get_checks(include_deployment_checks=True)) - usual
    assert {oauth.check_redirect_uri_is_fixed, settings.check_cache_is_shared} <= deployment
