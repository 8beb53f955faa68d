"""Who imports whom: downwards only, and in no circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter

from .support.imports import PACKAGE, ROOMS, graph, imported, modules, room

_FOREIGN = {"ckan", "ckantoolkit", "flask", "click"}
#: what CKAN calls its tables, options and commands, and ours: handed to the engine
_WORDS = re.compile(r"`ckan |\bckan\.[a-z]|ckanext\.|SECRET_KEY|--only|--trust|package")
_MESSAGES = re.compile(f"{_WORDS.pattern}|DataStore|webassets|i18n|SECRET_KEY")


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


def test_pages_ask_actions_and_nothing_below_them() -> None:
    closed = (
        "operations", "doctor", "jobs", "logic",
        "engine/backup", "engine/restore", "engine/repository",
    )  # fmt: skip
    # the bytes of a download, which an action has allowed
    allowed = {("web/transfer", "engine/backup/downloads")}
    wrong = {
        (module, other)
        for module, others in graph().items()
        if module.partition("/")[0] == "web"
        for other in others
        if other.startswith(closed)
    }
    assert wrong == allowed


def test_no_module_is_in_a_circle() -> None:
    tuple(TopologicalSorter(graph()).static_order())


def test_the_engine_knows_neither_ckan_nor_flask_nor_click() -> None:
    for file in (PACKAGE / "engine").rglob("*.py"):
        foreign = {name.split(".")[0] for name in imported(file)} & _FOREIGN
        assert not foreign, f"{file} imports {foreign}"


def test_no_message_of_the_engine_has_words_of_ckan_s() -> None:
    """They are handed in: `Site`, and `engine/report.py`; comments may explain."""
    wrong = []
    for file in (PACKAGE / "engine").rglob("*.py"):
        tree = ast.parse(file.read_text())
        said = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        wrong += [
            f"{file.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and id(node) not in said and _MESSAGES.search(node.value)
        ]  # fmt: skip
    assert not wrong


def test_backup_and_restore_name_no_table_option_or_command_of_ckan_s() -> None:
    for folder in ("backup", "restore"):
        for file in (PACKAGE / "engine" / folder).glob("*.py"):
            assert not _WORDS.findall(file.read_text()), file


def test_no_module_is_long() -> None:
    long = {m: len(f.read_text().splitlines()) for m, f in modules().items()}
    assert not {module: lines for module, lines in long.items() if lines > 410}


def test_the_picture_shows_the_rooms_and_what_they_import() -> None:
    draw = PACKAGE.parents[1] / "docs" / "draw"
    subprocess.run([sys.executable, draw, "--check"], check=True)
