"""What is known of a site without asking its databases, Redis or any network.

Of this the metrics are made, and who is told is told by it: it takes milliseconds, and
works while CKAN does not. Nothing that lies in a repository ends it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..engine.clock import is_future, is_stamp, parse_stamp
from ..engine.disk import regular_files
from ..engine.errors import DbmanageError
from ..engine.printable import one_line
from ..engine.repository.journal import Entry
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..portal.config import Options
from .ages import of_copy, of_dumps
from .allowed import disk_of, having, wanted
from .in_use import why_empty
from .nights import STEPS, Night, Step, killed, nights
from .safety import Known, first_of
from .there import remembered

#: what the journal calls the steps of a night that commands take by hand
_STEP_OF = {"proof": "prove"} | {step: step for step in STEPS}
_NIGHTLY = "nightly"
#: what the journal calls the end of one that did not fail
_MADE = ("done", "not proven", "found damage")


@dataclass(frozen=True)
class Watched:
    """What is known: `known` of the data's safety, `failed` of the last backup.

    `away` says why the repository cannot be read, else it is empty; `night` is the last
    that came to its end. `unnoted` are failures that the journal does not know of.
    """

    known: Known
    failed: dict[str, str] | None
    away: str = ""
    disk: dict[str, int] | None = None
    copies: int = 0
    night: Night | None = None
    unnoted: Mapping[str, Sequence[str]] = field(default_factory=dict)


def look(
    options: Options,
    site: Site,
    repository: Repository,
    also: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Watched:
    """What is known of a site now. Raises Refused for an option that is none.

    `also` are steps that have failed, each with when and why, should the journal not
    know of it: nobody may have been able to write there. They count until it knows.
    """
    away, backups, journal = "", list[dict[str, Any]](), list[Entry]()
    try:
        backups = [described(repository, name) for name in repository.names()]
        journal = repository.journal()
        away = why_empty(options, site, repository)
    except (DbmanageError, OSError) as error:
        away = str(error)
    parts = wanted(site, options)
    whole, seen = having(backups, parts), remembered(repository)
    disk, failed = disk_of(repository.path), failed_backup(journal, parts)[0]
    steps, made = failed_steps(journal), _made(journal)
    also = {
        step: of
        for step, of in also.items()
        if is_past(of[0]) and of[0] >= made.get(step, "")
    }
    if "backup" in also and not failed:
        time, error = also["backup"]
        failed = {"time": time, "error": error}
    every = nights(repository)
    known = Known(
        backups,
        whole,
        failed=bool(failed),
        unended=killed(repository, every) is not None,
        free=disk["free"] if disk else None,
        copied=of_copy(options, seen, first_of(whole)),
        published=of_dumps(options, site.public_dir),
        steps={**steps, **{step: why for step, (_, why) in also.items()}},
        away=bool(away),
        limits=options.limits,
    )
    last = next((each for each in every if each.ended), None)
    unnoted = {step: list(of) for step, of in also.items() if step not in steps}
    return Watched(known, failed, away, disk, len(seen.there), last, unnoted)


# ------------------------------------------------------------------- the journal


def failed_backup(
    journal: list[Entry], parts: Collection[str]
) -> tuple[dict[str, str] | None, str]:
    """The last backup that failed since a whole one was taken, `{time, error}`.

    And when the last whole one was taken, empty when the journal knows of none. It may
    have been deleted since: the journal has it still, in its own order, whatever the
    clock said.
    """
    failed, done = None, ""
    for entry in journal:
        if entry.text("what") != "backup":
            continue
        if entry.event == "failed":
            failed = {"time": entry.moment, "error": entry.text("error")}
        named = entry.fields.get("parts") or parts
        # a list, if nobody forged it, of texts
        whole = isinstance(named, Collection) and all(part in named for part in parts)
        if entry.event == "done" and whole:
            failed = None
            done = entry.moment if is_past(entry.moment) else done
    return failed, done


def failed_steps(journal: list[Entry]) -> dict[str, str]:
    """The steps that failed the last time, at night or by hand; each with why."""
    failed: dict[str, str] = {}
    for _, step in _ended(journal):
        if step.result == "failed":
            failed[step.name] = one_line(step.message)
        elif step.result in _MADE:
            failed.pop(step.name, None)
    return failed


def _made(journal: list[Entry]) -> dict[str, str]:
    """When each step did not fail last, a stamp."""
    done = ((e, step) for e, step in _ended(journal) if step.result in _MADE)
    return {step.name: e.moment for e, step in done if is_past(e.moment)}


def _ended(journal: list[Entry]) -> Iterator[tuple[Entry, Step]]:
    for entry in journal:
        steps = _steps(entry)
        if (name := _STEP_OF.get(entry.text("what"))) and not steps:
            steps = [Step(name, entry.event, message=entry.text("error"))]
        for step in steps:
            yield entry, step


def _steps(entry: Entry) -> list[Step]:
    """The steps of a night's entry, as anybody may have written it; else none."""
    steps = entry.fields.get("steps")
    if _NIGHTLY not in (entry.event, entry.text("what")) or not isinstance(steps, list):
        return []
    return [
        Step(
            each["name"],
            one_line(each.get("result")),
            _seconds(each.get("seconds")),
            one_line(each.get("message"))[:500],
        )
        for each in steps[: 4 * len(STEPS)]
        if isinstance(each, dict) and each.get("name") in STEPS
    ]


def _seconds(value: object) -> float:
    known = isinstance(value, (int, float)) and 0 <= value < 1e9
    return float(value) if known else 0.0  # type: ignore[arg-type]


def is_past(moment: str) -> bool:
    """Whether this is a stamp of a moment that has come."""
    return is_stamp(moment) and not is_future(parse_stamp(moment))


# ------------------------------------------------------------------- the backups


_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("created", "seconds", "versions")),
    "parts": [],
    "sizes": {},
    "added": {},
    "files": {},
    "problems": [],
    "reason": "",
    "note": "",
}


def described(repository: Repository, name: str) -> dict[str, Any]:
    """A backup as `Backup.describe` tells, whatever lies there."""
    backup = repository.backup(name)
    try:
        described = backup.describe()
    except (OSError, ValueError, OverflowError) as error:
        told = getattr(error, "strerror", None) or type(error).__name__
        described = {"id": name, "path": str(backup.path), "state": "damaged"}
        described |= {"bytes": 0, "verified": None, "proved": None, "keep": False}
        described |= {"future": backup.future}
        return described | _NOTHING | {"problems": [f"it cannot be read: {told}"]}
    if described["state"] == "unreadable":
        return described | _NOTHING | {"problems": described["problems"]}
    if not backup.signed:  # nobody knows what its fields hold
        words = {key: one_line(described[key] or "") for key in ("reason", "note")}
        own = regular_files(backup.path).values()
        size = sum(e.stat(follow_symlinks=False).st_size for e in own)
        described |= _NOTHING | words | {"bytes": size}
    return described
