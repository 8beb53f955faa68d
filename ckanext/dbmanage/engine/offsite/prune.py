"""The other place is thinned out, by rules of its own.

Whoever may add to it may have put snapshots of any date there. So those of the future,
and those that this site has neither compared nor signed, count for nothing and are not
touched; and what is here stays there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..clock import has_come
from ..repository.rules import ruled
from .restic import Kept, Restic
from .snapshots import Snapshot, grouped


@dataclass(frozen=True)
class Decision:
    """What becomes of a backup that is there, and why."""

    id: str
    forget: bool
    reason: str


def decide(
    there: list[Snapshot],
    here: set[str],
    policy: Mapping[str, int],
    vouched: set[str],
) -> list[Decision]:
    """What the rules say of each backup that is there, the newest first.

    `policy`: how many, as `ruled`; the newest always stays. `here` are the ids in the
    local repository, `vouched` those that this site has compared or signed: others may
    be anybody's, and push none of these out.
    """
    names = list(grouped(there))
    real = [name for name in names if has_come(name) and name in vouched]
    reasons: dict[str, list[str]] = {}
    for name, reason in ruled(real, {**policy, "last": max(policy["last"], 1)}):
        reasons.setdefault(name, []).append(reason)
    for name in names:
        if not has_come(name):
            reasons[name] = ["its date is in the future: never touched"]
        elif name not in vouched:
            reasons[name] = ["neither compared nor signed by this site: never touched"]
        elif name in here:
            reasons.setdefault(name, []).append("it is here too")
    return [
        Decision(name, name not in reasons, ", ".join(reasons.get(name, ["no rule"])))
        for name in names
    ]


def forget(restic: Restic, there: list[Snapshot], names: set[str]) -> bool:
    """Forgets backups there, and frees what only they held; False where none may go.

    Raises Refused, ToolFailed.
    """
    doomed = [each.name for each in there if each.id in names]
    try:
        for start in range(0, len(doomed), 500):
            restic.run("forget", *doomed[start : start + 500])
    except Kept:
        return False
    if doomed:
        restic.run("prune")
    return True
