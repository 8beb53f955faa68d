"""The journal's switches: what is half-way, and what undo takes back."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..clock import is_future, is_stamp, now, parse_stamp, stamp
from ..errors import Refused
from ..postgres import beside
from ..postgres.database import Connection, closing, query
from ..report import name_of
from ..repository.journal import Entry
from ..repository.repository import Repository
from ..site import Site
from ..uploads import exchanged
from ..uploads.folders import Folder, folders_of
from ..uploads.moves import Move, is_ours, planned_move, sound

#: what a switch back is called in the journal: of a restore, and of such an undo
UNDO, REDO = "undo", "redo"


class Foreign(Refused):
    """A database to be renamed is not the one that was noted, or not ours."""


@dataclass(frozen=True)
class Exchange:
    """What comes and goes with a transaction of the main database, whose fate decides.

    `xid` is that transaction's number in the database `live_oid`, empty as long as it
    is not known what comes. `tables` are names in the DataStore (`store_oid`, 0 without
    any): what comes stands in the schema `scratch` before, what goes in `undo` after
    it. `moves` are the same of uploads, in folders of these names. `of` is the
    operation whose undo the scratch is; it stays when this one is turned back. `things`
    are kind, id and name of what comes.
    """

    site: str
    token: str
    scratch: str
    undo: str
    live_oid: int
    xid: str = ""
    store_oid: int = 0
    tables: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()
    of: str = ""
    things: tuple[tuple[str, str, str], ...] = ()

    @property
    def comment(self) -> str:
        """The comment that makes its schemas provably ours."""
        return f"ckanext-dbmanage, site {self.site!r}, token {self.token}"


def exchange_of(
    line: dict[str, Any], site: Site, among: Mapping[str, Folder]
) -> Exchange | None:
    """An exchange of the journal; None where it is none of this site's.

    Raises KeyError, TypeError.
    """
    moves = tuple(Move(**move) for move in line["moves"])
    things = tuple((str(a), str(b), str(c)) for a, b, c in line["things"])
    tables = tuple(map(str, line["tables"]))
    found = Exchange(**line | {"moves": moves, "things": things, "tables": tables})
    texts = (found.site, found.token, found.scratch, found.undo, found.xid, found.of)
    numbers = (found.live_oid, found.store_oid)
    sound = (
        found.site == site.id
        and all(isinstance(each, str) for each in texts)
        and all(type(each) is int for each in numbers)
        and all(re.fullmatch(beside.OURS, n) for n in (found.scratch, found.undo))
        and (not found.xid or found.xid.isdecimal())
        and all(exchanged.sound(move, among) for move in moves)
    )
    return found if sound else None


@dataclass(frozen=True)
class Pair:
    """One part's three names: the live database, the copy, what the old one becomes.

    `live_oid` is 0 when there is no live database. `site` and `token` are what the
    comment of a database of ours carries.
    """

    part: str
    live: str
    scratch: str
    undo: str
    token: str
    site: str
    live_oid: int = 0
    scratch_oid: int = 0

    @property
    def comment(self) -> str:
        """The comment that makes the scratch or the undo database provably ours."""
        return f"ckanext-dbmanage, site {self.site!r}, token {self.token}"

    def turned(self) -> Pair:
        """The pair whose switch turns this one's back."""
        return replace(
            self,
            scratch=self.undo,
            undo=self.scratch,
            live_oid=self.scratch_oid,
            scratch_oid=self.live_oid,
        )


def oid_of(connection: Connection, name: str) -> int:
    rows = query(
        connection, "SELECT oid::bigint FROM pg_database WHERE datname = %s", name
    )
    return rows[0][0] if rows else 0


def parts_of(pairs: list[Pair], moves: list[Move]) -> list[str]:
    return sorted({*(pair.part for pair in pairs), *(["files"] if moves else [])})


