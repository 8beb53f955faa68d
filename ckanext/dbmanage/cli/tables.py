"""What is told in lists and tables, as text that fits the terminal.

Must not print: `cli/output.py` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine import words
from ..engine.printable import one_line
from ..engine.report import name_of
from ..engine.words import many, size
from .columns import fitted, taken, width

if TYPE_CHECKING:  # what lists backups starts without these
    from ..engine.repository.backup import Backup
    from ..operations.preview import Preview
    from ..portal.migrate import Report


def backup_table(described: list[dict[str, Any]], places: bool = False) -> str:
    """The backups, as `Backup.describe` tells of them, a line each.

    With `places` also where each is. On a terminal that is too narrow for that each has
    some lines, under no heading.
    """
    rows = [("ID", "WHERE", "STATE", "SIZE", "PARTS", "NOTE")]
    for one in described:
        note = one_line(one["note"])
        if one["reason"] not in (None, "manual"):
            note = " ".join(filter(None, [f"({one_line(one['reason'])})", note]))
        when = (one["proved"] if one["state"] == "proven" else one["verified"]) or ""
        state = " ".join(filter(None, [one["state"], when[:16].replace("T", " ")]))
        state += ", held" if one["keep"] else ""
        state += ", in the future" if one["future"] else ""
        parts = ", ".join(map(name_of, one["parts"]))
        held = size(one["bytes"]) if one["path"] else ""
        where = ", ".join(one["where"]) if places else ""
        rows.append((one["id"], where, state, held, parts, note))
    if not places:
        rows = [(row[0], *row[2:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join([*(f"{{:{width}}}" for width in widths[:-1]), "{}"])
    lines = [form.format(*row).rstrip() for row in rows]
    if not width() or max(map(taken, lines)) <= width():
        return "\n".join(lines)
    lines = [
        line
        for id, *where, state, bytes, parts, note in rows[1:]
        for line in (
            "  ".join([id, *where, state]),
            f"{'':18}{bytes}  {parts}",
            f"{'':18}{note}",
        )
    ]
    return "\n".join(
        fitted(line, 18, width()) for line in map(str.rstrip, lines) if line
    )


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
        tables, every = many(len(rows), "table"), many(sum(rows.values()), "row")
        lines.append(f"{name_of(part)}: {tables}, {every}")
        digits = len(str(max(rows.values(), default=0)))
        lines += [
            f"  {count:>{digits}}  {one_line(table).removeprefix('public.')}"
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


def preview_table(rows: list[dict[str, Any]], columns: int) -> str:
    """What a restore would lose and gain, a line for each kind of object.

    In so many columns; 0 for any number.
    """
    names = ("now", "then", "lost", "gained", "changed")
    cells = [
        ["-" if row[name] is None else one_line(row[name]) for name in names]
        for row in rows
    ]
    kinds = ["", *(one_line(row["kind"]) for row in rows)]
    first = max(map(len, kinds))
    if columns and first + 10 * len(names) > columns:
        counts = (", ".join(map(" ".join, zip(names, c, strict=True))) for c in cells)
        lines = map(": ".join, zip(kinds[1:], counts, strict=True))
        return "\n".join(fitted(line, 2, columns) for line in lines)
    return "\n".join(
        kind.ljust(first) + "".join(cell.rjust(10) for cell in row)
        for kind, row in zip(kinds, [names, *cells], strict=True)
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
    return [fitted(line, 4, width()) for line in lines]


def upgrade_report(report: Report) -> str:
    """The steps of an upgrade, what they change, and how long each phase took."""
    lines = [
        f"{'not ended' if seconds is None else f'{seconds:7.2f} s'}  "
        + one_line(f"{owner} {revision}")
        + f"  {one_line(about)}".rstrip()
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
    return "\n".join(fitted(line, 11, width()) for line in lines)
