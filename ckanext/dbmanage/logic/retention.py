"""Rules of retention looked at: what they would keep and forget, and what goes next."""

from collections.abc import Mapping
from typing import Any

from ..engine.offsite import prune
from ..engine.offsite.look import remembered
from ..engine.offsite.snapshots import Snapshot
from ..engine.repository.repository import Repository
from ..engine.repository.retention import decide
from ..portal.config import PREFIX, Options
from .known import reread, seen

#: the rules by the end of their options' names
RULES = ("last", "within", "hourly", "daily", "weekly", "monthly", "yearly", "min")

Decided = list[dict[str, Any]]


def preview(
    repository: Repository, options: Options, there: bool, given: Mapping[str, str]
) -> dict[str, Any]:
    """What `dbmanage_retention_show` tells. Raises Refused for a rule that is none."""
    prefix = PREFIX + ("remote." if there else "") + "keep_"
    names = RULES[:-1] if there else RULES
    wanted = {prefix + name: given[name] for name in names if name in given}
    other = Options({**options.settings, **wanted})
    decided = _decided(repository, other, there)
    by_now = _decided(repository, options, there) if wanted else decided
    changed = [
        name
        for name in names
        if _rules(other, there)[name] != _rules(options, there)[name]
    ]
    return {
        "there": there,
        "rules": {name: other.text(prefix + name) for name in names},
        "lines": [f"{prefix}{name} = {other.text(prefix + name)}" for name in changed],
        "backups": decided,
        "forgets": sum(each["forget"] for each in decided),
        "now": sum(each["forget"] for each in by_now),
    }


def thinned_next(repository: Repository, options: Options) -> list[dict[str, str]]:
    """The backups that `prune` would forget now, the oldest first: `{id, reason}`."""
    found = reread(
        (repository.path, "thinned"),
        (seen(repository), tuple(options.retention.items()), options.undo_days),
        lambda: _decided(repository, options, there=False),
    )
    gone = [{"id": e["id"], "reason": e["reason"]} for e in found if e["forget"]]
    return gone[::-1]


def _rules(options: Options, there: bool) -> dict[str, int]:
    """The rules of one side, by the end of their options' names."""
    known = options.remote_retention if there else options.retention
    return dict(zip(RULES, known.values(), strict=False))


def _decided(repository: Repository, options: Options, there: bool) -> Decided:
    if not there:
        found = decide(repository.backups(), options.retention, options.undo_days)
        return [
            {"id": e.backup.id, "forget": e.forget, "reason": e.reason} for e in found
        ]
    # as it was seen last: a page asks nobody there
    last = remembered(repository)
    snapshots = [Snapshot(id, last.whole.get(id, ""), "") for id in last.there]
    vouched = set(last.whole)
    here, policy = set(repository.names()), options.remote_retention
    decided = prune.decide(snapshots, here, policy, vouched)
    return [vars(each) for each in decided]
