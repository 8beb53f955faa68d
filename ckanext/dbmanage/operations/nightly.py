"""The whole night in one: backup, proof, copy elsewhere, retention, publication.

Each step runs though one before it failed, unless it needs that one; what a step says
is one line of the report.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from os.path import lexists

from ..engine.clock import ago, is_older, now, parse_stamp, stamp
from ..engine.errors import Busy, DbmanageError, explanation_of
from ..engine.printable import one_line
from ..engine.repository.repository import Repository
from ..engine.signals import Ended
from ..engine.site import Site
from ..engine.words import many, size
from ..portal.config import PREFIX
from ..portal.directories import public_dir
from ..portal.remote import is_set
from ..records.published import INDEX
from .allowed import disk_of, having, wanted
from .backup import take_backup, verify_backups, why_incomplete
from .context import Portal, find_site, refuse_root, started
from .in_use import refuse_empty
from .journal import reason
from .nights import (
    DONE,
    FAILED,
    NOTHING,
    SKIPPED,
    STEPS,
    Night,
    Step,
    at_work,
    nights,
    remember,
)
from .nights import told as as_told
from .notify import Telling
from .offsite import run_prune_remote, run_push
from .prune import run_prune
from .publish import run_publish
from .safety import FRESH

#: seconds that a step waits for somebody else who is at work, and between two looks
PATIENCE, _LOOK = 1800.0, 5.0
#: what a night may begin earlier than the one of which it is the Nth
_EARLY = timedelta(hours=12)

#: what a step came to, what it says, and the backup that it is about
Outcome = tuple[str, str, str]


class NotNow(DbmanageError):
    """No night was done, and that is right so; the message says why."""


def run_nightly(
    portal: Portal, catch_up: bool = False, by_itself: bool = False
) -> Night:
    """Does a night. What fails is in the report, and ends no other step.

    With `catch_up` only when the last night is missing or did not end; `by_itself` says
    that a timer has begun it. Raises NotNow, Refused.
    """
    site, repository = find_site(portal)
    refuse_root(site)
    try:
        refuse_empty(portal.options, site, repository)
        with repository.night():
            known = nights(repository)
            begun = now().replace(microsecond=0)
            before = known[0] if known else None
            if catch_up and before and before.ended and begun - before.begun < FRESH:
                raise NotNow(f"no night is missing: the last began {ago(before.begun)}")
            if before and before.ended is None:
                _note_killed(portal, repository, before)
            doing = _Doing(portal, site, repository, known, begun, by_itself)
            return doing.all(Telling(portal))
    except Busy as error:
        # a step that finds somebody at work waits, and fails: this is the night's own
        who = at_work(repository) or "it has only just begun"
        if another := _of_another(repository):
            shared = DbmanageError(
                f"a night is under way: {who}. It may be another site's, for so is "
                f"backup {another}, which is not signed by this one: give each site "
                f"a repository of its own, by {PREFIX}repository"
            )
            _tell_not_begun(portal, shared)
            raise shared from error
        raise NotNow(f"a night is under way: {who}; this one is skipped") from error
    except NotNow:
        raise
    except DbmanageError as error:
        _tell_not_begun(portal, error)
        raise


def _of_another(repository: Repository) -> str:
    """The newest backup that is not this site's, as its manifest tells; or empty."""
    others = (e.id for e in repository.backups() if e.readable and not e.signed)
    return next(others, "")


def _tell_not_begun(portal: Portal, error: DbmanageError) -> None:
    failed = Step(STEPS[0], FAILED, 0.0, one_line(error))
    Telling(portal).end(Night(now(), now(), (failed,)))


def _note_killed(portal: Portal, repository: Repository, night: Night) -> None:
    when = ago(night.begun)
    portal.talk.warn(f"the night that began {when} did not end, or noted no end of it")
    with suppress(OSError):
        repository.record(
            "nightly", "failed", what="nightly", error="the night did not end",
            begun=stamp(night.begun),
        )  # fmt: skip


