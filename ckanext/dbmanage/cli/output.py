"""What the commands write, and where: the one place that prints.

What a person is told while a command runs goes to stderr, and only if they want it;
results to stdout. Nothing is printed that is not printable, for names and messages are
what others wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..engine import printable
from ..engine.printable import one_line

if TYPE_CHECKING:
    from ..engine.repository.backup import Backup


def echo(text: object, err: bool = False) -> None:
    """Writes lines; the names of others within them are to be one line each."""
    click.echo(printable.printable(text), err=err)


class Talk:
    """Sentences, warnings and progress of one command."""

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

    def rows(self, phase: str, done: int, total: int) -> None:
        """Progress in rows."""
        self.progress(phase, done, total, _rows)

    def progress(
        self,
        phase: str,
        done: int,
        total: int,
        shown: Callable[[Any], str] | None = None,
    ) -> None:
        """Phase, bytes and time left on a terminal, the phases alone elsewhere."""
        if self._quiet:
            return
        if phase != self._phase:
            self.end()
            self._phase = phase
            if not sys.stderr.isatty():
                echo(f"{one_line(phase)} …", err=True)
            elif total:
                self._bar = click.progressbar(
                    length=total,
                    label=f"{one_line(phase):8}",
                    file=sys.stderr,
                    item_show_func=shown or _shown,
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


def _shown(count: Any) -> str:
    return "" if count is None else size(count)


def _rows(count: Any) -> str:
    return "" if count is None else f"{count} rows"


def size(count: float) -> str:
    """A number of bytes for people: 52.4 MB."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("KB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def table(described: list[dict[str, Any]]) -> str:
    rows = [("ID", "STATE", "SIZE", "PARTS", "NOTE")]
    for one in described:
        note = one_line(one["note"])
        if one["reason"] not in (None, "manual"):
            note = " ".join(filter(None, [f"({one_line(one['reason'])})", note]))
        when = (one["proved"] if one["state"] == "proven" else one["verified"]) or ""
        state = " ".join(filter(None, [one["state"], when[:16].replace("T", " ")]))
        state += ", kept" if one["keep"] else ""
        rows.append(
            (one["id"], state, size(one["bytes"]), ",".join(one["parts"]), note)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(
            [
                *(cell.ljust(width) for cell, width in zip(row, widths, strict=False)),
                row[4],
            ]
        ).rstrip()
        for row in rows
    )


def shown(one: Backup, about: dict[str, Any]) -> str:
    plain = about | {
        "bytes": size(about["bytes"]),
        "parts": one_line(", ".join(about["parts"])),
        "note": one_line(about["note"]),
        "reason": one_line(about["reason"]),
        "created": one_line(about["created"]),
        "seconds": one_line(about["seconds"]),
        "problems": "\n          ".join(map(one_line, about["problems"])),
        "keep": "yes" if about["keep"] else "",
        "versions": "",
        "files": "",
    }
    if one.signed:  # else nobody knows what these fields hold
        plain["files"] = _uploads(about["files"])
        plain["versions"] = ", ".join(
            one_line(f"{name} {' '.join(v) if isinstance(v, list) else v}")
            for name, v in (about["versions"] or {}).items()
        )
    lines = [f"{key:9} {value}" for key, value in plain.items() if value]
    databases = one.manifest["databases"] if one.signed else {}
    for part, database in databases.items():
        rows = database.get("rows") or {}
        lines.append(f"{part}: {len(rows)} tables, {sum(rows.values())} rows")
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
    from ..engine.layout import UNSIGNED

    if prove:
        return "not proven" if problems else "proven"
    if not problems:
        return "whole"
    own = [problem for problem in problems if UNSIGNED not in problem]
    return "damaged" if own else "foreign"


def kept(restored: Any) -> str:
    names = [database.name for database in restored.replaced.databases.values()]
    return " and ".join([*names, *sorted(set(restored.replaced.inside.values()))])


def compared(rows: list[dict[str, Any]]) -> str:
    columns = ("kind", "now", "then", "lost", "gained", "changed")
    shown = [("", *columns[1:])]
    shown += [tuple(one_line(row[c]) for c in columns) for row in rows]
    width = max(len(row[0]) for row in shown)
    return "\n".join(
        row[0].ljust(width) + "".join(cell.rjust(10) for cell in row[1:])
        for row in shown
    )


def reported(report: Any) -> str:
    """The report of an upgrade, for people."""
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


def cost(report: Any) -> str:
    seconds = sum(report.phases.values())
    return (
        f"Visitors could read, but not save, for about {seconds:.0f} s, and would wait "
        "about a second at the switch"
    )
