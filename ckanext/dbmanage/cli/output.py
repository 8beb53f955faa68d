"""What the commands write, and where: the one place that prints.

What a person is told while a command runs goes to stderr, and only if they want it;
results to stdout. Nothing is printed that is not printable, for names and messages are
what others wrote.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import IO, TYPE_CHECKING

import click

from ..engine import printable
from ..engine.clock import ago, day_and_time
from ..engine.course import Course
from ..engine.layout import DENIED, UNSIGNED
from ..engine.printable import one_line
from ..engine.report import Standing
from ..engine.words import many, size
from ..portal.command import pasted, typed, typed_module
from . import COMMANDS
from .columns import fitted, width
from .progress import line, stage_name

if TYPE_CHECKING:  # what lists backups starts without these
    from ..engine.restore.restore import Restored
    from ..portal.migrate import Report
    from ..records.export import Exported


def echo(text: object, err: bool = False) -> None:
    """Writes lines; the names of others within them are to be one line each."""
    click.echo(printable.printable(text), err=err)


def echo_json(document: object) -> None:
    """Writes the one document of `--json`."""
    echo(json.dumps(document))


def as_typed(text: str) -> str:
    """A message, its commands as they are typed here."""
    verbs = {str(each.name) for each in COMMANDS if not each.needs_ckan}
    return pasted(text, typed(), typed_module(), verbs)


def result(line: str, indent: int = 2) -> None:
    """Writes a line of the result, in as many as it needs on a terminal."""
    echo(fitted(line, indent, width()))


def told(sentence: str, lead: str = "") -> str:
    """A sentence as it is printed after `lead`, its commands as they are typed here."""
    first, *more = printable.sentence(as_typed(sentence)).split("\n")
    # what stands on lines of its own may be a command
    first = fitted(lead + first, 2, width(sys.stderr))[len(lead) :]
    return "\n".join([first, *more])


class Talk:
    """The listener of a command: sentences, warnings and progress on stderr.

    `quiet` keeps it to warnings; `still` draws no line of progress.
    """

    def __init__(self, quiet: bool, still: bool = False) -> None:
        self._quiet, self._still = quiet, still
        self.standing, self.course = Standing(), Course()
        self._guard = threading.RLock()  # work side by side tells of its bytes
        self._shown, self._next, self._width = "", 0.0, 0
        self._said: Callable[[float], str] = size
        self._stop = threading.Event()  # of the thread that draws; there is none yet
        self._stop.set()

    def say(self, sentence: str) -> None:
        """A sentence, unless `--quiet`."""
        if not self._quiet:
            self._between(lambda: echo(told(sentence), err=True))

    def warn(self, sentence: str) -> None:
        """A sentence that is said even with `--quiet`."""
        said = told(f"Warning: {sentence}")
        self._between(lambda: click.secho(said, fg="yellow", err=True))

    def result(self, *lines: str) -> None:
        """Lines of a result, on stdout, while work goes on."""
        self._between(lambda: [result(line, 4) for line in lines])

    def progress(self, phase: str, done: int, total: int) -> None:
        """One line of the whole on a terminal, the stages alone elsewhere."""
        self._count(phase, done, total, size)

    def rows(self, phase: str, done: int, total: int) -> None:
        """The same, in rows."""
        self._count(phase, done, total, lambda count: many(round(count), "row"))

    def _count(
        self, phase: str, done: int, total: int, said: Callable[[float], str]
    ) -> None:
        with self._guard:
            first = not self.course.number
            ahead = list(self.course.ahead) if first else []
            begins = self.course.count(phase, done, total)
            self._said = said
            if self._quiet or self._still:
                return
            terminal = sys.stderr.isatty()
            if begins and len(ahead) > 1:
                names = dict.fromkeys(name.partition(" ")[0] for name in ahead)
                echo(told(one_line(f"stages: {', '.join(names)}")), err=True)
            if not terminal:
                if begins:
                    echo(f"{stage_name(phase)} …", err=True)
                return
            if said is not size:  # what counts rows forks: no thread may be there
                self._stop.set()
            elif self._stop.is_set():
                self._stop = threading.Event()
                tick = threading.Thread(target=self._tick, args=[self._stop])
                tick.daemon = True
                tick.start()
            self._width = columns(sys.stderr)
            if begins or time.monotonic() > self._next:
                self._draw(line(self.course, said, self._width))

    def _tick(self, stop: threading.Event) -> None:
        """Draws the line anew while nothing is told: time goes on."""
        while not stop.wait(1):
            with self._guard:
                if self.course.name and not stop.is_set():
                    self._draw(line(self.course, self._said, self._width))

    def _draw(self, text: str) -> None:
        self._next = time.monotonic() + 0.1
        click.echo("\r" + text.ljust(len(self._shown)), nl=False, err=True)
        self._shown = text

    def _between(self, tell: Callable[[], object]) -> None:
        """Tells something, where the line of the progress is."""
        with self._guard:
            shown, self._shown = self._shown, ""
            if shown:
                click.echo(f"\r{' ' * len(shown)}\r", nl=False, err=True)
            tell()
            if shown:
                self._draw(shown)

    def end(self) -> None:
        """Ends the line of the progress, which goes: it is of what is under way."""
        with self._guard:
            self._stop.set()
            self.course.end()
            if self._shown:
                click.echo(f"\r{' ' * len(self._shown)}\r", nl=False, err=True)
                self._shown = ""

    def hush(self) -> None:
        """Ends it for good: what ends meanwhile beside this tells no more."""
        with self._guard:
            self.end()
            self._quiet = True

    def finish(self) -> None:
        """The same as `end` once all is done, which the line says then."""
        with self._guard:
            number, seconds = self.course.number, self.course.seconds
            self.course.end()
            if number and not self._quiet and not self._still:
                said = f"done in {took(seconds)}"
                if self._shown:
                    self._draw(f"{number}/{number} {said}")
                    click.echo(err=True)
                    self._shown = ""
                else:
                    echo(said, err=True)
            self.end()
            self.course = Course()


def columns(stream: IO[str]) -> int:
    """How wide a stream's terminal is, 80 when it does not say."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def took(seconds: float) -> str:
    """A time span that is over: 4.2 s, 12 min 5 s."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def verdict(problems: list[str], prove: bool) -> str:
    """What a verification says of a backup, in a word or two."""
    if problems and problems[0].startswith(DENIED):
        return "cannot be read"
    if prove:
        return "not proven" if problems else "proven"
    if not problems:
        return "verified"
    own = [problem for problem in problems if UNSIGNED not in problem]
    return "damaged" if own else "foreign"


def replaced_names(restored: Restored) -> str:
    """The databases and folders that hold what was replaced."""
    names = [database.name for database in restored.replaced.databases.values()]
    return " and ".join([*names, *sorted(set(restored.replaced.inside.values()))])


def next_steps(restored: Restored) -> str:
    """How long visitors waited, and what to do after a switch."""
    return (
        f"visitors could not save for {restored.read_only + restored.away:.1f} s, and "
        f"the site was away for {restored.away:.1f} s of that. Next: look at a dataset "
        "that you know"
    )


def when(moment: datetime) -> str:
    """A moment and how long ago that is: `26 Nov 06:39 UTC (1 hour ago)`."""
    return f"{day_and_time(moment)} ({ago(moment)})"


def rehearsed_cost(report: Report) -> str:
    """What an upgrade that was rehearsed would cost visitors."""
    seconds = sum(report.phases.values())
    return (
        f"Visitors could read, but not save, for about {seconds:.0f} s, and would wait "
        "about a second at the switch"
    )


def left_out(done: Exported) -> str:
    """How many records of an export visitors may not read, in brackets."""
    return f" ({done.hidden} that a visitor may not read left out)" * bool(done.hidden)
