"""A backup is restored, and that is undone.

A person is asked while nothing is locked: `look_at_restore` says what a restore would
do, `run_restore` does it when that still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2 import Error as DatabaseError

from ..engine import layout
from ..engine.backup.take import take_replaced
from ..engine.clock import parse_stamp
from ..engine.errors import DbmanageError, Refused, message_of
from ..engine.operation import Operation
from ..engine.report import Listener, Warn
from ..engine.repository.repository import Repository
from ..engine.restore import preflight
from ..engine.restore.copies import stages_of
from ..engine.restore.history import last_switch, undoable
from ..engine.restore.preview import preview
from ..engine.restore.restore import Restored, restore_backup, undo_switch
from ..engine.restore.source import Source, open_source
from ..engine.site import Site
from ..portal import changed, migrate, signals
from ..records.kinds import KINDS
from .allowed import wanted
from .backup import why_incomplete
from .context import Portal
from .index import catch_up, owing_an_index
from .locked import let_go, locked
from .stages import of_backup, staged
from .things import Brought, undo_thing

#: what follows a switch, while it does
OWES_INDEX = "searches may show the old state: `ckan db reindex --changed`"
_OWES_BACKUP = "the safety backup was not finished: `ckan db backup`"
#: rows of a preview: `{kind, now, then, lost, gained, changed}`
Rows = list[dict[str, Any]]
#: looks at what is to be restored; raises Refused
Check = Callable[[Site, Repository, Source], None]


@dataclass(frozen=True)
class Look:
    """What a restore would do, as somebody was asked about it.

    `reference` finds the same source again; `contents` are its checksums by part;
    `moment` is when it was made, if that is known; `whole` that nothing of the site
    stays as it is. Without `rows` nobody could count.
    """

    name: str
    parts: list[str]
    reference: str
    contents: dict[str, str]
    warnings: list[str]
    rows: Rows
    moment: datetime | None = None
    whole: bool = False

    def differing(self, kind: str) -> int | None:
        """How many objects of a kind are another now.

        None where nobody knows, or where there are none now.
        """
        for row in self.rows:
            if row["kind"] == kind and row["now"]:
                return row["lost"] + row["gained"] + row["changed"]
        return None

    @property
    def losses(self) -> set[str]:
        """The kinds of object of which some are lost or go back to an older state."""
        return {str(r["kind"]) for r in self.rows if r["lost"] or r["changed"]}

    def refuse_other(self, now: Look) -> None:
        """Raises Refused where the restore would do `now` what nobody has confirmed."""
        changed = [f"new: {w}" for w in now.warnings if w not in self.warnings]
        if now.contents != self.contents:
            changed.append(f"{self.name} is not the same any more")
        if more := now.losses - self.losses:
            changed.append(f"it would lose or change {', '.join(sorted(more))} too")
        if changed:
            raise Refused(
                "what was confirmed has changed since, and nothing was touched: "
                f"{'; '.join(changed)}. Look at it again"
            )


def look_at_restore(
    portal: Portal, name: str, only: tuple[str, ...], trust: bool, called: str = ""
) -> Look:
    """What there is to confirm before a restore. Raises what that raises.

    The warnings are told; the repository is free again when this returns.
    """
    talk = portal.talk
    with locked(portal, "restore", heads=True) as (site, repository):
        source = open_source(
            site, repository, name, parts=only, trust=trust, progress=talk.progress,
            called=called,
        )  # fmt: skip
        found = _look_at(site, repository, source, name, talk.warn)
    talk.end()
    return found


@signals.failures("restore")
def run_restore(
    portal: Portal,
    name: str,
    only: tuple[str, ...] = (),
    *,
    trust: bool = False,
    no_backup: bool = False,
    attended: bool = False,
    confirmed: Look | None = None,
    called: str = "",
) -> Restored:
    """Restores a backup or a file, indexes, and backs up what was replaced.

    `called` is what messages call a file whose name says nothing.
    What was `confirmed` must still hold. Unless somebody is there to read the warnings
    (`attended`), a restore that changes the owner of something is refused. Raises
    Refused, Damaged, and what the engine's restore raises.
    """
    talk = portal.talk
    with locked(portal, "restore", heads=True) as (site, repository):
        parts = list(only or wanted(site, portal.options))
        ahead = _after_source(portal, parts, "database" in parts, not no_backup)
        talk.course.plan(["verify", *ahead])
        source = open_source(
            site, repository, confirmed.reference if confirmed else name,
            parts=only, trust=trust, progress=talk.progress, called=called,
        )  # fmt: skip
        if confirmed:
            confirmed.refuse_other(_look_at(site, repository, source, name))
        else:
            for sentence in warnings_of(site, repository, source, attended):
                talk.warn(sentence)
        let_go()
        index = "database" in source.archives
        talk.standing.owed[:] = [
            *([OWES_INDEX] * index),
            *([_OWES_BACKUP] * (not no_backup)),
        ]
        ahead = _after_source(portal, source.parts, index, not no_backup)
        with staged(portal, repository, "restore", ahead):
            with owing_an_index(site, repository, index):
                restored = restore_backup(
                    Operation(site, repository, talk), source,
                    migrate.prepare(portal.options, talk.warn),
                )  # fmt: skip
            after_switch(portal, repository, restored)
            if restored.replaced.parts and not no_backup:
                _back_up_replaced(site, repository, restored, talk, source.name)
    _send_restored(restored)
    return restored


def _send_restored(done: Restored) -> None:
    sender = done.source.removeprefix("backup ")
    what = done.what or "restore"
    signals.send(signals.RESTORED, sender, what=what, parts=done.parts)


def _after_source(
    portal: Portal, parts: list[str], index: bool, backup: bool
) -> list[str]:
    """The stages of a restore, once its source was read."""
    return [
        *stages_of(parts),
        *(["uploads"] if "files" in parts else []),
        "switch",
        *(["index"] if index else []),
        *(of_backup(parts) if backup else []),
    ]


def last_to_undo(portal: Portal) -> tuple[dict[str, str], int | None]:
    """The switch that an undo would take back, as `last_switch` tells.

    With it how many datasets changed since, None where nobody knows. The repository is
    free again when this returns. Raises Refused.
    """
    # what is half-way may be turned back: only then is it known which is the last
    with locked(portal, "undo") as (site, repository):
        pairs, _ = undoable(site, repository)
        preflight.may_switch(site, [pair.part for pair in pairs])
        last = last_switch(site, repository)
    if last is None:
        raise Refused(
            "there is nothing to undo: what was replaced is not kept any more"
        )
    if last["things"]:
        return last, None
    return last, changed.datasets(site, parse_stamp(last["time"]))


@signals.failures("undo")
def run_undo(portal: Portal, operation: str = "") -> Restored | Brought:
    """Switches back what the last restore replaced, or takes back single things.

    Of an `operation`, which was confirmed: raises Refused when it is not the last any
    more.
    """
    talk = portal.talk
    with locked(portal, "undo") as (site, repository):
        undoable(site, repository)
        last = last_switch(site, repository) or {}
        if operation and last.get("operation") != operation:
            raise Refused(
                "another switch was made since this was confirmed; nothing was "
                "touched: look at what an undo would take back now, and confirm that"
            )
        if last.get("things"):
            of = last["operation"]
            with staged(portal, repository, "undo", ["write", "switch"]):
                return undo_thing(portal, site, repository, of)
        let_go()
        talk.standing.owed[:] = [OWES_INDEX]
        ahead = ["switch", "index"]
        with staged(portal, repository, "undo", ahead):
            with owing_an_index(site, repository, True):
                undone = undo_switch(Operation(site, repository, talk))
            after_switch(portal, repository, undone)
    _send_restored(undone)
    return undone


def after_switch(portal: Portal, repository: Repository, restored: Restored) -> None:
    """Tells what was written meanwhile, and brings the index up to date."""
    let_go()
    for table, rows in sorted(restored.written.items()):
        portal.talk.warn(
            f"{rows} rows of {table} were written while the switch was prepared: they "
            "are in what was replaced, not in what is live"
        )
    catch_up(portal, repository)
    with suppress(ValueError):
        portal.talk.standing.owed.remove(OWES_INDEX)


def _look_at(
    site: Site,
    repository: Repository,
    source: Source,
    name: str,
    warn: Warn = lambda _: None,
) -> Look:
    warnings = []
    for sentence in warnings_of(site, repository, source):
        warn(sentence)
        warnings.append(sentence)
    contents = {part: source.sha256(part) for part in source.archives}
    try:
        rows = preview(site, repository, source, KINDS)
    except DatabaseError as error:  # half of a database is no reason not to restore
        rows = []
        warn(f"what would change cannot be counted: {message_of(error)}")
    backup = source.backup
    if backup and source.uploads:
        contents["files"] = backup.manifest["contents"][layout.LIST]["sha256"]
    return Look(
        name=source.name,
        parts=source.parts,
        # `latest` may be another one a moment later
        reference=backup.id if backup and "/" not in name else name,
        contents=contents,
        warnings=warnings,
        rows=rows,
        moment=backup and backup.moment,
        whole={*site.databases, *(["files"] if site.uploads else [])}
        == {*source.parts},
    )


def warnings_of(
    site: Site,
    repository: Repository,
    source: Source,
    attended: bool = True,
    check: Check = preflight.preflight,
) -> Iterator[str]:
    """What will be another than now besides the data, a sentence each.

    Makes the `check` on the way, by default every one that needs no copy. Raises
    Refused.
    """
    yield from preflight.differences(site, source)
    check(site, repository, source)
    changed = list(preflight.changed_owners(site, source))
    if changed and not attended:
        raise Refused(
            f"{'; '.join(changed)}. Nobody can be asked here: restore it on the "
            "command line"
        )
    yield from changed
    yield from preflight.links_lost(site, repository, source)


def _back_up_replaced(
    site: Site, repository: Repository, restored: Restored, talk: Listener, name: str
) -> None:
    try:
        op = Operation(site, repository, talk)
        reason = f"before restore of {name}"
        taken = take_replaced(op, restored.replaced, reason)
        talk.standing.owed.clear()
        talk.say(f"the replaced state is backup {taken.id}")
        if why := why_incomplete(taken):
            talk.warn(why)
    except DbmanageError as error:
        talk.warn(
            f"the replaced state is kept for undo, but was not backed up: {error}"
        )
