"""What others wrote, as it may be shown: it moves no cursor and forges no line.

Names, notes, words of programs and of Redis may hold escape codes, line breaks, letters
that turn the direction of reading, or bytes that are no text. Must not know where it is
shown.
"""


def printable(text: object) -> str:
    """A text with its lines; every other letter that is not printable is a `?`."""
    lines = str(text).replace("\r\n", "\n").split("\n")
    return "\n".join("".join(map(_letter, line)) for line in lines)


def one_line(text: object) -> str:
    """A text on one line, empty for None."""
    words = " ".join(("" if text is None else str(text)).split())
    return "".join(map(_letter, words))


def sentence(text: object) -> str:
    """A text whose lines after the first are indented: none passes for another one."""
    first, *more = printable(text).split("\n")
    more = [line if line.startswith(" ") else f"  {line}" for line in more]
    return "\n".join([first, *more])


def _letter(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter.isspace() and letter not in "\r\v\f\x85\u2028\u2029" else "?"
