"""Who imports whom: downwards only, and in no circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import ckanext.dbmanage

PACKAGE = Path(ckanext.dbmanage.__file__).parent

#: the rooms of the house from the ground up: each imports those below it, and no other
ROOMS = [
    "engine", "engine/postgres", "engine/site", "engine/archive", "engine/redis",
    "engine/repository", "engine/uploads", "engine/backup", "engine/restore",
    "portal", "records", "operations", "doctor", "jobs", "logic", "logic/action",
    "web", "cli", "plugin",
]  # fmt: skip
#: modules that stand higher than the folder they are in
_OWN_ROOM = {"engine/site": "engine/site", "plugin": "plugin", "__main__": "plugin"}
_FOREIGN = {"ckan", "ckantoolkit", "flask", "click"}


def modules() -> dict[str, Path]:
    """The modules of the package by their path below it, without those of its tests."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        path = file.relative_to(PACKAGE).with_suffix("")
        if path.parts[0] != "tests" and path.as_posix() != "__init__":
            found[path.as_posix().removesuffix("/__init__")] = file
    return found


def room(module: str, file: Path) -> str:
    """The room that a module stands in."""
    folder = file.parent.relative_to(PACKAGE).as_posix()
    return _OWN_ROOM.get(module, folder)


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


def graph() -> dict[str, set[str]]:
    """For each module those of the package that it imports."""
    known = modules()
    found = {}
    for module, file in known.items():
        paths = {
            name.removeprefix("ckanext.dbmanage.").replace(".", "/")
            for name in imported(file)
        }
        # `from .folder import module` names the folder too, and means the module
        paths = {
            p
            for p in paths
            if not any(o.startswith(f"{p}/") for o in paths & known.keys())
        }
        found[module] = (paths & known.keys()) - {module}
    return found


def test_modules_import_only_what_is_below_them() -> None:
    known, level = modules(), {name: number for number, name in enumerate(ROOMS)}
    wrong = []
    for module, others in graph().items():
        own = room(module, known[module])
        for other in others:
            there = room(other, known[other])
            if there != own and level[there] >= level[own]:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_no_module_is_in_a_circle() -> None:
    tuple(TopologicalSorter(graph()).static_order())


def test_the_engine_knows_neither_ckan_nor_flask_nor_click() -> None:
    for file in (PACKAGE / "engine").rglob("*.py"):
        foreign = {name.split(".")[0] for name in imported(file)} & _FOREIGN
        assert not foreign, f"{file} imports {foreign}"


def test_no_module_is_long() -> None:
    long = {m: len(f.read_text().splitlines()) for m, f in modules().items()}
    assert not {module: lines for module, lines in long.items() if lines > 410}
