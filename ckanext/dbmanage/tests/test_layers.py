"""Who imports whom: downwards only, and in no circle."""

from __future__ import annotations

import ast
from pathlib import Path

from .test_project import PACKAGE

#: who may import whom: later ones the earlier ones, never the other way round
LAYERS = [
    {"engine"},
    {"config", "pool"},
    {"place", "readers"},
    {"blockers", "isolated", "datastore"},
    {"upgrade", "records", "reindex", "navl", "bulk", "export", "publish"},
    {"checks"},
    {"operations"},
    {"jobs"},
    {"overview"},
    {"logic"},
    {
        "talk",
        "cli",
        "catalogue",
        "views",
        "admin",
        "middleware",
        "downloads",
        "helpers",
        "plugin",
        "__main__",
    },
]


def imported(file: Path) -> set[str]:
    """Absolute names of the modules that a file imports, wherever in it."""
    package = ["ckanext", "dbmanage", *file.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*up, *filter(None, [node.module])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def test_modules_import_only_what_is_below_them() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    for file in PACKAGE.rglob("*.py"):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in ("tests", "__init__"):
            continue
        for name in imported(file):
            parts = name.split(".")
            if (
                parts[:2] == ["ckanext", "dbmanage"]
                and len(parts) > 2
                and parts[2] in level
            ):
                assert level[parts[2]] <= level[own], f"{file.name} imports {name}"


def test_the_engine_knows_neither_ckan_nor_flask_nor_click() -> None:
    for file in (PACKAGE / "engine").glob("*.py"):
        foreign = {n.split(".")[0] for n in imported(file)} & {
            "ckan", "ckantoolkit", "flask", "click",
        }  # fmt: skip
        assert not foreign, f"{file.name} imports {foreign}"
