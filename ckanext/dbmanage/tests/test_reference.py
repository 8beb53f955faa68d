"""The pages that docs/generate writes say what there is: files, exit codes, messages."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import typing
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import UnionType
from typing import Any, cast

from ckanext.dbmanage import cli
from ckanext.dbmanage.cli.codes import FAILS, MEANINGS
from ckanext.dbmanage.engine.repository import events, shapes
from ckanext.dbmanage.records.published import Index

from .cli.test_transcripts import DOWN, EACH, FRESH, NO, OTHERS
from .support.imports import PACKAGE
from .support.manual import DOCS
from .support.portal import Portal


def faults(value: Any, shape: Any, where: str = "") -> list[str]:
    """What of a value is not of its declared shape."""
    if typing.is_typeddict(shape):
        if not isinstance(value, dict):
            return [f"{where}: {value!r}"]
        hints = typing.get_type_hints(shape)
        odd = {*value} - {*hints} | shape.__required_keys__ - {*value}
        found = [f"{where}.{name}: {name in value}" for name in odd]
        for name in {*value} & {*hints}:
            found += faults(value[name], hints[name], f"{where}.{name}")
        return found
    kind, inner = typing.get_origin(shape) or shape, typing.get_args(shape)
    if kind in (UnionType, typing.Union):
        return min((faults(value, each, where) for each in inner), key=len)
    if (
        kind is not object
        and type(value) is not kind
        and (type(value), kind) != (int, float)
    ):
        return [f"{where}: {value!r}"]
    values = value.values() if kind is dict else value if kind is list else ()
    return [fault for each in values for fault in faults(each, inner[-1], where)]


def test_the_files_have_the_fields_that_the_page_of_formats_has(portal: Portal) -> None:
    (portal.storage / "resources/upl/oad/-1").unlink()
    os.mkfifo(portal.storage / "resources" / "pipe")
    made = portal.backup("--note", "x")
    portal.db("verify", "--prove")
    portal.db("keep", "latest")
    portal.db("publish")
    manifest = json.loads((made / "manifest.json").read_bytes())
    state = json.loads((made.parent / "state" / f"{made.name}.json").read_bytes())
    index = portal.storage / "dbmanage" / "public" / "index.json"
    found = [
        *faults(manifest, shapes.Manifest),
        *faults(state, shapes.State),
        *faults(json.loads(index.read_bytes()), Index),
    ]
    some: dict[str, set[str]] = {}
    for name, shape in ("files", shapes.Upload), ("records", shapes.Record):
        command = ["zstd", "-dcq", str(made / f"{name}.jsonl.zst")]
        lines = subprocess.run(command, check=True, capture_output=True).stdout
        records = [json.loads(line) for line in lines.splitlines()]
        found += [fault for each in records for fault in faults(each, shape, name)]
        some[name] = {field for each in records for field in each}
    assert found == []
    assert {"sha256", "missing", "refused"} < some["files"]
    odd = faults(manifest | {"new": 1, "note": 5}, shapes.Manifest)
    assert sorted(odd) == [".new: True", ".note: 5"]


def test_an_event_or_a_field_that_is_not_declared_is_found() -> None:
    line = {"time": "", "event": "done", "what": "backup", "bytes": 5}
    assert events.unknown(line) == []
    assert events.unknown(line | {"what": "push", "parts": [], "new": 1}) == [
        "new",
        "parts",
    ]
    assert events.unknown({"event": "began"}) == ["began"]
    fields = {field for each in events.EVENTS.values() for field in each.fields}
    fields |= {field for each in events.ENDED.values() for field in each}
    assert fields == {*events.FIELDS}


def test_the_page_of_exit_codes_has_each() -> None:
    """Those that the transcripts of the tests show, and of which commands more."""
    seen = {
        code
        for each in (EACH, OTHERS, FRESH, DOWN)
        for name, codes in each.items()
        if "--nagios" not in name
        for code in (codes if isinstance(codes, tuple) else (codes,))
    }
    assert seen <= {*MEANINGS} | {*NO}
    ending = set()
    for file in (PACKAGE / "cli").glob("*.py"):
        text = file.read_text()
        if file.stem != "base" and re.search(
            r"raise click.ClickException|sys.exit", text
        ):
            ending.add(file.stem)
    modules = {
        each.load().callback.__module__.rpartition(".")[2]
        for each in cli.COMMANDS
        if each.name in FAILS
    }
    assert modules == ending
    assert {*FAILS} <= {each.name for each in cli.COMMANDS}


def test_the_page_of_messages_has_what_a_user_sees() -> None:
    """Each that Troubleshooting quotes, and those of each way in which one is told."""
    page = " ".join((DOCS / "messages.rst").read_text().split())
    for said in (
        "another `ckan db publish` is at work in …",  # a class that makes its own
        "that is not the site's name: nothing was touched",  # raised by a command
        "the index has … datasets, the database …",  # told
        "could not be dropped",
    ):
        assert said in page, said


def test_each_picture_of_the_manual_is_made_by_docs_shots_and_is_shown() -> None:
    """And is described, for who cannot see it."""
    loader = SourceFileLoader("shots", str(DOCS / "shots"))
    shots = module_from_spec(cast(ModuleSpec, spec_from_loader("shots", loader)))
    loader.exec_module(shots)
    shown = {}
    for page in DOCS.glob("*.rst"):
        found = re.findall(
            r"\.\. image:: images/(\S+)\n   :alt: (\S.+)", page.read_text()
        )
        assert len(found) == page.read_text().count("images/"), page
        shown |= dict(found)
    there = {file.name: file for file in (DOCS / "images").iterdir()}
    assert {*shown} == {*there} == shots.MADE
    assert not [n for n, file in there.items() if file.stat().st_size > shots.MOST]
    for name, words in shots.TERMINALS.items():
        text = html.unescape((DOCS / "images" / f"{name}.svg").read_text())
        assert f"ckan db {words.split()[0]}" in text.replace("\xa0", " ")
