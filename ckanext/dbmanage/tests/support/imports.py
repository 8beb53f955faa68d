"""Who imports whom, read out of the source: modules, rooms, and what is between."""

from __future__ import annotations

import ast
from pathlib import Path

import ckanext.dbmanage

PACKAGE = Path(ckanext.dbmanage.__file__).parent

#: the rooms of the house from the ground up: each imports those below it, and no other
ROOMS = [
    "engine", "engine/postgres", "engine/site", "engine/archive", "engine/redis",
    "engine/repository", "engine/operation", "engine/uploads", "engine/backup",
    "engine/offsite", "engine/restore", "portal", "records", "operations", "doctor", "jobs", "logic",
    "logic/action", "web", "cli", "plugin",
]  # fmt: skip
#: modules that stand higher than the folder they are in
_OWN_ROOM = {
    "engine/site": "engine/site", "engine/operation": "engine/operation",
    "plugin": "plugin", "__main__": "plugin",
}  # fmt: skip


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


def edges() -> set[tuple[str, str]]:
    """Which room imports which other one."""
    known = modules()
    found = set()
    for module, others in graph().items():
        own = room(module, known[module])
        found |= {(own, room(other, known[other])) for other in others}
    return {(own, other) for own, other in found if own != other}
