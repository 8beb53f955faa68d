"""In which backups a record stands, as what, and whether it is there now."""

from contextlib import suppress
from typing import Any

import psycopg2
from psycopg2 import sql

from ..engine.backup import records
from ..engine.backup.history import MOST, Thing, history
from ..engine.backup.indexing import is_there, lines_of
from ..engine.backup.records import Line
from ..engine.clock import is_stamp
from ..engine.errors import ConnectionFailed, DbmanageError, Refused
from ..engine.postgres.database import closing, query
from ..engine.repository.repository import Repository
from ..engine.site import Indexed, Site
from ..engine.words import alike
from ..portal.indexed import KINDS

Told = dict[str, Any]
#: lines by id; None where the live database does not answer
_Live = dict[str, Line] | None
_FACTS = ("name", "title", "state", "owner", "modified", "hash")
#: what a session of a page waits for a live table, in milliseconds
_PATIENCE = 5000


def find_history(site: Site, repository: Repository, kind: str, asked: str) -> Told:
    """What all backups tell of the records of a kind that are, or were, called so.

    `{kind, asked, backups, things: [{id, name, now, runs: [{from, to, backups, there,
    name, title, state, owner, modified, hash}]}], unknown: [{backup, why}], unsigned,
    damaged, ignored}`: a run are backups one after the other in which it is the same,
    the oldest first; `now` is as a run without its backups, None where nobody knows.
    Raises Refused.
    """
    if kind not in KINDS:
        raise Refused(f"there is no kind {kind!r}: choose from {', '.join(KINDS)}")
    called = _live(site, kind, "name", [asked]) or {}
    backups = sorted(repository.backups(), key=lambda each: (each.future, each.id))
    past = history(backups, kind, asked, called, KINDS, _about(site, kind)[0])
    live = _live(site, kind, "id", [each.id for each in past.things])
    return {
        "kind": kind,
        "asked": asked,
        "backups": past.count,
        "things": [_thing(each, live) for each in past.things],
        "unknown": [{"backup": id, "why": why} for id, why in past.unknown.items()],
        "unsigned": past.unsigned,
        "damaged": past.damaged,
        "ignored": past.ignored,
    }


def called_alike(repository: Repository, kind: str, name: str) -> str:
    """Those of the newest backup with an index that are called most like this, as the
    end of a sentence; else empty."""
    for backup in repository.backups():
        with suppress(DbmanageError, OSError, KeyError):
            if index := records.of(backup):
                lines = map(records.parse_line, index.lines(index.table()[kind].blocks))
                return alike(name, (str(line["name"]) for line in lines if line))
    return ""


def _thing(thing: Thing, live: _Live) -> Told:
    runs = [
        {"from": run.first, "to": run.last, "backups": run.count} | _facts(run.line)
        for run in thing.runs
    ]
    now = None if live is None else _facts(live.get(thing.id))
    names = [each["name"] for each in (*runs, now or {}) if each and each["name"]]
    return {
        "id": thing.id,
        "name": names[-1] if names else None,
        "now": now,
        "runs": runs,
    }


def _facts(line: Line | None) -> Told:
    if line is None:
        return {"there": False} | dict.fromkeys(_FACTS)
    found = {"there": True} | {name: line[name] for name in _FACTS}
    moment = f"{line['modified']}Z"  # CKAN notes them in UTC, and says no zone
    return found | {"modified": moment if is_stamp(moment) else None}


def _about(site: Site, kind: str) -> tuple[str, Indexed]:
    """The part that holds a kind, and what an index has of it."""
    return next(
        (part, each)
        for part, kinds in site.indexed.items()
        for each in kinds
        if each.kind == kind
    )


def _live(site: Site, kind: str, key: str, values: list[str]) -> _Live:
    """The live records whose name or id is one of these, by their ids."""
    part, about = _about(site, kind)
    if part not in site.databases:
        return None
    statement = sql.SQL("SELECT line FROM ({}) l WHERE {} = ANY(%s) LIMIT {}")
    limit = sql.Literal(MOST + 1)
    statement = statement.format(lines_of(about), sql.Identifier(key), limit)
    try:
        with closing(site.databases[part].connect()) as connection:
            if about.table and not is_there(connection, about):
                return {}
            query(
                connection,
                "SELECT set_config('statement_timeout', %s, false)",
                str(_PATIENCE),
            )
            found = [line for (line,) in query(connection, statement, values)]
    except (
        ConnectionFailed,
        psycopg2.Error,
        ValueError,
    ):  # of a NUL, which no name has
        return None  # what backups know is told all the same
    return {line["id"]: line for line in found}
