"""Who imports whom: downwards only, and in no circle."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter

from .support.imports import PACKAGE, ROOMS, graph, imported, modules, room

_FOREIGN = {"ckan", "ckantoolkit", "flask", "click"}


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


def test_the_picture_shows_the_rooms_and_what_they_import() -> None:
    draw = PACKAGE.parents[1] / "docs" / "draw"
    subprocess.run([sys.executable, draw, "--check"], check=True)
