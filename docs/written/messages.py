"""Every message of the code: what fails, what warns, what the doctor finds."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from . import text

DOCS = Path(__file__).resolve().parent.parent
PACKAGE = DOCS.parent / "ckanext/dbmanage"
ABOUT = """
Every message of an error, of a warning and of ``ckan db doctor``, and where in the code it
stands. ``…`` is a name, a number or a path, or another message. Search this page for some
words of yours.

A message says what failed, in which file or object, and what to do next. `Troubleshooting
<troubleshooting.rst>`_ tells more of those that have a star (\\*) here.
"""
KINDS = {
    "error": ("Errors", "A command ends with one of these, and with exit code 1 or 2. An "
              "action of the API raises it, and a job of the page ends with it."),
    "warning": ("Warnings", "The command goes on."),
    "finding": ("Findings of the doctor", "As problems or as hints."),
}  # fmt: skip
#: that are raised with a message for people, beside those of engine/errors.py
_ERRORS = {"ClickException", "UsageError", "BadParameter", "Unfit", "NotNow"}


def messages() -> Iterator[str]:
    yield text.page("Messages", "all modules", ABOUT)
    found, told = list(collected()), explained()
    for kind, (heading, about) in KINDS.items():
        yield text.title(heading)
        yield text.wrapped(about)
        for said, file in sorted({(s, f) for k, s, f in found if k == kind}):
            star = " \\*" if any(each.search(said) for each in told) else ""
            yield textwrap.fill(
                f"- ``{said}``{star} (``{file}``)", text.WIDTH, subsequent_indent="  ",
                break_on_hyphens=False, break_long_words=False,
            ) + "\n"  # fmt: skip


def explained() -> list[re.Pattern[str]]:
    """What Troubleshooting quotes of messages in its headings."""
    page = (DOCS / "troubleshooting.rst").read_text("utf-8")
    ours = page[page.index("Messages about users and rights") :]
    quoted = re.findall(r"(?m)^``(.+)``\n~{4,}$", ours)
    return [re.compile(re.escape(each).replace("…", ".*")) for each in quoted]


def collected() -> Iterator[tuple[str, str, str]]:
    """The kind, the text and the file of each message that stands in the code."""
    errors = _ERRORS | {
        node.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and _is_error(node)
    }
    for file in sorted(PACKAGE.rglob("*.py")):
        name = str(file.relative_to(PACKAGE))
        if name.startswith("tests/"):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            for kind, said in _said(node, errors):
                if len(re.sub(r"\W|…", "", said)) > 8:  # else it is handed in
                    yield kind, said, name


def _is_error(node: ast.ClassDef) -> bool:
    """Whether it is one of ours, by a parent that engine/errors.py has."""
    from ckanext.dbmanage.engine import errors

    def ours(name: str) -> bool:
        found = getattr(errors, name, None)
        return isinstance(found, type) and issubclass(found, errors.DbmanageError)

    return ours(node.name) or any(ours(_called(base)) for base in node.bases)


def _said(node: ast.AST, errors: set[str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        if _called(node.exc.func) in errors:
            yield from (("error", said) for said in _texts(node.exc.args))
    elif isinstance(node, ast.ClassDef) and node.name in errors:
        for call in ast.walk(node):  # it makes its message itself
            if isinstance(call, ast.Call) and _called(call.func) == "__init__":
                yield from (("error", said) for said in _texts(call.args))
    elif isinstance(node, ast.Call) and _called(node.func) in ("warn", "_warn"):
        yield from (("warning", said) for said in _texts(node.args))
    elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
        first, *others = node.value.elts
        if isinstance(first, ast.Name) and first.id in ("PROBLEM", "HINT"):
            yield from (("finding", said) for said in _texts(others))


def _called(function: ast.expr) -> str:
    return getattr(function, "attr", None) or getattr(function, "id", "")


def _texts(arguments: list[ast.expr]) -> Iterator[str]:
    for each in arguments:
        # both of what it may be
        for one in (each.body, each.orelse) if isinstance(each, ast.IfExp) else (each,):
            yield " ".join(_text(one).split())


def _text(node: ast.expr) -> str:
    """A text with … where a value comes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w*\}|%\(\w+\)s", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (
            each.value if isinstance(each, ast.Constant) else "…"
            for each in node.values
        )
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.Call):  # _("…"), "…".format(…), told("…")
        inner = node.func.value if _called(node.func) == "format" else None
        found = [inner] if isinstance(inner, ast.expr) else node.args[:1]
        return _text(found[0]) if found else "…"
    return "…"
