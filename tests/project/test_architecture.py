"""The package's import statements keep to the table of who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "django_tiktok_business"

# Importable by every module: error types, masked strings and the version.
FOR_ALL = {"", "exceptions", "masking"}

# Packages (and modules at the root) -> the others they import, besides FOR_ALL. Compared with `==`,
# type-only imports included: an allowance that nobody uses is removed.
IMPORTS: dict[tuple[str, ...], set[str]] = {
    ("", "exceptions", "masking", "signals", "untrusted", "interrupts", "scopes"): set(),
    ("conf", "db", "simulator"): set(),
    ("cache",): {"conf"},
    ("api",): {"cache", "conf", "db", "untrusted"},
    ("encryption",): {"conf", "db"},
    ("models",): {"conf", "db", "encryption", "untrusted"},
    ("presentation",): {"models"},
    ("events",): {"conf", "db", "models"},
    ("notices",): {"conf", "db", "models", "signals"},
    ("tokens",): {
        *("api", "cache", "conf", "db", "events", "interrupts", "models", "notices", "signals"),
    },
    ("sync",): {"api", "db", "events", "models", "signals", "tokens"},
    ("services",): {
        *("api", "cache", "conf", "db", "interrupts", "models", "notices", "sync", "tokens"),
    },
    ("admin", "views"): {"cache", "conf", "models", "presentation", "scopes", "services"},
    ("management",): {
        *("api", "checks", "conf", "db", "encryption", "interrupts", "models", "services"),
    },
    ("celery_tasks", "django_tasks"): {"services"},
    ("checks",): {"api", "conf", "encryption"},
    # Django's entry points, each with the one place it leads to.
    ("apps",): {"checks"},
    ("tasks",): {"celery_tasks"},
    ("urls",): {"views"},
    ("templatetags",): {"conf", "models", "presentation"},
    ("fields",): {"db", "encryption"},
    ("migrations",): {"fields"},
}
# Narrower than its row: (importer, imported) -> the only modules that do.
ALONE = {
    ("api", "conf"): {"api.factory"},
    ("api", "cache"): {"api.rate_limit"},
    ("checks", "api"): {"checks.settings"},
    ("management", "api"): {"management.doctor"},
    ("management", "checks"): {"management.doctor"},
    ("management", "encryption"): {
        *("management.commands.rotate_encryption_keys", "management.doctor"),
    },
}

# The cores that run without Django, or nearly so.
DJANGO_ALLOWED_IN: dict[str, set[str]] = {
    "encryption.cipher": set(),
    "exceptions": {"django.core.exceptions", "django.utils.translation"},
    "masking": set(),
    "simulator": set(),
}

LONGEST_MODULE = 450  # lines


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {
    _name(path): (path, ast.parse(path.read_text(encoding="utf-8")))
    for path in sorted(PACKAGE.rglob("*.py"))
}
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "__init__")


def _room(module: str) -> str:
    """The package, or the module at the root, that a module belongs to."""
    return module.partition(".")[0]


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every imported name as a dotted path; relative ones are resolved against `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _package_of(module: str) -> str:
    path, _ = MODULES[module]
    return ".".join((PACKAGE.name, *path.parent.relative_to(PACKAGE).parts))


def _ours(imported: str) -> str | None:
    """The module of this package that ``imported`` names, None for anything outside it."""
    top, _, inner = imported.partition(".")
    if top != PACKAGE.name:
        return None
    while inner not in MODULES:
        inner = inner.rpartition(".")[0]
    return inner


def _imported_by(module: str) -> set[str]:
    _, tree = MODULES[module]
    found = {_ours(imported) for imported in _imports(tree, _package_of(module))}
    return {each for each in found if each is not None}


ROOMS = {_room(module) for module in MODULES}
ROWS = {room: imported for rooms, imported in IMPORTS.items() for room in rooms}


def _imported_rooms(room: str) -> set[str]:
    imported = {
        each for module in MODULES if _room(module) == room for each in _imported_by(module)
    }
    return {_room(each) for each in imported} - {room}


def test_every_room_is_known() -> None:
    assert set(ROWS) == ROOMS


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_room_imports_exactly_what_its_row_says(room: str) -> None:
    for_all = set() if room == "simulator" else FOR_ALL
    assert _imported_rooms(room) - for_all == ROWS[room]


@pytest.mark.parametrize(("importer", "imported"), ALONE, ids=lambda room: room)
def test_arrow_starts_at_these_modules_alone(importer: str, imported: str) -> None:
    starts = {
        module
        for module in MODULES
        if _room(module) == importer and imported in map(_room, _imported_by(module))
    }
    assert starts == ALONE[importer, imported]


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows = {module: _imported_by(module) - {module} for module in MODULES}
    while leaves := {module for module, imported in arrows.items() if not imported & set(arrows)}:
        arrows = {module: imported for module, imported in arrows.items() if module not in leaves}
    assert arrows == {}


@each_module
def test_no_function_imports_a_module_of_ours(module: str) -> None:
    _, tree = MODULES[module]
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    package = _package_of(module)
    assert [
        function.name
        for function in functions
        if any(_ours(imported) is not None for imported in _imports(function, package))
    ] == []


@pytest.mark.parametrize("core", DJANGO_ALLOWED_IN)
def test_core_does_not_know_django(core: str) -> None:
    imported = {
        name.rpartition(".")[0]
        for module, (_, tree) in MODULES.items()
        if module == core or _room(module) == core
        for name in _imports(tree, _package_of(module))
        if name.partition(".")[0] == "django"
    }
    assert imported <= DJANGO_ALLOWED_IN[core]


@each_module
def test_only_conf_reads_the_settings_dict_or_the_environment(module: str) -> None:
    _, tree = MODULES[module]
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"TIKTOK_BUSINESS", "environ", "getenv"}
    }
    assert read <= ({"TIKTOK_BUSINESS"} if module == "conf.settings" else set())


@each_module
def test_module_does_not_print(module: str) -> None:
    _, tree = MODULES[module]
    assert [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "print"
    ] == []


@each_module
def test_module_is_not_too_long(module: str) -> None:
    path, _ = MODULES[module]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


def test_no_module_is_a_drawer() -> None:
    parts = {part for module in MODULES for part in module.split(".")}
    assert not parts & {"common", "helpers", "utils"}
