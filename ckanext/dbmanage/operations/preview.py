"""What a restore would lose, gain and change, by kind and by name."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..engine.disk import own_directory, regular_files, whole
from ..engine.layout import EXPORTS, PREVIEW
from ..engine.repository.repository import Repository
from ..engine.restore import preflight
from ..engine.restore.preview import preview
from ..engine.restore.source import Source, open_source
from ..engine.site import Site
from ..records.kinds import KINDS
from .context import Portal
from .index import open_to_change
from .restore import Rows, warnings_of
from .stages import staged

#: objects of a kind that are shown by name, and editors
_SHOWN = 20


@dataclass
class Preview:
    """What a restore of `source` would do.

    `rows` are `{kind, now, then, lost, gained, changed}`; `names` the first objects by
    kind and change, `{id, name, title, by}`, where `by` changed it last; `editors` who
    did so most often with what would be lost or changed, `{name, count}`; `count` is
    how many objects `file` names.
    """

    source: str
    parts: list[str]
    rows: Rows = field(default_factory=list)
    names: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    editors: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    file: str = ""


def preview_restore(portal: Portal, name: str, only: tuple[str, ...] = ()) -> Preview:
    """Compares a backup or a file with what is live; changes nothing.

    The SQL of a source is not run for it, so that no source needs trust. All names go
    to a private file in the repository's folder `exports`, which the next preview
    replaces, and which is gone a day later. Raises what the engine's preview raises,
    OSError.
    """
    talk = portal.talk
    site, repository = open_to_change(portal, heads=True)
    with (
        repository.lock("preview"),
        staged(portal, repository, "preview", ["verify", "compare"]),
    ):
        source = open_source(
            site, repository, name, parts=only, trust=True, progress=talk.progress
        )
        for sentence in warnings_of(site, repository, source, check=_check):
            talk.warn(sentence)
        found = Preview(source.name, source.parts)
        path = _place(repository, source)
        talk.progress("compare", 0, 0)
        with whole(path, 0o600) as file:
            names = _Names(found, file)
            found.rows = preview(site, repository, source, KINDS, names.add)
        found.editors = [
            {"name": who, "count": count}
            for who, count in names.editors.most_common(_SHOWN)
        ]
        found.file = str(path)
    return found


def _check(site: Site, _: Repository, source: Source) -> None:
    preflight.refuse_strange_part(site, source)


def _place(repository: Repository, source: Source) -> Path:
    """Where the names go to; what an earlier preview left there is removed."""
    directory = own_directory(repository.path / EXPORTS)
    for name in regular_files(directory):
        if PREVIEW.fullmatch(name):
            (directory / name).unlink()
    backup = source.backup
    if backup is None or backup.path.parent != repository.path:
        return directory / "preview.jsonl"
    return directory / f"preview-{backup.id}.jsonl"


class _Names:
    """Takes what a preview tells of objects, in flat memory: lines, the first few."""

    def __init__(self, found: Preview, file: IO[bytes]) -> None:
        self._found, self._file = found, file
        self.editors = Counter[str]()

    def add(self, told: dict[str, Any]) -> None:
        self._file.write(json.dumps(told).encode() + b"\n")
        self._found.count += 1
        kind, change = told.pop("kind"), told.pop("change")
        shown = self._found.names.setdefault(kind, {}).setdefault(change, [])
        if len(shown) < _SHOWN:
            shown.append(told)
        if told["by"]:
            self.editors[told["by"]] += 1
