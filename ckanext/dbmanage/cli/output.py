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
from typing import IO, TYPE_CHECKING, Any

import click

from ..engine import printable, words
from ..engine.clock import ago, day_and_time
from ..engine.course import Course
from ..engine.layout import DENIED, UNSIGNED
from ..engine.printable import one_line
from ..engine.report import Standing, name_of
from ..engine.words import size
from ..portal.command import pasted, typed
from .columns import fitted, width
from .progress import line, stage_name

if TYPE_CHECKING:  # what lists backups starts without these
    from ..engine.repository.backup import Backup
    from ..engine.restore.restore import Restored
    from ..operations.preview import Preview
    from ..portal.migrate import Report
    from ..records.export import Exported


def echo(text: object, err: bool = False) -> None:
    """Writes lines; the names of others within them are to be one line each."""
    click.echo(printable.printable(text), err=err)


def echo_json(document: object) -> None:
    """Writes the one document of `--json`."""
    echo(json.dumps(document))


def told(sentence: str) -> str:
    """A sentence as it is printed, its commands as they are typed here."""
    return printable.sentence(pasted(sentence, typed()))


class Talk:
    """The listener of a command: sentences, warnings and progress on stderr."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
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

    def result(self, text: str) -> None:
        """A result, on stdout, while work goes on."""
        self._between(lambda: echo(text))

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
            if self._quiet:
                return
            terminal = sys.stderr.isatty()
            if begins and len(ahead) > 1:
                names = dict.fromkeys(name.partition(" ")[0] for name in ahead)
                echo(one_line(f"stages: {', '.join(names)}"), err=True)
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
        """Ends the line of the progress."""
        with self._guard:
            self._stop.set()
            self.course.end()
            if self._shown:
                click.echo(err=True)
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
            if number and not self._quiet:
                said = f"done in {took(seconds)}"
                if self._shown:
                    self._draw(f"{number}/{number} {said}")
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


def backup_table(described: list[dict[str, Any]]) -> str:
    """The backups, as `Backup.describe` tells of them, a line each."""
    rows = [("ID", "STATE", "SIZE", "PARTS", "NOTE")]
    for one in described:
        note = one_line(one["note"])
        if one["reason"] not in (None, "manual"):
            note = " ".join(filter(None, [f"({one_line(one['reason'])})", note]))
        when = (one["proved"] if one["state"] == "proven" else one["verified"]) or ""
        state = " ".join(filter(None, [one["state"], when[:16].replace("T", " ")]))
        state += ", held" if one["keep"] else ""
        state += ", in the future" if one["future"] else ""
        rows.append(
            (one["id"], state, size(one["bytes"]), ", ".join(one["parts"]), note)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join([*(f"{{:{width}}}" for width in widths[:4]), "{}"])
    fits = (fitted(form.format(*row).rstrip(), 18, width()) for row in rows)
    return "\n".join(fits)


def backup_facts(one: Backup, about: dict[str, Any]) -> str:
    """All that is known of one backup; `about` is what it says in `describe`."""
    plain = {
        "id": one_line(about["id"]),
        "path": one_line(about["path"]),
        "state": one_line(about["state"]),
        "verified": one_line(about["verified"]),
        "proven": one_line(about["proved"]),
        "parts": one_line(words.parts(about["parts"])),
        "size": size(about["bytes"]),
        "created": one_line(about["created"]),
        "reason": one_line(about["reason"]),
        "note": one_line(about["note"]),
        "held": "yes" if about["keep"] else "",
        "future": "its date is in the future" if about["future"] else "",
        "problems": "\n          ".join(map(one_line, about["problems"])),
    }
    if one.signed:  # else nobody knows what these fields hold
        sizes = about["sizes"].items()
        plain["parts"] = ", ".join(f"{name_of(part)} {size(n)}" for part, n in sizes)
        plain["added"] = size(sum(about["added"].values()))
        plain["took"] = f"{about['seconds'] or 0:.1f} s"
        plain["uploads"] = _uploads(about["files"])
        plain["versions"] = ", ".join(
            one_line(f"{name} {' '.join(v) if isinstance(v, list) else v}")
            for name, v in (about["versions"] or {}).items()
        )
    lines = [f"{key:9} {value}" for key, value in plain.items() if value]
    databases = one.manifest["databases"] if one.signed else {}
    for part, database in databases.items():
        rows = database.get("rows") or {}
        lines.append(f"{name_of(part)}: {len(rows)} tables, {sum(rows.values())} rows")
        lines += [
            f"  {count:>10}  {one_line(table)}"
            for table, count in sorted(rows.items())
            if count
        ]
    return "\n".join(fitted(line, 10, width()) for line in lines)


def _uploads(about: dict[str, Any]) -> str:
    if not about.get("included"):
        return ""
    said = f"{about['count']} uploads, {size(about['bytes'])}"
    for what in ("missing", "refused"):
        said += f", {about[what]} {what}" if about[what] else ""
    if about.get("folders"):
        said += f", {about['folders']} folders left out"
    names = ("left_out", "examples", "not_included")
    lines = [line for name in names for line in about.get(name) or ()]
    return "\n          ".join([said, *map(one_line, lines)])


def verdict(problems: list[str], prove: bool) -> str:
    """What a verification says of a backup, in a word or two."""
    if problems and problems[0].startswith(DENIED):
        return "cannot be read"
    if prove:
        return "not proven" if problems else "proven"
    if not problems:
        return "whole"
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


def preview_table(rows: list[dict[str, Any]]) -> str:
    """What a restore would lose and gain, a line for each kind of object."""
    columns = ("kind", "now", "then", "lost", "gained", "changed")
    lines = [("", *columns[1:])]
    lines += [tuple(one_line(row[c]) for c in columns) for row in rows]
    width = max(len(row[0]) for row in lines)
    return "\n".join(
        row[0].ljust(width) + "".join(cell.rjust(10) for cell in row[1:])
        for row in lines
    )


_CHANGES = {
    "lost": "would be lost",
    "changed": "would go back to an older state",
    "gained": "would come back",
}


def preview_names(found: Preview) -> list[str]:
    """What a restore would lose, gain and change: the first by name, a line each."""
    lines = []
    counts = {row["kind"]: row for row in found.rows}
    for kind, changes in found.names.items():
        for change, objects in changes.items():
            lines.append(f"{kind.capitalize()} that {_CHANGES[change]}:")
            for each in objects:
                by = each["by"] and f"(last changed by {each['by']})"
                words = map(one_line, (each["name"], each["title"], by))
                lines.append("  " + "  ".join(filter(None, words)))
            if more := counts[kind][change] - len(objects):
                lines.append(f"  and {more} more")
    if found.editors:
        who = ", ".join(f"{each['name']} ({each['count']})" for each in found.editors)
        lines.append(f"Who changed last what would be lost or go back: {one_line(who)}")
    if found.count:
        lines.append(f"All {many(found.count, 'name')}, for a day: {found.file}")
    return lines


def many(count: int, thing: str) -> str:
    """A number of things: `1 dataset`, `12 datasets`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def when(moment: datetime) -> str:
    """A moment and how long ago that is: `26 Nov 06:39 UTC (1 hour ago)`."""
    return f"{day_and_time(moment)} ({ago(moment)})"


def upgrade_report(report: Report) -> str:
    """The steps of an upgrade, what they change, and how long each phase took."""
    lines = [
        f"{'not ended' if seconds is None else f'{seconds:7.2f} s'}  "
        + one_line(f"{owner} {revision}")
        + f"  {one_line(about)}"
        for owner, revision, about, seconds in report.steps
    ]
    changes = report.changes
    for what, names in (
        ("locked against readers", changes.locked),
        ("rewritten", changes.rewritten),
        ("dropped", [f"{t} ({rows} rows)" for t, rows in changes.dropped.items()]),
    ):
        if names:
            lines.append(one_line(f"{what}: {', '.join(sorted(names))}"))
    lines.append(
        ", ".join(
            f"{phase} {seconds:.1f} s" for phase, seconds in report.phases.items()
        )
    )
    return "\n".join(lines)


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
