"""Lists on a terminal: a line that is too long goes on below, indented.

In a pipe nothing is broken. What stands in backticks is to be pasted: it stays whole.
"""

import os
import re
import sys
from contextlib import suppress


def width() -> int:
    """How many columns stdout has, 0 where it is no terminal."""
    if sys.stdout.isatty():
        with suppress(OSError, ValueError):
            return os.get_terminal_size(sys.stdout.fileno()).columns
    return 0


def fitted(line: str, indent: int, columns: int) -> str:
    """A line in as many as it needs, those after the first indented.

    Where the indent would leave little room it is a small one.
    """
    if not columns or len(line) <= columns:
        return line
    margin = " " * (indent if indent <= columns // 2 else 2)
    lines = [""]
    # the columns of a table stay apart
    for space, word in re.findall(r"(\s*)((?:`[^`]*`|[^\s`]|`)+)", line):
        whole = lines[-1] + space + word
        if len(whole) <= columns or not lines[-1]:
            lines[-1] = whole
        else:
            lines.append(margin + word)
    return "\n".join(lines)
