"""The simulator's import statements: it imports nothing of ours, and has no cycle."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from django_tiktok_business import simulator

NAME = simulator.__name__
FOLDER = Path(simulator.__path__[0])
THIRD_PARTY = {"requests", "urllib3"}


def _module_name(path: Path) -> str:
    parts = path.relative_to(FOLDER).with_suffix("").parts
    return ".".join((NAME, *(part for part in parts if part != "__init__")))


MODULES = {_module_name(path): path for path in sorted(FOLDER.rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """Every imported name as a dotted path, including those behind `if TYPE_CHECKING`."""
    package = (NAME, *path.parent.relative_to(FOLDER).parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def _module_of(name: str) -> str | None:
    """The simulator's module that defines `name`; None for a name from elsewhere."""
    return next((each for each in (name, name.rpartition(".")[0]) if each in MODULES), None)


def test_imports_have_no_cycle() -> None:
    arrows = {
        module: {_module_of(name) for name in _imports(path)} - {None}
        for module, path in MODULES.items()
    }
    assert arrows[f"{NAME}.endpoints.oauth"] == {f"{NAME}.endpoints.base", f"{NAME}.wire"}
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the cycle


def test_nothing_else_of_the_package_is_imported() -> None:
    outside = {
        name.partition(".")[0] if not name.startswith("django_tiktok_business") else name
        for path in MODULES.values()
        for name in _imports(path)
        if _module_of(name) is None
    }
    assert outside - set(sys.stdlib_module_names) == THIRD_PARTY
