"""The one form of our documents, and who signed them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ckanext.dbmanage.engine.signature import dumped, read_json, sign, signed_by

_TEXTS = ("", "a", "ä\u6771", '"\\\n\x00', "hmac", "\u2028", "a b")


def _document(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(9 if depth else 6)
    if kind < 6:
        numbers = (0, -7, 1 << 70, 0.1, 1e300, 3.0)
        return chance.choice((None, True, False, *numbers, *_TEXTS))
    many = range(chance.randrange(5))
    if kind == 6:
        return [_document(chance, depth - 1) for _ in many]
    return {chance.choice(_TEXTS) + str(n): _document(chance, depth - 1) for n in many}


def test_it_is_what_json_itself_writes_with_an_indent() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        document = {"a": _document(chance, 4), "b": _document(chance, 2)}
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True)
        assert dumped(document) == text.encode() + b"\n"


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_only_what_one_of_the_secrets_signed_for_this_purpose_is_believed() -> None:
    signed = sign({"a": 1}, "secret", "manifest")
    assert signed_by(signed, ("of today", "secret"), "manifest")
    assert not signed_by(signed, ("secret",), "state")
    assert not signed_by(signed, ("another",), "manifest")
    assert not signed_by(signed | {"a": 2}, ("secret",), "manifest")
    # a site without a secret has signed nothing
    assert not signed_by(sign({"a": 1}, "", "manifest"), ("",), "manifest")


@pytest.mark.parametrize(
    "document",
    [
        None, [], "hmac", {}, {"hmac": None}, {"hmac": "\ud800"},
        {"hmac": "0" * 64, "a": _nested(50_000)},
    ],
    ids=["None", "a list", "a text", "nothing", "null", "no text", "deep"],
)  # fmt: skip
def test_what_is_no_signed_document_is_not_believed(document: Any) -> None:
    assert not signed_by(document, ("secret",), "manifest")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 200_000])
def test_a_file_that_is_no_json_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert read_json(tmp_path / "x.json") is None
