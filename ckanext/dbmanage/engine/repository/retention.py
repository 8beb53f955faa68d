"""Retention: which backups are kept, and why."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from .. import words
from ..clock import has_come, id_stamp, now, parse_id
from ..layout import FORMAT, MANIFEST
from ..signature import read_json
from .backup import Backup, why_partial
from .rules import ruled

_GOOD = ("verified", "proven")


@dataclass(frozen=True)
class Decision:
    """What becomes of a backup, and why."""

    backup: Backup
    forget: bool
    reason: str


@dataclass(frozen=True)
class _Standing:
    """What a backup is to the rules: `fixed` and `idle` say why, when they hold.

    `good` ones are verified; `fixed` ones stay whatever the rules say and use none
    up; `idle` ones count for nothing.
    """

    backup: Backup
    good: bool = False
    fixed: str = ""
    idle: str = ""
    proven: frozenset[str] = frozenset()  # its parts, when it is


def decide(
    backups: list[Backup], policy: Mapping[str, int], undo_days: int = 0
) -> list[Decision]:
    """What becomes of each backup, in the order of `Repository.names`.

    `policy` says how many, as `ruled`, and `min` verified ones that stay in any case.
    So do the newest one, the newest proven ones, and for `undo_days` what was backed
    up because something was to replace it.
    """
    newest_first = sorted(
        backups, key=lambda each: (has_come(each.id), each.id), reverse=True
    )
    limit = id_stamp(now() - timedelta(days=undo_days))
    aside = f"what was replaced, for {undo_days} days"
    found = [_standing(backup, limit, aside) for backup in newest_first]
    good = [each.backup.id for each in found if each.good]
    reasons = {each.backup.id: [each.fixed] for each in found if each.fixed}
    for name, reason in ruled([n for n in good if n not in reasons], policy):
        reasons.setdefault(name, []).append(reason)
    for name, reason in _newest_proven(found):
        reasons.setdefault(name, []).append(reason)
    missing = policy["min"] - sum(name in reasons for name in good)
    for name in [n for n in good if n not in reasons][: max(missing, 0)]:
        reasons[name] = [f"at least {policy['min']} verified"]
    for name in good[:1]:  # older ones that are held may be as many as `min`
        reasons.setdefault(name, ["the newest verified"])

    decisions, newer = [], 0
    for each in found:
        kept = reasons.get(each.backup.id)
        if each.idle and not kept:
            forget, then = _replaced(newer, max(1, policy["last"]))
            decisions.append(Decision(each.backup, forget, f"{each.idle}; {then}"))
            continue
        newer += each.good and bool(kept)
        reason = ", ".join(kept or ["no rule keeps it"])
        decisions.append(Decision(each.backup, not kept, reason))
    return decisions


def spared(decisions: list[Decision], why: str) -> list[Decision]:
    """The same decisions, but no verified backup goes, and `why`."""
    return [
        replace(each, forget=False, reason=why)
        if each.forget and each.backup.describe()["state"] in _GOOD
        else each
        for each in decisions
    ]


def _newest_proven(found: list[_Standing]) -> Iterator[tuple[str, str]]:
    """The proven backups of which no newer proven one holds the same parts or more.

    The newest of all parts is among them, whatever was proven of one part since.
    """
    newer: list[frozenset[str]] = []
    for each in found:
        if each.proven and not any(each.proven <= parts for parts in newer):
            newer.append(each.proven)
            yield (
                each.backup.id,
                f"the newest proven of {words.parts(each.backup.parts)}",
            )


def _replaced(newer: int, wanted: int) -> tuple[bool, str]:
    if newer < wanted:
        ones = "one is" if wanted == 1 else "ones are"
        return False, f"stays until {wanted} newer verified {ones} there"
    ones = "one is" if newer == 1 else "ones are"
    return True, f"{newer} newer verified {ones} there"


def _standing(backup: Backup, limit: str, aside: str) -> _Standing:
    document = None
    if closed := backup.closed:
        return _Standing(backup, fixed=f"{closed}; never touched")
    if backup.future:
        return _Standing(backup, fixed="its date is in the future: never touched")
    try:
        about = backup.describe()
        if not backup.readable:
            with suppress(FileNotFoundError):
                document = read_json(backup.path / MANIFEST)
        parse_id(backup.id)
    except OSError as error:
        return _Standing(
            backup, fixed=f"cannot be read ({error.strerror}): never touched"
        )
    except ValueError:
        return _Standing(backup, fixed="its name is not a time: never touched")
    if about["state"] == "foreign":
        return _Standing(backup, fixed="another site's: never touched")
    if backup.readable and not backup.signed:
        return _Standing(backup, fixed="damaged and not signed by us: never touched")
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        return _Standing(backup, fixed="of another version's format: never touched")
    partly = bool(why_partial(backup.files))
    good = about["state"] in _GOOD and not partly
    fixed = "held" if about["keep"] else ""
    if not fixed and str(about["reason"]).startswith("before ") and backup.id > limit:
        fixed = aside
    if about["state"] == "damaged":
        what = about["problems"] or [f"{MANIFEST} cannot be read"]
        return _Standing(backup, fixed=fixed, idle=f"damaged: {what[0]}")
    what = "folders of uploads were left out" if partly else "not verified"
    idle = "" if good else f"{what}: counts for no rule"
    whole = about["state"] == "proven" and not partly
    proven = frozenset(backup.parts if whole else ())
    return _Standing(backup, good, fixed, idle, proven)