def undoable(site: Site, repository: Repository) -> tuple[list[Pair], list[Move]]:
    """What takes the last switch back: databases, uploads. Raises Refused."""
    done = _done(site, repository)
    if not done:
        raise Refused(
            f"there is nothing to undo: the journal in {repository.path} knows of no "
            "restore"
        )
    _, last = done[-1]
    if last["exchange"]:  # of which nothing is switched
        return [], []
    if last["foreign"]:
        raise Refused(
            "the last restore replaced databases or folders that no longer belong to "
            "this site, so it cannot be undone as a whole; the backup that the restore "
            "took afterwards holds what was replaced"
        )
    pairs = []
    for pair in last["switch"]:
        if pair.part not in last["switched"]:
            continue
        if pair.part not in site.databases or not pair.live_oid:
            raise Refused(
                f"the last restore cannot be undone: before it the site had no "
                f"{name_of(pair.part)}, or has none now"
            )
        with closing(site.databases[pair.part].maintenance()) as connection:
            found = query(
                connection,
                "SELECT oid::bigint, shobj_description(oid, 'pg_database')"
                " FROM pg_database WHERE datname = %s",
                pair.undo,
            )
        if found != [(pair.live_oid, pair.comment)]:
            raise Refused(
                f"the database {pair.undo!r} with the state before the last restore is "
                "gone: it was dropped, or renamed by hand; the backup that the restore "
                "took afterwards holds the same"
            )
        name = f"dbm_{secrets.token_hex(4)}_undo"
        pairs.append(replace(pair.turned(), undo=name))
    name = secrets.token_hex(4)
    moves = []
    for move in last["moves"] if "files" in last["switched"] else ():
        if not is_ours(Path(move.path) / move.undo, move.token):
            raise Refused(
                f"the uploads before the last restore are gone from {move.path}/"
                f"{move.undo}; the backup that the restore took afterwards holds them"
            )
        moves.append(replace(move, scratch=move.undo, undo=f".dbm_{name}_undo"))
    return pairs, moves


def planned_moves(site: Site, repository: Repository, moves: list[Move]) -> list[Move]:
    """The moves with the names that are there now."""
    folders = {str(f.path): f for f in folders_of(site.uploads, repository.path)}
    return [planned_move(move, folders[move.path]) for move in moves]


def outlived(site: Site, repository: Repository, days: int) -> dict[str, list[str]]:
    """The parts by operation whose way back is `days` old; of 0 days each is."""
    limit = stamp(now() - timedelta(days=days))
    return {
        name: facts["switched"]
        for name, facts in operations_of(site, repository).items()
        if facts["switched"] and facts["time"] <= limit
    }


def half_way(site: Site, repository: Repository) -> list[str]:
    """The operations whose switch was begun and neither finished nor turned back."""
    return [
        name
        for name, facts in operations_of(site, repository).items()
        if is_half_way(facts)
    ]


def is_half_way(facts: dict[str, Any]) -> bool:
    if facts["exchange"] is not None:
        return bool(facts["exchange"].xid) and facts["exchanged"] is None
    return bool(facts["switch"] or facts["moves"]) and facts["switched"] is None


def switches(site: Site, repository: Repository) -> list[str]:
    """The operations whose switch was made."""
    return [k for k, v in operations_of(site, repository).items() if v["switched"]]


def last_switch(site: Site, repository: Repository) -> dict[str, Any] | None:
    """The switch that `undo` takes back.

    `{operation, what, user, time, way, of, source, things, kinds}`. After an undo the
    `way` is `redo`: it brings back what was restored. `of` is what was done first, and
    `source` what that brought; `things` says which, empty where it was not single ones,
    `kinds` what kinds they are. None when there is none, or when what it replaced was
    dropped.
    """
    done = _done(site, repository)
    if not done:
        return None
    name, facts = done[-1]
    undo = {*(pair.undo for pair in facts["switch"])}
    undo |= {str(Path(move.path) / move.undo) for move in facts["moves"]}
    exchange: Exchange | None = facts["exchange"]
    if facts["dropped"] & (undo | ({exchange.undo} if exchange else set())):
        return None
    begun: Entry = facts["begun"]
    whats = (facts["begun"].text("what") for _, facts in reversed(done))
    times = len(list(takewhile((UNDO, REDO).__contains__, whats)))
    first: Entry = done[-1 - times][1]["begun"] if times < len(done) else Entry()
    return {
        "operation": name,
        "what": begun.text("what") or "restore",
        "source": first.text("source"),
        "user": begun.actor.user or begun.actor.by,
        "time": str(facts["time"]),
        "way": REDO if times % 2 else UNDO,
        "of": first.text("what") or "restore",
        "things": first.text("things"),
        "kinds": sorted({kind for kind, *_ in exchange.things}) if exchange else [],
    }


