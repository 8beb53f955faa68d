"""Import: lines of records are looked at, and handed to processes that write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

import sqlalchemy as sa
from ckan import logic, model
from ckan.lib.navl.dictization_functions import Invalid

from ..engine.errors import Refused
from ..engine.report import Progress
from ..engine.words import size
from ..portal.config import Options
from .incoming import (
    TREES,
    InOrder,
    Looked,
    Relationship,
    Unfit,
    name_in,
    understood,
)
from .lines import LONGEST, Line, Source
from .processes import Writers
from .relationships import relate
from .sending import Sending
from .write import Writes
from .written import Given, How, Written

#: lines of a batch, at most, and their bytes unless it is one
_BATCH, _BYTES = 50, 4 << 20
#: names of tags that are looked up at once, about
_TAGS = 1000

#: told of each line that is refused: number, name, why
Refuse = Callable[[int, str, str], Any]
#: takes what was refused, as it stood in the file
Keep = Callable[[bytes], Any]


class Import:
    """Records of one kind, out of a source; `folder` is for what waits on disk."""

    def __init__(
        self, kind: str, source: Source, how: How, folder: str, options: Options
    ) -> None:
        self._kind, self._source, self._how = kind, source, how
        self._folder, self._sending = folder, Sending(options)

    def run(
        self,
        app: Any,
        jobs: int,
        refuse: Refuse,
        keep: Keep,
        progress: Progress = lambda *_: None,
        told: Callable[[Written], Any] = lambda _: None,
    ) -> Written:
        """Writes all; `told` is handed what was done so far.

        Raises DbmanageError when the file is damaged or a process ends before its time.
        """
        site_user = logic.get_action("get_site_user")({"ignore_auth": True}, {})
        with TemporaryFile(dir=self._folder) as spool:
            tree = InOrder(spool) if self._kind in TREES else None
            looked = self._look(tree, refuse, keep, progress)
            lines = self._source.lines()
            if tree is not None:
                # children come after their parents, one by one
                jobs, lines = 1, tree.lines(looked.refused)
            done, passed, bad = Written(), 0, set[int]()
            kind, how, name = self._kind, self._how, site_user["name"]
            sending = self._sending
            with Writers(
                app, lambda: Writes(kind, how, name, sending), jobs
            ) as writers:
                progress("import", 0, looked.total)
                batches = _batches(lines, looked.refused, refuse, keep)
                for batch, written in writers.each(batches):
                    done.add(written)
                    contents = {number: content for number, content, _ in batch}
                    for number, *said in sorted(written.refused):
                        bad.add(number)
                        keep(contents[number] + b"\n")
                        refuse(number, *said)
                    passed += len(batch)
                    told(done)
                    progress("import", passed, looked.total)
            if self._kind == "datasets" and not how.dry:
                told_by = {
                    one: number
                    for one, numbers in looked.relationships.items()
                    for number in numbers
                    if number not in bad
                }
                done.relationships = self._relate(told_by, name, refuse, keep)
                told(done)
        return done

    def _relate(
        self, told_by: dict[Relationship, int], user: str, refuse: Refuse, keep: Keep
    ) -> int:
        """Makes relationships, with the line that tells of each; how many."""
        refused: dict[int, list[str]] = {}
        for one, why in relate(told_by, user).items():
            what = f"{one.subject} {one.type} {one.object}"
            refused.setdefault(told_by[one], []).append(f"{what}: {why}")
        for number, content, is_piece in self._source.lines() if refused else ():
            if number in refused and not is_piece:
                keep(content + b"\n")
                refuse(
                    number,
                    name_in(understood(content)),
                    f"is imported, but not this: {'; '.join(refused[number])}. Give "
                    "the line again with --resume when the other dataset is there",
                )
        return len(told_by) - sum(map(len, refused.values()))

    def _look(
        self, tree: InOrder | None, refuse: Refuse, keep: Keep, progress: Progress
    ) -> Looked:
        """Goes through the whole file once, and makes its tags. Raises Refused."""
        looked, long = Looked(), _Long(refuse, keep)
        fit, why = False, ""
        progress("read", 0, 0)
        for number, content, is_piece in self._source.lines():
            if is_piece:
                if tree is not None:  # it is not gone through again
                    long(number, content)
                continue
            looked.total += 1
            record = {}
            try:
                record = understood(content)
                looked.take(number, record)
                fit = True
            except Unfit as error:  # who writes says so
                why = why or f"line {number} {error}"
            if tree is not None:
                tree.add(number, content, record)
            if not looked.total % 1000:
                progress("read", looked.total, 0)
            if len(looked.tags) > _TAGS:
                self._make(looked.tags)
        if why and not fit:
            raise Refused(
                f"{self._source.name} holds no record: {why}. A file has one a line, "
                f"as `ckan db export {self._kind} -O FILE` writes it"
            )
        self._make(looked.tags)
        return looked

    def _make(self, tags: set[str]) -> None:
        if not self._how.dry:
            _make_tags(tags)
        tags.clear()


class _Long:
    """Refuses lines that are too long, of which the pieces come one after the other."""

    def __init__(self, refuse: Refuse, keep: Keep) -> None:
        self._refuse, self._keep, self._last = refuse, keep, 0

    def __call__(self, number: int, piece: bytes) -> None:
        self._keep(piece)
        if number != self._last:
            self._last = number
            self._refuse(number, "", f"is longer than {size(LONGEST)}")


def _batches(
    lines: Iterable[Line], refused: dict[int, str], refuse: Refuse, keep: Keep
) -> Iterator[list[Given]]:
    """Lines to be written together; those that are too long are refused on the way."""
    batch, held, long = list[Given](), 0, _Long(refuse, keep)
    for number, content, is_piece in lines:
        if is_piece:
            long(number, content)
            continue
        if batch and (len(batch) == _BATCH or held + len(content) > _BYTES):
            yield batch
            batch, held = [], 0
        batch.append((number, content, refused.get(number, "")))
        held += len(content)
    if batch:
        yield batch


def _make_tags(names: Iterable[str]) -> None:
    """Makes the free tags that are not there, before several processes need them.

    No rule of the database's keeps two transactions from making the same one.
    """
    tag = model.tag_table.c
    rules = ("tag_length_validator", "tag_name_validator")
    valid = [logic.get_validator(rule) for rule in rules]
    there = model.Session.execute(
        sa.select(tag.name).where(
            tag.name.in_(list(names)), tag.vocabulary_id.is_(None)
        )
    )
    for name in sorted(set(names) - {name for (name,) in there}):
        with suppress(Invalid):  # its dataset is refused
            for rule in valid:
                rule(name, {})  # type: ignore[call-arg]
            model.Session.add(model.Tag(name=name))
    model.Session.commit()
    model.Session.remove()
