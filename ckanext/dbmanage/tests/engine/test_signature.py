"""The one form of our documents, which each signature is of."""

from __future__ import annotations

import json
import random
from typing import Any

from ckanext.dbmanage.engine.signature import dumped

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
