"""The soak: a portal is saved to, backed up, restored and killed, for many cycles.

    bench/run soak --cycles 200 --seed 7

Each step is drawn by the seed: saving by CKAN's own API, `backup`, `verify`, `prune`,
`forget`, `restore`, `restore --dataset`, `undo`. Some commands are killed (SIGKILL, the
command alone or all that it started) at a moment that is drawn too; then the next
command must leave all as it was before, or as it should be after. After each step the
portal is looked at: what was saved is there, byte by byte, nothing is left half-made,
no lock is held, visitors are served, and the backups are those that the rules keep.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg2
from people import Lost, People
from portals import Portal
from shelves import opened
from tools import BENCH, CKAN, ENV, say
from visitors import web
from world import Part, World, asked, left_half_made, observed

from ckanext.dbmanage.engine.postgres.locks import lock_key

#: of the rules of retention, beside held ones and those that a restore took
_KEEP = 4
#: how many commands of 100 are killed
_KILLED = 40
_OPTIONS = f"""ckanext.dbmanage.keep_last = {_KEEP}
ckanext.dbmanage.keep_daily = 0
ckanext.dbmanage.keep_weekly = 0
ckanext.dbmanage.keep_monthly = 0
"""


class Soak(People):
    """The driver. `held` is what each backup holds."""

    def __init__(self, portal: Portal, seed: int) -> None:
        super().__init__(portal, random.Random(seed))
        self._log = (BENCH / "soak.log").open("a")
        self.counts = Counter[str](cycles=0, kills=0)
        self.held: dict[str, World] = {}
        self._kept: set[str] = set()
        #: what an undo brings back: all, or a dataset; and whether that was saved to
        self._other: World | Part | None = None
        self._seconds: dict[str, float] = {}
        self._repository = opened(portal.ini)[2]

    def run(self, cycles: int) -> None:
        """Raises Lost."""
        with web(self._portal, self.port):
            self.sign_in()
            self.world = observed(self._portal)
            self._save()
            self._back_up()
            for cycle in range(cycles):
                say(f"cycle {cycle + 1} of {cycles}: {len(self.held)} backups")
                self._save()
                for step in self._chance.sample(self._steps(), 2):
                    step()
                    if self._chance.random() < 0.4:
                        self._undo()
                self.counts["cycles"] += 1
            self._end()

    def said(self) -> str:
        """What was done until now."""
        return ", ".join(f"{number} {name}" for name, number in self.counts.items())

    def _steps(self) -> list[Callable[[], None]]:
        often = [self._back_up, self._restore, self._bring_back] * 3
        return [
            *often,
            self._verify,
            self._prune,
            self._prune,
            self._hold,
            self._forget,
        ]

    # ------------------------------------------------------------------ saving

    def _save(self) -> None:
        self.save()
        self._look("saving")

    def _touched(self, id: str) -> str:
        """A dataset that is saved to: what an undo of it alone leaves, nobody says."""
        if isinstance(self._other, Part) and self._other.id == id:
            self._other = None
        return id

    # ---------------------------------------------------------------- commands

    def _command(self, *words: str, may_be_killed: bool = False) -> str | None:
        """What a command of ours says, which may be killed: then None."""
        start = [sys.executable, "-m", "ckanext.dbmanage", "-c", self._portal.ini]
        if "--dataset" in words or self._chance.random() < 0.3:
            start = [CKAN, "-c", self._portal.ini, "db"]
        kill = may_be_killed and self._chance.randrange(100) < _KILLED
        moment, group = self._chance.random(), self._chance.random() < 0.5
        begun = time.monotonic()
        process = subprocess.Popen(
            [*start, *words], env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            if kill:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(moment * self._seconds.get(words[0], 3))
                kill = process.poll() is None
                if kill:
                    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        took = time.monotonic() - begun
        self._note(
            f"{' '.join(words)}: {'killed' if kill else process.returncode}, {took:.1f} s"
        )
        self._note(f"{out}{err}")
        self.counts["kills"] += kill
        if kill:
            return None
        self._seconds[words[0]] = took
        if process.returncode:
            raise Lost(f"{' '.join(words)} ended with {process.returncode}: {err}")
        return out

    def _in_the_end(self, *words: str) -> None:
        """A command that may be killed, and is given again then."""
        if self._command(*words, may_be_killed=True) is None:
            self._command(*words)

    def _note(self, text: str) -> None:
        self._log.write(f"{text}\n")
        self._log.flush()

    def _backups(self) -> dict[str, dict[str, Any]]:
        return {each.id: each.describe() for each in self._repository.backups()}

    def _change(
        self, name: str, words: list[str], after: World, other: World | Part | None
    ) -> None:
        """A command that makes the portal this one, or is killed: then perhaps."""
        before = self.world
        done = self._command(*words, may_be_killed=True)
        if done is None:
            self._command("backup")  # which finishes what is half-way, or turns it back
            there = observed(self._portal)
            lost = [world.lost(there) for world in (before, after)]
            if all(lost):
                raise Lost(
                    "\n".join(
                        ["of what was before:", *lost[0], "or is after:", *lost[1]]
                    )
                )
            self._note(f"the killed {name} was {'turned back' if lost[1] else 'done'}")
            if lost[1] or not lost[0]:
                after = before
        if after is not before:
            self.world, self._other = after, other
        # what was there before, which a restore has backed up, and what a killed
        # command's successor has
        self._learn(before)
        self.counts[name] += 1
        self._look(name)

    def _learn(self, before: World | None = None) -> None:
        """Notes what the new backups hold; all that were there are there still."""
        there = self._backups()
        if gone := self.held.keys() - there.keys():
            raise Lost(f"backups {sorted(gone)} are not there")
        for id in there.keys() - self.held.keys():
            replaced = str(there[id]["reason"]).startswith("before ")
            self.held[id] = (before if replaced and before else self.world).copy()

    def _back_up(self) -> None:
        self._in_the_end("backup")
        self._learn()
        self.counts["backups"] += 1
        self._look("a backup")

    def _verify(self) -> None:
        words = self._chance.choice(
            (["verify", "--all"], ["verify", "latest", "--prove"])
        )
        self._in_the_end(*words)
        self.counts["verified"] += 1
        self._look("verify")

    def _hold(self) -> None:
        id = self.some(self.held)
        if id in self._kept:
            self._command("keep", id, "--release")
        else:
            self._command("keep", id)
        self._kept ^= {id}

    def _forget(self) -> None:
        id = self.some(self.held.keys() - self._kept)
        if id is None or len(self.held) < 6:
            return
        if self._command("forget", id, "--yes", may_be_killed=True) is None:
            self._command("backup")
            if id not in self._backups():
                del self.held[id]
        else:
            del self.held[id]
        self._learn()
        self._look("forget")

    def _prune(self) -> None:
        before = self._backups()
        # of one that was killed before it was marked, nobody says when it goes
        good = {i: b for i, b in before.items() if b["state"] in ("verified", "proven")}
        mine = [i for i, b in good.items() if i not in self._kept
                and not str(b["reason"]).startswith("before ")]  # fmt: skip
        proven = [i for i, b in before.items() if b["state"] == "proven"][:1]
        goes = {*mine[_KEEP:]} - {*proven}
        killed = self._command("prune", may_be_killed=True) is None
        if killed:
            left = self._backups().keys()
            if too_much := good.keys() - left - goes:
                raise Lost(f"a killed prune forgot {sorted(too_much)}")
            self._command("prune")
        left = self._backups().keys()
        if good.keys() - left != goes:
            raise Lost(
                f"prune left {sorted(left)} of {sorted(before)}, not without {goes}"
            )
        for id in before.keys() - left:
            del self.held[id]
        self.counts["prunes"] += 1
        self._look("prune")

    def _restore(self) -> None:
        id = self.some(self.held)
        words = ["restore", id, "--yes"]
        words += ["--no-backup"] * (self._chance.random() < 0.5)
        self._change("restores", words, self.held[id].copy(), self.world.copy())

    def _undo(self) -> None:
        other = self._other
        if other is None:
            return
        if isinstance(other, World):
            after, back = other.copy(), self.world.copy()
        else:
            after = self.world.copy()
            back = after.part(other.id, {*other.files})
            after.put(other)
        self._change("undos", ["undo", "--yes"], after, back)

    def _bring_back(self) -> None:
        id = self.some(self.held)
        then = self.held[id]
        dataset = self.some(
            each for each, (name, _, state) in then.datasets.items()
            if name.startswith("soaked-") and state == "active"
        )  # fmt: skip
        if dataset is None:
            return
        after = self.world.copy()
        has, had = after.of(dataset), then.of(dataset)
        back = after.part(dataset, has | had)
        after.put(then.part(dataset, has | had))
        words = ["restore", id, "--dataset", then.datasets[dataset][0], "--yes"]
        self._change("datasets brought back", words, after, back)

    # ----------------------------------------------------------------- looking

    def _look(self, after: str) -> None:
        """Looks at all of it. Raises Lost."""
        lost = [*self.world.lost(observed(self._portal)), *left_half_made(self._portal)]
        lost += self._locks()
        if lost:
            raise Lost("\n".join([f"after {after}:", *lost]))
        self.served()
        if (id := self.some(self.mine())) is not None:
            title = self.act("package_show", id=id)["title"]
            if title != self.world.datasets[id][1]:
                raise Lost(f"after {after}: visitors see {title!r} of {id}")

    def _locks(self) -> Iterator[str]:
        """The lock of the site, which nobody may hold any more."""
        key = lock_key("live", self._portal.main)
        held = f"""SELECT pid FROM pg_locks WHERE locktype = 'advisory'
          AND (classid::bigint << 32 | objid::bigint) = {key}"""
        end = time.monotonic() + 30  # the server hears of a killed one a moment later
        while found := asked("postgres", held):
            if time.monotonic() > end:
                yield f"the lock is held by {found}"
                return
            time.sleep(0.1)

    def _end(self) -> None:
        """All that there is, once more: every backup is whole and comes back."""
        self._command("verify", "--all")
        oldest = min(self.held)
        self._command("restore", oldest, "--yes", "--no-backup")
        self.world = self.held[oldest]
        self._look("the last restore")


def soak(cycles: int, seed: int | None) -> bool:
    """Whether nothing was lost; prints one line of counts."""
    seed = random.randrange(10**6) if seed is None else seed
    say(
        f"a soak of {cycles} cycles, seed {seed}; commands and words in {BENCH}/soak.log"
    )
    portal = Portal("bench_soak", 20).make()
    ini = portal.ini
    with open(ini) as file:
        text = file.read().replace("[app:main]\n", f"[app:main]\n{_OPTIONS}")
    with open(ini, "w") as file:
        file.write(text)
    driver, lost = Soak(portal, seed), ""
    try:
        driver.run(cycles)
    except Lost as error:
        lost = str(error)
    # a database or a server that is not there any more
    except (OSError, psycopg2.Error) as error:
        lost = f"{type(error).__name__}: {error}"
    except SystemExit:
        say(f"{driver.said()}, seed {seed}: nothing was lost until then")
        raise
    print(f"{driver.said()}, seed {seed}; lost: {lost or 'nothing'}", flush=True)
    return not lost
