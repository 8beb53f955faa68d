"""What is half-way is finished or turned back."""

from pathlib import Path
from typing import Any

from ..operation import Operation
from ..uploads import moves
from . import exchange
from .history import Foreign, folded, is_half_way, operations_of, parts_of
from .scratch import discard_moves, drop_ours
from .switch import is_switched, rename


def recover(op: Operation) -> None:
    """Finishes or turns back what a killed command left half-way, and says so.

    The caller holds the live database's lock too.
    """
    site = op.site
    _tell_of_others(op)
    for name, facts in operations_of(site, op.repository).items():
        left = op.called(name)
        if facts["exchange"]:
            if facts["exchanged"] is None:
                try:
                    exchange.settle(left, facts["exchange"])
                except Foreign as error:
                    op.warn(f"the return of operation {name} stays half-way: {error}")
            continue
        if is_half_way(facts):
            try:
                _settle(left, facts)
            except Foreign as error:
                op.warn(f"the switch of operation {name} stays half-way: {error}")
                continue
        for pair in facts["created"]:
            if pair.scratch in facts["dropped"] or pair.part not in site.databases:
                continue
            drop_ours(left, pair, pair.scratch)
        for move in facts["staged"]:
            if str(Path(move.path) / move.scratch) not in facts["dropped"]:
                discard_moves(left, [move])


def _settle(op: Operation, facts: Any) -> None:
    new, old = [], []
    for pair in facts["switch"]:
        (new if is_switched(op.site, pair) else old).append(pair)
    # uploads alone: they had passed their checks; else the databases decide
    alone = not facts["switch"] and any(map(moves.began, facts["moves"]))
    on = bool(new) or alone
    # half of a switch over two servers: both copies had passed their checks
    for pair in old if on else ():
        rename(op.site, [pair])
    for move in facts["moves"]:
        if on:
            moves.forward(move)
        elif moves.began(move):
            moves.back(move)
            op.warn(
                f"the uploads in {move.path} are as they were before the restore that "
                "was stopped"
            )
    if on and (old or facts["moves"]):
        what = [repr(pair.live) for pair in old] + [m.path for m in facts["moves"]]
        op.warn(f"the switch of {', '.join(what)} that was half-way has been completed")
        new += old
    op.record("switched", parts=parts_of(new, facts["moves"]) if on else [])


def _tell_of_others(op: Operation) -> None:
    """Tells of what would be finished or dropped if its lines were believed."""
    site, repository = op.site, op.repository
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
        op.warn(
            f"{repository.path / 'journal.jsonl'} tells of {len(left)} operations that "
            "are not signed with this site's secret, and nothing of them is believed "
            f"or touched (the last begins in line {left[-1]}): forged, or moved from "
            f"another place{site.advise('other secret', ', or ')}. Remove the lines if "
            "they are none of yours"
        )
