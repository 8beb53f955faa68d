"""SQL cut into statements, as PostgreSQL's own scanner cuts it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

#: kind and value: `word` in lower case, `name` (quoted), `text` and `escaped` literals,
#: `sign`
Token = tuple[str, str]

_OPENING = re.compile(
    r"(?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)"
    r"|(?P<comment>/\*)"
    r"|(?P<escaped>[eE]')"
    r"|(?P<unicode>[uU]&['\"])"
    r"|(?P<text>')"
    r'|(?P<name>")'
    r"|(?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)"
    r"|(?P<number>\$?[0-9]+)"
    r"|(?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$)"
    r"|(?P<sign>.)",
    re.DOTALL | re.ASCII,
)

_IN_COMMENT = re.compile(r"/\*|\*/")
_IN_ESCAPED = re.compile(r"\\.|''|'", re.DOTALL)


class Odd(Exception):
    """What no dump of a site has; its text goes on after an entry's name."""


@dataclass
class Statement:
    """One statement, without what stands before it: its text, its words."""

    text: str
    tokens: list[Token]

    def words(self, count: int) -> str:
        """The unquoted words that it begins with, at most `count`, in lower case."""
        found = []
        for kind, value in self.tokens[:count]:
            if kind != "word":
                break
            found.append(value)
        return " ".join(found)


@dataclass
class Statements:
    """Cuts SQL into statements while it comes in, whole lines at a time.

    `lenient` lets names and literals with Unicode escapes through.
    """

    lenient: bool = False
    _text: list[str] = field(default_factory=list)
    _tokens: list[Token] = field(default_factory=list)
    _open: str = ""  # the kind of token that a line ended in
    _mark: str = ""  # what ends it
    _value: list[str] = field(default_factory=list)
    _comments: int = 0  # in each other
    _parentheses: int = 0
    _body: int = 0  # of BEGIN ATOMIC: itself and each CASE in it

    @property
    def between(self) -> bool:
        """Whether nothing is begun: no statement, no comment."""
        return not self._tokens and not self._open

    def feed(self, text: str) -> Iterator[Statement]:
        """The statements that end in this text. Raises Odd."""
        at = 0
        while at < len(text):
            if self._open:
                at = self._go_on(text, at)
                continue
            match = _OPENING.match(text, at)
            assert match is not None
            kind, found = match.lastgroup or "", match.group()
            at = match.end()
            if kind == "space":
                self._keep(found)
            elif kind == "comment":
                self._keep(" ")
                self._open, self._comments = kind, 1
            elif kind == "unicode":
                if not self.lenient:
                    raise Odd(f"says {found[:2]!r} before a quote")
                at -= 1
            elif kind in ("escaped", "text", "name", "dollar"):
                self._text.append(found)
                self._open, self._mark, self._value = kind, found[-1], []
                if kind == "dollar":
                    self._mark = found
            else:
                value = found.lower() if kind == "word" else found
                self._count(kind, value)
                self._tokens.append((kind, value))
                self._text.append(found)
                if value == ";" and not self._inside():
                    yield self._taken()

    def end(self) -> Iterator[Statement]:
        """What stands after the last semicolon. Raises Odd."""
        if self._open:
            raise Odd(f"has a {_CALLED[self._open]} that does not end")
        if self._tokens:
            yield self._taken()

    def _taken(self) -> Statement:
        found = Statement("".join(self._text), self._tokens)
        self._text, self._tokens = [], []
        self._parentheses = self._body = 0
        return found

    def _inside(self) -> bool:
        """Whether a semicolon here is one of a rule's or a function's statements."""
        rule = self._parentheses > 0 and makes(self._tokens, "rule")
        return rule or self._body > 0

    def _count(self, kind: str, value: str) -> None:
        if kind == "sign":
            self._parentheses += {"(": 1, ")": -1}.get(value, 0)
        elif kind != "word":
            return
        elif self._body:
            self._body += {"case": 1, "end": -1}.get(value, 0)
        elif value == "atomic" and self._tokens[-1:] == [("word", "begin")]:
            routine = makes(self._tokens, "function", "procedure")
            self._body = int(routine and not self._parentheses)

    def _keep(self, text: str) -> None:
        if self._tokens:
            self._text.append(text)

    def _go_on(self, text: str, at: int) -> int:
        """Goes on inside a comment, a literal or a quoted name; where it stopped."""
        if self._open == "comment":
            for match in _IN_COMMENT.finditer(text, at):
                self._comments += 1 if match.group() == "/*" else -1
                if not self._comments:
                    self._open = ""
                    return match.end()
            return len(text)
        end = self._end_of_quoted(text, at)
        stop = len(text) if end < 0 else end
        self._value.append(text[at:stop])
        self._text.append(text[at:stop])
        if end < 0:
            return stop
        self._text.append(self._mark)
        value = "".join(self._value)
        if self._open in ("text", "name"):
            value = value.replace(self._mark * 2, self._mark)
        kind = "text" if self._open == "dollar" else self._open
        if kind == "text" and self._tokens and self._tokens[-1][0] == kind:
            value = self._tokens.pop()[1] + value  # a literal on two lines
        self._tokens.append((kind, value))
        self._open = ""
        return stop + len(self._mark)

    def _end_of_quoted(self, text: str, at: int) -> int:
        if self._open == "dollar":
            return text.find(self._mark, at)
        if self._open == "escaped":
            for match in _IN_ESCAPED.finditer(text, at):
                if match.group() == "'":
                    return match.start()
            return -1
        end = text.find(self._mark, at)
        while end >= 0 and text.startswith(self._mark, end + 1):
            end = text.find(self._mark, end + 2)
        return end


_CALLED = {
    "comment": "comment",
    "name": "quoted name",
    "text": "literal",
    "escaped": "literal",
    "dollar": "literal",
}


def makes(tokens: list[Token], *kinds: str) -> bool:
    """Whether a statement makes an object of one of these kinds."""
    words = [value if kind == "word" else "" for kind, value in tokens[:4]]
    if words[1:3] == ["or", "replace"]:
        words = [words[0], *words[3:]]
    return words[:1] == ["create"] and words[1:2] != [] and words[1] in kinds


def columns(copy: str) -> list[str]:
    """The names of the columns of a COPY of pg_dump."""
    tokens = [token for found in Statements().feed(copy) for token in found.tokens]
    if ("sign", "(") not in tokens:
        return []
    named = tokens[tokens.index(("sign", "(")) : tokens.index(("sign", ")"))]
    return [value for kind, value in named if kind in ("word", "name")]


def word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())
