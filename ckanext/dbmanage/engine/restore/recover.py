"""What is half-way is finished or turned back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..postgres.database import closing
from ..report import Warn
from ..repository.repository import Repository
from ..site import Site
from ..uploads import moves
from .history import Foreign, folded, is_half_way, operations_of, parts_of, switched
from .scratch import discard_moves, drop_ours
from .switch import rename


def recover(site: Site, repository: Repository, warn: Warn) -> None:
    """Finishes or turns back what a killed command left half-way, and says so.

    The caller holds the repository's lock and the live database's.
    """
    _tell_of_others(site, repository, warn)
    for operation, facts in operations_of(site, repository).items():
        if is_half_way(facts):
            try:
                _settle(site, repository, operation, facts, warn)
            except Foreign as error:
                warn(f"the switch of operation {operation} stays half-way: {error}")
                continue
        for pair in facts["created"]:
            if pair.scratch in facts["dropped"] or pair.part not in site.databases:
                continue
            with closing(site.databases[pair.part].maintenance()) as connection:
                if drop_ours(site, connection, pair, "scratch"):
                    repository.record(operation, "drop", database=pair.scratch)
        for move in facts["staged"]:
            if str(Path(move.path) / move.scratch) not in facts["dropped"]:
                discard_moves(repository, operation, [move])


def _settle(
    site: Site, repository: Repository, operation: str, facts: Any, warn: Warn
) -> None:
    new, old = [], []
    for pair in facts["switch"]:
        with closing(site.databases[pair.part].maintenance()) as connection:
            (new if switched(connection, pair) else old).append(pair)
    # uploads alone: they had passed their checks; else the databases decide
    alone = not facts["switch"] and any(map(moves.began, facts["moves"]))
    on = bool(new) or alone
    # half of a switch over two servers: both copies had passed their checks
    for pair in old if on else ():
        rename(site, site.databases[pair.part], [pair])
    for move in facts["moves"]:
        if on:
            moves.forward(move)
        elif moves.began(move):
            moves.back(move)
            warn(f"the uploads in {move.path} are as before the restore that was ended")
    if on and (old or facts["moves"]):
        what = [repr(pair.live) for pair in old] + [m.path for m in facts["moves"]]
        warn(f"the switch of {', '.join(what)} that was half-way has been completed")
        new += old
    parts = parts_of(new, facts["moves"]) if on else []
    repository.record(operation, "switched", parts=parts)


def _tell_of_others(site: Site, repository: Repository, warn: Warn) -> None:
    """Tells of what would be finished or dropped if its lines were believed."""
    others = repository.others_deeds()
    left = []
    for operation, facts in folded(site, repository, [e for _, e in others]).items():
        made = {pair.scratch for pair in facts["created"]}
        made |= {str(Path(move.path) / move.scratch) for move in facts["staged"]}
        if facts["switched"]:
            made = {pair.undo for pair in facts["switch"]}
            made |= {str(Path(move.path) / move.undo) for move in facts["moves"]}
        if is_half_way(facts) or made - facts["dropped"]:
            left += [n for n, line in others if line.operation == operation][:1]
    if left:
        warn(
            f"{repository.path / 'journal.jsonl'} tells of {len(left)} operations that "
            "are not signed with this site's secret, and nothing of them is believed "
            f"or touched (the last begins in line {left[-1]}): forged, or moved from "
            "another place, or SECRET_KEY was changed (then add the old one to "
            "SECRET_KEY_FALLBACKS). Remove the lines if they are none of yours"
        )
