"""Sizes, parts and lists, as people are told of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from babel import Locale

import ckanext.dbmanage
from ckanext.dbmanage.engine.words import listed, many, parts, size, stage_name
from ckanext.dbmanage.web.helpers import _size

PACKAGE = Path(ckanext.dbmanage.__file__).parent


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (999_949, "999.9 kB"),
        (999_950, "1.0 MB"), (1_080_175_203, "1.1 GB"), (5e12, "5.0 TB"),
        (2e16, "20000.0 TB"),
    ],
)  # fmt: skip
def test_a_size_is_told_in_the_unit_that_fits(count: float, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 999_949, 999_950, 1_080_175_203])
def test_a_page_tells_a_size_by_the_same_rule(count: int) -> None:
    assert _size(count, Locale("en")) == size(count)
    assert "digital" not in _size(count, Locale("ar"))


def test_parts_have_the_names_that_people_know() -> None:
    assert (
        parts(["database", "datastore", "files"]) == "database, DataStore and uploads"
    )
    assert parts(["files"]) == "uploads" and parts([]) == "" and parts(["x"]) == "x"
    assert listed(f"{n}" for n in range(2)) == "0 and 1"


def test_one_thing_is_told_as_one() -> None:
    told = [many(n, "dataset") for n in range(3)]
    assert told == ["0 datasets", "1 dataset", "2 datasets"]


def test_a_stage_is_told_with_the_part_that_it_is_of() -> None:
    assert stage_name("load datastore") == "load DataStore"
    assert stage_name("switch") == "switch" and stage_name("read x") == "read"


def test_nobody_is_told_a_number_of_bytes() -> None:
    """But where two numbers are compared that must be equal."""
    exact = {"verify.py", "objects.py", "pull.py", "conditional.py", "words.py"}
    found = set()
    for file in PACKAGE.rglob("*.py"):
        if "tests" in file.relative_to(PACKAGE).parts or file.name in exact:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    each.value if isinstance(each, ast.Constant) else "{}"
                    for each in node.values
                )
                if re.search(r"\{\} (bytes|[KkMG]B)\b", text):
                    found.add((file.name, text))
    assert not found
