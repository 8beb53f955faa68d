"""What stands in the files: of a repository, of the public dumps, of an export."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from types import UnionType
from typing import Any

from . import text

ABOUT = """
What the files of a repository, of the public dumps and of an export hold. Times are in UTC,
checksums are SHA-256 in hex digits, sizes are bytes. `Recovery by hand <recovery.rst>`_ reads
a backup with other programs, `Public dumps <publish.rst>`_ has programs that read those.
"""
REPOSITORY = """
A backup's directory never changes once it has its name. Files belong to CKAN's user alone
(0700 and 0600). ``.zst`` is read by ``zstd -d``.
"""
SEGMENTS = """
A line for each piece of the dump, in their order. Put together they are what ``pg_dump -Fc``
writes.
"""
OBJECTS = """
``objects/ab/abcdef…`` is a content by its checksum. An upload lies there as it is; a piece of
a dump is packed by ``zstd``, some as a patch of another one (``zstd --patch-from``).
"""
SUMS = "``SHA256SUMS`` has the checksums of the other files of a backup, for ``sha256sum -c``."
EVIDENCE = """
``state/<id>.html`` is a page for people, which needs nothing else: what was proven of a
backup, when, with which versions. It shows the fields of ``proved``. Archive or print it.
"""
EXPORT = """
A line is one record, as JSON in UTF-8, ordered by name. It is what CKAN's own action shows,
plugins and all, so its fields are CKAN's and theirs. An import takes the same lines. A name
that ends with ``.gz`` or ``.zst`` is packed so.
"""
SECRETS = "Only ``--secrets`` writes these fields of a user: {}."
JOURNAL = (
    "`Journal <journal.rst>`_ has the events of ``journal.jsonl`` and their fields."
)


def formats() -> Iterator[str]:
    from ckanext.dbmanage.engine.archive import segments
    from ckanext.dbmanage.engine.repository import repository, shapes
    from ckanext.dbmanage.records import published
    from ckanext.dbmanage.records.kinds import EXPORTED
    from ckanext.dbmanage.records.kinds import SECRETS as secrets

    yield text.page("File formats", "engine/repository/shapes.py and others", ABOUT)
    yield text.title("The repository")
    yield text.wrapped(REPOSITORY)
    yield text.tree(repository.__doc__)
    yield from _shape("manifest.json", shapes.Manifest)
    yield text.title("SHA256SUMS")
    yield text.wrapped(SUMS)
    yield text.title("database.list, datastore.list")
    yield text.wrapped(SEGMENTS)
    yield text.tree(segments.__doc__)
    yield text.title("objects")
    yield text.wrapped(OBJECTS)
    yield from _shape("files.jsonl.zst", shapes.Upload)
    yield from _shape("records.jsonl.zst", shapes.Record)
    yield from _shape("state/<id>.json", shapes.State)
    yield text.title("state/<id>.html")
    yield text.wrapped(EVIDENCE)
    yield text.title("journal.jsonl")
    yield text.wrapped(JOURNAL)
    yield text.title("The public dumps")
    yield text.tree(published.__doc__)
    yield from _shape("index.json", published.Index)
    yield text.title("Export and import")
    yield text.wrapped(EXPORT)
    rows = ((f"``{kind}``", f"``{each.action}``") for kind, each in EXPORTED.items())
    yield text.table(["Kind", "Action"], rows)
    yield text.wrapped(SECRETS.format(", ".join(f"``{each}``" for each in secrets)))


def _shape(name: str, shape: Any) -> Iterator[str]:
    yield text.title(name)
    yield text.wrapped(text.literal(shape.__doc__))
    yield text.table(["Field", "Type", "What it says"], fields(shape))


def fields(shape: Any, before: str = "") -> Iterator[tuple[str, str, str]]:
    """Each field of a TypedDict and of those in it: its way, type, and what it says."""
    for name, about in typing.get_type_hints(shape, include_extras=True).items():
        kind, says = typing.get_args(about)
        optional = "" if name in shape.__required_keys__ else "; not in each"
        yield f"``{before}{name}``", _name(kind), text.literal(says) + optional
        inner, between = _inner(kind)
        if inner:
            yield from fields(inner, f"{before}{name}{between}")


def _inner(kind: Any) -> tuple[Any, str]:
    """The TypedDict in a type, and what stands between the names of the two."""
    for each in (kind, *typing.get_args(kind)):
        if typing.is_typeddict(each):
            between = {dict: ".<name>.", list: "[]."}
            return each, between.get(typing.get_origin(kind), ".")
    return None, ""


_NAMES = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    type(None): "null",
}


def _name(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return " or ".join(map(_name, typing.get_args(kind)))
    if typing.get_origin(kind) is list:
        return "list"
    return _NAMES.get(kind, "object")
