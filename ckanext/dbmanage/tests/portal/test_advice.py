"""The engine asks for advice, and the portal has it."""

from __future__ import annotations

import re
from pathlib import Path

import ckanext.dbmanage
from ckanext.dbmanage.portal.advice import ADVICE


def test_each_case_of_the_engine_has_its_advice_and_no_other() -> None:
    engine = Path(ckanext.dbmanage.__file__).parent / "engine"
    asked = {"no datastore", "no files"}  # `no {part}`; nobody lacks a database
    for file in engine.rglob("*.py"):
        asked |= set(re.findall(r"""\.advise\(['"]([a-z ]+)['"]""", file.read_text()))
    assert asked == set(ADVICE)