def _done(site: Site, repository: Repository) -> list[tuple[str, dict[str, Any]]]:
    """The operations whose switch an undo could take back, the oldest first."""
    return [
        (name, facts)
        for name, facts in operations_of(site, repository).items()
        if facts["switched"]
        and (facts["switch"] or facts["moves"])
        or facts["exchanged"]
        and facts["exchange"]
    ]


def operations_of(site: Site, repository: Repository) -> dict[str, dict[str, Any]]:
    """The journal by operation; only lines that this site has signed are believed."""
    return folded(site, repository, repository.deeds())


def folded(
    site: Site, repository: Repository, entries: Iterable[Entry]
) -> dict[str, dict[str, Any]]:
    """Entries by operation: begun, created, staged, dropped, to switch, switched.

    Only of this site's own databases and folders: a repository may be shared, or a
    copy of another's. `foreign` says that something was left out. The `time` of a
    switch that a wrong clock put into the future is that of the next entry.
    """
    among = {str(f.path): f for f in folders_of(site.uploads, repository.path)}
    found, ahead = dict[str, dict[str, Any]](), list[dict[str, Any]]()
    for entry in entries:
        if not entry.operation:
            continue
        event, line = entry.event, entry.fields
        # of the future: a clock was wrong then, and what comes later tells since when
        if ahead and is_stamp(entry.moment) and not _is_ahead(entry.moment):
            for facts in ahead:
                facts["time"] = entry.moment
            ahead.clear()
        facts = found.setdefault(
            entry.operation,
            {"created": [], "staged": [], "dropped": set(), "switched": None}
            | {"foreign": False, "begun": Entry()}
            | {"switch": [], "moves": [], "time": ""}
            | {"exchange": None, "exchanged": None},
        )
        # a line that is none of ours, or of another version
        with suppress(KeyError, TypeError):
            if event == "begin":
                facts["begun"] = entry
            elif event == "create":
                facts["created"] += _own(site, _pairs([line["pair"]]))
            elif event == "stage":
                staged = [Move(**move) for move in line["moves"]]
                facts["staged"] = [m for m in staged if sound(m, among)]
            elif event == "drop":
                gone = map(entry.text, ("database", "folder", "exchange"))
                facts["dropped"].add(next(filter(None, gone), ""))
            elif event == "exchange":
                facts["exchange"] = exchange_of(line["exchange"], site, among)
            elif event == "exchanged":
                facts["exchanged"], facts["time"] = line["done"], entry.moment
            elif event == "switch":
                pairs = _pairs(line["pairs"])
                moves = [Move(**move) for move in line.get("moves", ())]
                facts["switch"] = _own(site, pairs)
                facts["moves"] = [m for m in moves if sound(m, among)]
                left = len(facts["switch"]) + len(facts["moves"])
                facts["foreign"] = left < len(pairs) + len(moves)
            else:
                facts["switched"], facts["time"] = line["parts"], entry.moment
                if _is_ahead(entry.moment):
                    ahead.append(facts)
    return found


def _is_ahead(time: str) -> bool:
    return is_stamp(time) and is_future(parse_stamp(time))


def _pairs(lines: Iterable[dict[str, Any]]) -> list[Pair]:
    pairs = [Pair(**line) for line in lines]
    for pair in pairs:
        names = (pair.part, pair.live, pair.scratch, pair.undo, pair.token, pair.site)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(pair.part)
    return pairs


def _own(site: Site, pairs: list[Pair]) -> list[Pair]:
    """The pairs that are of this site's databases."""
    names = {part: database.name for part, database in site.databases.items()}
    return [p for p in pairs if p.site == site.id and names.get(p.part) == p.live]