class _Doing:
    """A night while it is done."""

    def __init__(
        self,
        portal: Portal,
        site: Site,
        repository: Repository,
        known: Sequence[Night],
        begun: datetime,
        by_itself: bool,
    ) -> None:
        self._portal, self._options = portal, portal.options
        self._site, self._repository, self._known = site, repository, known
        self._by_itself = by_itself
        before = known[0].begun if known else None
        self._night = Night(begun, before=before)

    def all(self, tell: Telling) -> Night:
        """All steps; the night as it was."""
        self._remember()
        tell.start()
        try:
            for name in STEPS:
                self._step(name, getattr(self, f"_{name}"))
        finally:
            disk = disk_of(self._repository.path)
            free = disk["free"] if disk else 0
            self._night = night = replace(self._night, ended=now(), free=free)
            self._remember()
            self._note()
            tell.end(night)
        return night

    def _step(self, name: str, work: Callable[[], Outcome]) -> None:
        talk, begun = self._portal.talk, time.monotonic()
        outcome: Outcome = FAILED, "it did not end", ""
        try:
            outcome = self._patiently(work)
        except Exception as error:
            outcome = FAILED, reason(error), ""
        except BaseException as error:
            by = error.name if isinstance(error, Ended) else "Ctrl-C"
            outcome = FAILED, f"ended by {by}", ""
            raise
        finally:
            # the next step has stages of its own, and leaves other things
            talk.end()
            talk.standing.made.clear()
            talk.standing.owed.clear()
            talk.standing.done = ""
            result, message, backup = outcome
            seconds = round(time.monotonic() - begun, 1)
            step = Step(name, result, seconds, one_line(message), backup)
            self._night = replace(self._night, steps=(*self._night.steps, step))
            self._remember()
        if result == FAILED:
            talk.warn(f"{name}: {message}")
        else:
            talk.say(f"{name}: {result}{f', {message}' if message else ''}")

    def _patiently(self, work: Callable[[], Outcome]) -> Outcome:
        """Waits for whoever is at work: somebody may use the page at night."""
        until, waits = time.monotonic() + PATIENCE, False
        while True:
            try:
                return work()
            except Busy as error:
                if time.monotonic() >= until:
                    raise
                if not waits:
                    self._portal.talk.say(f"waits: {error}")
                waits = True
                time.sleep(_LOOK)

    def _remember(self) -> None:
        try:
            remember(self._repository, self._night, self._known)
        except OSError as error:
            self._portal.talk.warn(f"the night is not noted: {explanation_of(error)}")

    def _note(self) -> None:
        night = self._night
        error = "; ".join(f"{each.name}: {each.message}" for each in night.failed)
        event = DONE if night.well else FAILED
        told = as_told(night) | ({"error": error[:1000]} if error else {})
        try:
            self._repository.record("nightly", event, what="nightly", **told)
        except OSError as failure:
            self._portal.talk.warn(
                f"not noted in the journal: {explanation_of(failure)}"
            )

    def _went_well(self, name: str) -> bool:
        step = self._night.step(name)
        return step is not None and step.result != FAILED

    # -- the steps

    def _backup(self) -> Outcome:
        taken = take_backup(self._portal)
        if why := why_incomplete(taken):
            return FAILED, why, taken.id
        about = taken.describe()
        added = size(sum(about["added"].values()))
        return DONE, f"{size(about['bytes'])}, {added} of it new", taken.id

    def _prove(self) -> Outcome:
        if why := self._needs_no_proof():
            return NOTHING, why, ""
        if not self._went_well("backup"):
            return SKIPPED, "there is no backup of tonight to prove", ""
        id = self._night.backup
        ((_, problems),) = verify_backups(self._portal, id, prove=True)
        if problems:
            more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
            return FAILED, f"backup {id} is not proven: {problems[0]}{more}", id
        return DONE, "restored beside the live site, and read", id

    def _needs_no_proof(self) -> str:
        """Why no proof is due, empty when one is: one that failed is tried again."""
        every = self._options.prove_every
        if not every:
            return "ckanext.dbmanage.prove_every is 0"
        described = []
        for each in self._repository.backups():
            with suppress(OSError, ValueError):  # one that nobody can read
                described.append(each.describe())
        whole = having(described, wanted(self._site, self._options))
        proofs = [
            each["proved"]
            for each in whole
            if each["state"] == "proven" and not each["future"]
        ]
        last = max(proofs, default="")
        if not last or is_older(last, timedelta(days=every) - _EARLY):
            return ""
        return f"proven {ago(parse_stamp(last))}, again after {many(every, 'night')}"

    def _push(self) -> Outcome:
        if not is_set(self._options):
            return NOTHING, "no other place is set", ""
        # also what is missing since the place was away, whatever became of tonight's
        done = list(run_push(self._portal))
        failed = [each for each in done if each.error]
        if failed:
            said = f"backup {failed[0].id} was not copied: {failed[0].error}"
            return FAILED, said, failed[0].id
        if not done:
            return NOTHING, "all backups are there", ""
        sent = size(sum(each.bytes for each in done))
        return DONE, f"{many(len(done), 'backup')}, {sent} not there before", done[0].id

    def _prune(self) -> Outcome:
        fresh = self._went_well("backup")
        why = "" if fresh else "tonight has no new backup: none that is verified goes"
        pruned = run_prune(self._portal, False, by_itself=self._by_itself, sparing=why)
        gone = sum(each.forget for each in pruned.decisions)
        said = [f"{many(gone, 'backup')} forgotten here"]
        said += [why] if why else []
        if pruned.objects.count:
            said.append(f"{size(pruned.objects.bytes)} of contents freed")
        if is_set(self._options):
            said.append(self._prune_there(fresh))
        return DONE, ", ".join(said), ""

    def _prune_there(self, fresh: bool) -> str:
        if not fresh or not self._went_well("push"):
            return "nothing at the other place, for it has no new backup"
        decisions, may = run_prune_remote(self._portal, False)
        gone = sum(each.forget for each in decisions) if may else 0
        return f"{gone} at the other place" if may else "kept at the other place"

    def _publish(self) -> Outcome:
        if not lexists(public_dir(self._options) / INDEX):
            return NOTHING, "the site does not publish: `ckan db publish` begins", ""
        done, changed = run_publish(started(self._portal))
        lacking = {kind: each.failed for kind, each in done.items() if each.failed}
        if lacking:
            kinds = " and ".join(lacking)
            first = next(iter(lacking.values()))[0]
            return FAILED, f"{kinds} are missing that could not be shown: {first}", ""
        return DONE, f"new: {', '.join(changed)}" if changed else "nothing new", ""
