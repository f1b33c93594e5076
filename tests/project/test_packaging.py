"""What is built, its metadata, and that the suite runs against the right copy."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import django_tiktok_business

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "django_tiktok_business"


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def wheel_contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel, built from a copy because a build leaves files in its source folder."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for document in ROOT.glob("*.rst"):
        shutil.copy(document, source)
    without_caches = shutil.ignore_patterns("__pycache__")
    for folder in (PACKAGE, ROOT / "tests"):
        shutil.copytree(folder, source / folder.name, ignore=without_caches)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, target], cwd=source, check=True)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _lines(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.strip().splitlines()]


def _operators(requirements: Iterable[Requirement]) -> set[str]:
    return {part.operator for requirement in requirements for part in requirement.specifier}


def test_suite_runs_against_the_copy_that_was_asked_for() -> None:
    site_packages = Path(sysconfig.get_path("purelib"))
    expected = site_packages / PACKAGE.name if os.environ.get("TOX_WHEEL") else PACKAGE
    assert Path(django_tiktok_business.__file__).parent == expected


def test_wheel_holds_every_file_of_the_package(wheel_contents: set[str]) -> None:
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel_contents if ".dist-info/" not in name} == ours
    assert f"{PACKAGE.name}/py.typed" in ours
    assert any(name.startswith(f"{PACKAGE.name}/templates/tiktok_business/") for name in ours)


def test_wheel_holds_the_licence(wheel_contents: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_contents)


def test_runtime_dependencies_are_the_four_without_upper_bounds(
    setup_cfg: configparser.ConfigParser,
) -> None:
    required = _lines(setup_cfg["options"]["install_requires"].partition("\n")[2])
    assert {requirement.name for requirement in required} == {
        "cryptography",
        "django",
        "django-environ",
        "requests",
    }
    assert _operators(required) == {">="}


def test_extras_are_celery_and_progress_without_upper_bounds(
    setup_cfg: configparser.ConfigParser,
) -> None:
    extras = {name: _lines(text) for name, text in setup_cfg["options.extras_require"].items()}
    names = {extra: [requirement.name for requirement in extras[extra]] for extra in extras}
    assert names == {"celery": ["celery"], "progress": ["tqdm"]}
    assert _operators(requirement for each in extras.values() for requirement in each) == {">="}


def test_supported_versions_are_the_ones_that_tox_runs(
    setup_cfg: configparser.ConfigParser,
) -> None:
    classifiers = setup_cfg["metadata"]["classifiers"]
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    environments = tox["tox"]["env_list"]
    pythons = set(re.findall(r"Python :: (3\.\d+)", classifiers))
    djangos = set(re.findall(r"Django :: (\d\.\d)", classifiers))
    assert {f"3.{minor}" for minor in re.findall(r"py3(\d+)-", environments)} == pythons
    assert pythons == {"3.11", "3.12", "3.13"}
    assert set(re.findall(r"django>=(\d\.\d)", tox["testenv"]["deps"])) == djangos
    assert djangos == {"5.2", "6.0", "6.1"}
    assert setup_cfg["options"]["python_requires"] == ">=3.11"


def test_version_is_a_valid_version_with_a_changelog_section() -> None:
    version = Version(django_tiktok_business.__version__)
    assert str(version) == django_tiktok_business.__version__
    headings = re.findall(
        r"^(\S.*)\n-{3,}$", (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings[0] == "Unreleased"


def test_commit_hooks_use_the_pinned_ruff() -> None:
    pinned = re.findall(r"ruff==[\d.]+", (ROOT / "tests/requirements-lint.txt").read_text())
    hooks = re.findall(r"ruff==[\d.]+", (ROOT / ".pre-commit-config.yaml").read_text())
    assert len(pinned) == 1
    assert set(hooks) == set(pinned)
