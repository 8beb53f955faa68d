"""What the commands write, and where: the one place that prints.

What a person is told while a command runs goes to stderr, and only if they want it;
results to stdout. Nothing is printed that is not printable, for names and messages are
what others wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..engine import printable, words
from ..engine.layout import UNSIGNED
from ..engine.printable import one_line
from ..engine.words import size

if TYPE_CHECKING:  # what lists backups starts without these
    from ..engine.repository.backup import Backup
    from ..engine.restore.restore import Restored
    from ..portal.migrate import Report
    from ..records.export import Exported


def echo(text: object, err: bool = False) -> None:
    """Writes lines; the names of others within them are to be one line each."""
    click.echo(printable.printable(text), err=err)


def echo_json(document: object) -> None:
    """Writes the one document of `--json`."""
    echo(json.dumps(document))


class Talk:
    """The listener of a command: sentences, warnings and progress on stderr."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._phase = ""
        self._bar: Any = None

    def say(self, sentence: str) -> None:
        """A sentence, unless `--quiet`."""
        self.end()
        if not self._quiet:
            echo(printable.sentence(sentence), err=True)

    def warn(self, sentence: str) -> None:
        """A sentence that is said even with `--quiet`."""
        self.end()
        said = printable.sentence(f"Warning: {sentence}")
        click.secho(said, fg="yellow", err=True)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Phase, bytes and time left on a terminal, the phases alone elsewhere."""
        self._count(phase, done, total, size)

    def rows(self, phase: str, done: int, total: int) -> None:
        """The same, in rows."""
        self._count(phase, done, total, lambda count: f"{count} rows")

    def _count(
        self, phase: str, done: int, total: int, said: Callable[[Any], str]
    ) -> None:
        if self._quiet:
            return
        if phase != self._phase:
            self.end()
            self._phase = phase
            if total and sys.stderr.isatty():
                self._bar = click.progressbar(
                    length=total,
                    label=f"{one_line(phase):8}",
                    file=sys.stderr,
                    item_show_func=lambda count: "" if count is None else said(count),
                )
            else:
                echo(f"{one_line(phase)} …", err=True)
        if self._bar is not None:
            # the sizes of tables are a guess at the size of their dump
            step = min(done, self._bar.length) - self._bar.pos
            self._bar.update(max(step, 0), done)

    def end(self) -> None:
        """Ends the line of a progress bar."""
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None
        self._phase = ""


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
        rows.append(
            (one["id"], state, size(one["bytes"]), ",".join(one["parts"]), note)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join([*(f"{{:{width}}}" for width in widths[:4]), "{}"])
    return "\n".join(form.format(*row).rstrip() for row in rows)


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
        "problems": "\n          ".join(map(one_line, about["problems"])),
    }
    if one.signed:  # else nobody knows what these fields hold
        sizes = about["sizes"].items()
        plain["parts"] = ", ".join(
            f"{words.NAMES[part]} {size(n)}" for part, n in sizes
        )
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
        lines.append(
            f"{words.NAMES[part]}: {len(rows)} tables, {sum(rows.values())} rows"
        )
        lines += [
            f"  {count:>10}  {one_line(table)}"
            for table, count in sorted(rows.items())
            if count
        ]
    return "\n".join(lines)


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
