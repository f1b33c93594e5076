"""Reads the package's import statements and keeps the arrows between its modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "django_tiktok_business"

# Importable by every module: error types, masked strings and the version.
FOR_ALL = {"", "exceptions", "masking"}

# module -> the siblings it may import, besides FOR_ALL. Views, admin and the command never see the
# client or the ciphers; whatever changes an account goes through services. `answers` and
# `transport` belong to the client; `durable`, `settlement`, `calls` and `batch` to the refresh
# engine.
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "account_pages": {"conf", "models", "pages", "presentation", "scopes"},
    "admin": {
        "admin_account",
        "admin_actions",
        "admin_events",
        "admin_overview",
        "bulk",
        "conf",
        "models",
        "presentation",
        "services",
    },
    "admin_account": {"charts", "conf", "models", "presentation", "scopes"},
    "admin_actions": {"admin_columns", "bulk", "models", "presentation", "services"},
    "admin_columns": {"conf", "models", "presentation"},
    "admin_events": {"admin_columns", "models"},
    "admin_overview": {"conf", "limits", "models", "presentation"},
    "answers": set(),
    "apps": {"checks", "token_checks"},
    "attempts": {"conf", "limits"},
    "batch": {
        "answers",
        "calls",
        "ceiling",
        "client",
        "clock",
        "due",
        "durable",
        "events",
        "models",
        "refresh",
        "settlement",
    },
    "bulk": {"calls", "ceiling", "conf", "models", "profiles", "refresh", "services"},
    "ceiling": {"clock", "deadlines"},
    "calls": {"ceiling", "client", "models", "refresh"},
    "celery_tasks": {"jobs"},
    "charts": set(),
    "checks": {"conf", "crypto", "deadlines"},
    "client": {"answers", "ceiling", "clock", "deadlines", "transport"},
    "clock": set(),
    "conf": {"setting"},
    "consents": {
        "answers",
        "clock",
        "conf",
        "durable",
        "events",
        "interrupts",
        "limits",
        "models",
        "notices",
        "refresh",
        "settlement",
        "signals",
    },
    "crypto": set(),
    "diagnosis": {"client", "conf", "durable", "models", "refresh", "services", "token_checks"},
    "django_tasks": {"jobs"},
    "deadlines": set(),
    "due": {"clock", "models"},
    "durable": set(),
    "events": {"clock", "conf", "durable", "history", "models"},
    "exceptions": set(),
    "fields": {"conf", "crypto"},
    "history": set(),
    "indexes": set(),
    "limits": {"conf"},
    "insights": {"answers", "client", "history", "models"},
    "jobs": {
        "calls",
        "clock",
        "conf",
        "due",
        "interrupts",
        "models",
        "notices",
        "profiles",
        "refresh",
        "services",
    },
    "interrupts": set(),
    "known_keys": {"conf", "crypto"},
    "management": set(),
    "management.commands": set(),
    "management.commands.refresh_tokens": {
        "conf",
        "durable",
        "management.progress",
        "models",
        "services",
    },
    "management.commands.rotate_encryption_keys": {
        "durable",
        "management.progress",
        "models",
        "rotation",
    },
    "management.commands.tiktok_doctor": {"diagnosis"},
    "management.progress": set(),
    "masking": set(),
    "migrations": {"fields", "indexes"},
    "mails": {"conf", "history", "models"},
    "models": {"conf", "fields", "history", "indexes", "known_keys"},
    "notices": {"conf", "durable", "history", "mails", "models", "signals"},
    "outcomes": set(),
    "pages": {"conf", "limits", "models", "outcomes"},
    "presentation": {"models", "services"},
    "profiles": {
        "answers",
        "calls",
        "ceiling",
        "client",
        "durable",
        "insights",
        "models",
        "settlement",
        "signals",
    },
    "refresh": {
        "answers",
        "ceiling",
        "client",
        "clock",
        "conf",
        "deadlines",
        "durable",
        "events",
        "interrupts",
        "models",
        "settlement",
    },
    "rotation": {"conf", "crypto", "durable", "models"},
    "scopes": set(),
    "services": {
        "answers",
        "batch",
        "calls",
        "clock",
        "conf",
        "consents",
        "due",
        "durable",
        "events",
        "insights",
        "interrupts",
        "models",
        "notices",
        "profiles",
        "refresh",
        "settlement",
        "signals",
    },
    "setting": set(),
    "settlement": {"answers", "clock", "durable", "events", "models", "signals"},
    "signals": set(),
    "simulator": {"simulator"},
    "tasks": {"celery_tasks"},
    "templatetags": set(),
    "templatetags.tiktok_business": {"conf", "models", "presentation"},
    "token_checks": {"conf", "crypto"},
    "transport": {"answers"},
    "urls": {"views"},
    "views": {
        "account_pages",
        "attempts",
        "conf",
        "models",
        "outcomes",
        "pages",
        "presentation",
        "scopes",
        "services",
    },
}

# The cores that run without Django, or with next to nothing of it.
DJANGO_ALLOWED_IN: dict[str, set[str]] = {
    "crypto": set(),
    "exceptions": {"django.core.exceptions"},
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


def _rule_for(module: str) -> str:
    """Migrations and the simulator's parts follow the rule of their folder."""
    top = module.partition(".")[0]
    return top if top in {"migrations", "simulator"} else module


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


def _sibling(imported: str) -> str | None:
    """The module of this package that `imported` names, None for anything outside it."""
    top, _, inner = imported.partition(".")
    if top != PACKAGE.name:
        return None
    while inner not in MODULES:
        inner = inner.rpartition(".")[0]
    return _rule_for(inner)


def _siblings(tree: ast.AST, module: str) -> set[str]:
    found = {_sibling(imported) for imported in _imports(tree, _package_of(module))}
    return {sibling for sibling in found if sibling is not None}


def test_every_module_is_known() -> None:
    assert {_rule_for(module) for module in MODULES} == set(MAY_IMPORT)


@each_module
def test_module_imports_only_along_the_arrows(module: str) -> None:
    _, tree = MODULES[module]
    rule = _rule_for(module)
    for_all = set() if rule == "simulator" else FOR_ALL
    assert _siblings(tree, module) - for_all <= MAY_IMPORT.get(rule, set())


@each_module
def test_no_function_imports_a_sibling(module: str) -> None:
    _, tree = MODULES[module]
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [function.name for function in functions if _siblings(function, module)] == []


@pytest.mark.parametrize("core", DJANGO_ALLOWED_IN)
def test_core_does_not_know_django(core: str) -> None:
    imported = {
        name.rpartition(".")[0]
        for module, (_, tree) in MODULES.items()
        if _rule_for(module) == core
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
    assert read <= ({"TIKTOK_BUSINESS"} if module == "conf" else set())


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
