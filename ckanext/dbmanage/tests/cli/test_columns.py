"""Lists fit the terminal, and what is to be pasted stays whole."""

import pytest

from ckanext.dbmanage.cli.columns import fitted, taken

LINE = (
    "problem  worker     nobody does the jobs of the page: `/usr/lib/ckan/default/bin/"
    "ckan -c /etc/ckan/default/ckan.ini db worker` starts one"
)


@pytest.mark.parametrize("columns", [40, 80])
def test_a_long_line_goes_on_below(columns: int) -> None:
    lines = fitted(LINE, 20, columns).split("\n")
    assert lines[0].startswith("problem  worker     nobody")
    (command,) = [line for line in lines if "`" in line]
    assert command.count("`") == 2  # it may be longer than the terminal
    assert all(len(line) <= columns for line in lines if line != command)
    assert all(line.startswith(" " * 20) for line in lines[1:])
    assert " ".join(LINE.split()) == " ".join(" ".join(lines).split())


def test_a_short_line_and_one_in_a_pipe_stay() -> None:
    assert fitted(LINE, 20, 0) == LINE
    assert fitted("a  b", 20, 40) == "a  b"


def test_letters_of_east_asia_take_two_columns_and_accents_none() -> None:
    assert taken("東京 e\u0301") == 6
    assert fitted("東京 東京 東京", 2, 10) == "東京 東京\n  東京"
