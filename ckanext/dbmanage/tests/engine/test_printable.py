"""What others wrote moves no cursor, forges no line and hides nothing."""

from __future__ import annotations

import pytest

from ckanext.dbmanage.engine.printable import one_line, printable, sentence


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Flüsse 東", "Flüsse 東"), ("\x1b[2Jb", "?[2Jb"), ("a\tb\xa0c", "a b c"),
        ("a\r\nb\nc", "a\nb\nc"), ("a\rb", "a?b"), ("a\u2028b\x85c", "a?b?c"),
        ("a\u202eb", "a?b"), ("a\udcff", "a?"), (None, "None"),
    ],
)  # fmt: skip
def test_only_what_is_a_letter_is_shown(written: object, shown: str) -> None:
    assert printable(written) == shown


def test_a_name_is_on_one_line() -> None:
    assert one_line(" a\r\n b\u2028c\x1b ") == "a b c?"
    assert one_line(None) == "" and one_line(0) == "0"


def test_a_second_line_passes_for_no_other_sentence() -> None:
    assert sentence("failed\nERROR: all\n  of it") == ("failed\n  ERROR: all\n  of it")
