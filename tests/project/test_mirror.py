"""The tests mirror the package: from the name of a module follows where its tests are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, TESTS = ROOT / "django_tiktok_business", ROOT / "tests"

LONGEST_TEST = 600  # lines
NOT_MIRRORS = {"project", "scenarios", "support"}

# Modules that hold nothing of their own to test -> why.
UNTESTED = {
    "apps": "names and labels; every test runs in the app, and tests/checks sees what it registers",
}


def _modules() -> set[str]:
    """The package's modules as paths without suffix, such as ``admin/charts``."""
    return {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" and "migrations" not in path.parts
    }


def _test_files() -> list[Path]:
    return sorted(TESTS.rglob("test_*.py"))


def _mirrors() -> list[Path]:
    """The test files that belong to a module, relative to the folder of tests."""
    relative = [path.relative_to(TESTS) for path in _test_files()]
    return [path for path in relative if path.parts[0] not in NOT_MIRRORS]


def _tests_of(module: str) -> list[Path]:
    """``test_<module>.py`` and each ``test_<module>_<topic>.py``."""
    folder, name = Path(module).parent, Path(module).name
    return [
        path
        for path in _mirrors()
        if path.parent == folder and f"{path.stem}_".startswith(f"test_{name}_")
    ]


def test_every_module_has_tests_where_its_name_says() -> None:
    untested = {module for module in _modules() if not _tests_of(module)}
    assert untested == set(UNTESTED), "\n".join(sorted(untested ^ set(UNTESTED)))


def test_every_test_file_belongs_to_a_module() -> None:
    belonging = {path for module in _modules() for path in _tests_of(module)}
    strays = [str(path) for path in _mirrors() if path not in belonging]
    assert strays == [], "\n".join(strays)


def test_folders_of_tests_hold_tests_alone() -> None:
    others = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        if path.relative_to(TESTS).parts[0] != "support"
        and not path.name.startswith("test_")
        and path.name not in {"__init__.py", "conftest.py"}
    }
    assert others == {"settings.py", "urls.py"}
    texts = {path.name for path in TESTS.glob("[!.]*") if path.is_file() and path.suffix != ".py"}
    assert texts == {path.name for path in TESTS.glob("requirements*.txt")}


def test_no_test_file_is_too_long_to_read() -> None:
    lengths = {
        path.relative_to(TESTS).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in _test_files()
    }
    too_long = [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > LONGEST_TEST]
    assert too_long == [], "\n".join(too_long)
