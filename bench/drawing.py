"""Draws the results: the page of the manual, its charts, and what the README shows.

All of it is drawn out of the file of results alone.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from measuring import FIGURES
from results import ONCE, Result, middle
from tools import Row, S

os.environ["MPLCONFIGDIR"] = str(S / "cache/matplotlib")

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

#: the figures of the README: figure, row, what it is, what the peer is
MAIN = (
    ("backup", "ckan db backup less CKAN's start", "Back up the database, and check", "pg_dump -Fc, no check"),
    ("restore", "restore, against pg_restore --clean", "Restore the database", "pg_restore --clean"),
    ("traffic", "no good answer during a restore", "Visitors wait in a restore", "pg_restore --clean"),
    ("undo", "undo less CKAN's start, the manual's way", "Go back after a restore", "CKAN's manual"),
    ("thing", "one dataset back, by hand", "Bring one dataset back", "pg_restore into a copy"),
    ("recover", "from nothing, by hand", "A portal from nothing", "restic and the manual"),
    ("upgrade", "no good answer, 2.10 to 2.12", "Visitors wait in an upgrade", "CKAN's manual"),
    ("export", "export, ckanapi with a warm index", "Export all datasets", "ckanapi dump"),
    ("import", "import of 500, ckanapi load", "Import 500 datasets", "ckanapi load"),
    ("reindex", "reindex, core's rebuild", "Rebuild the search index", "ckan search-index rebuild"),
    ("nights", "bytes of a night, restic", "What a night adds", "restic"),
)  # fmt: skip
BEGIN = ".. Figures: written by bench/report, from here to the end mark."
END = ".. Figures: the end mark."
PAGE = """\
.. Written by bench/report out of docs/figures/results.jsonl: measure, or draw, anew.

Figures
=======

What the extension needs, beside what is used without it: the peer. {intro} One command
measures all of it and writes this page::

    bench/report

Ours and the peer take turns, at moments at which the machine has nothing else to do; the best
of {rounds} counts. Of what visitors see our worst and the peer's best counts. The ratio is
ours divided by the peer's: 0.1 is a tenth. The floor is what no program can do without. The
target is for the ratio; with a unit it is for ours.
A time with ≈ is scaled up: with so many datasets the peer needs hours, and a sample was measured.

{machine}
"""

BUSY = "**Others were at work on the machine**"
INK, PAPER, GRID = "#222222", "#ffffff", "#dddddd"
SERIES: dict[str, dict[str, Any]] = {
    "ours": {"color": "#0b66c3", "marker": "o", "linestyle": "-"},
    "peer": {"color": "#b45309", "marker": "s", "linestyle": "--"},
    "floor": {"color": "#6b7280", "marker": "^", "linestyle": ":"},
}
DARK = {
    INK: "#e6e6e6", PAPER: "#15191e", GRID: "#3a4048",
    "#0b66c3": "#6cb2ff", "#b45309": "#f5a35c", "#6b7280": "#a3acb8",
}  # fmt: skip
#: what shows the picture in the dark changes its colours, with its ground
STYLE = "".join(
    f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
    for light, dark in DARK.items()
    for what in ("fill", "stroke")
)
SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 8,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.facecolor": PAPER,
    "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "grid.color": GRID,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 8.5,
}  # fmt: skip

#: a row at each size
Growth = dict[int, Row]


def draw(results: Sequence[Result], output: Path) -> None:
    """Writes `figures.rst` and the charts; the README beside `output` gets its part."""
    charts = output / "figures"
    for old in charts.glob("*.svg"):
        old.unlink()
    grown = growth(results)
    for name, rows in grown.items():
        chart(name, rows, charts / f"{name}.svg")
    (output / "figures.rst").write_text(page(results, grown), "utf-8")
    overview(grown, charts / "overview.svg")
    readme = output.parent / "README.rst"
    if not readme.exists():
        return
    text = readme.read_text("utf-8")
    before, rest = text.split(f"{BEGIN}\n")
    _, after = rest.split(f"{END}\n")
    shown = f"{BEGIN}\n{summary(results, grown)}{END}\n"
    readme.write_text(before + shown + after, "utf-8")


def growth(results: Iterable[Result]) -> dict[str, dict[str, Growth]]:
    """The rows of each figure by their names, in the order of `FIGURES`."""
    found: dict[str, dict[str, Growth]] = {name: {} for name in FIGURES}
    for result in results:
        for row in result.rows:
            found[result.figure].setdefault(row.name, {})[result.datasets] = row
    return {name: rows for name, rows in found.items() if rows}


# ---------------------------------------------------------------------- in words


def number(value: float, digits: int = 3) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def amount(value: float | None, unit: str) -> str:
    return "" if value is None else f"{number(value)} {unit}".strip()


def ratio(row: Row) -> str:
    return number(row.ratio, 2) if row.peer else "–"


def peer(row: Row) -> str:
    return ("≈ " if row.sample else "") + amount(row.peer, row.unit)


def target(row: Row) -> str:
    if row.target is None:
        return ""
    limit = number(row.target) if row.of is None else amount(row.target, row.unit)
    return f"≤ {limit}" + ("" if row.met else ", missed")


def page(results: Sequence[Result], grown: dict[str, dict[str, Growth]]) -> str:
    sizes = sorted({result.datasets for result in results})
    rounds = sorted({result.rounds for result in results})
    *first, last = [f"{size:,}" for size in sizes]
    of = f"{', '.join(first)} and {last}" if first else last
    told = " or ".join(map(str, rounds))
    parts = [
        PAGE.format(
            intro=f"The portals have {of} datasets, each with three resources.",
            rounds=f"{told} rounds" if rounds != [1] else "one round",
            machine="\n\n".join(machines(results)),
        )
    ]
    for name, rows in grown.items():
        about = inspect.getdoc(FIGURES[name]) or ""
        image = (
            f".. image:: figures/{name}.svg\n   :alt: Chart of {name}: ours, the peer's"
        )
        parts += [
            f"{name}\n{'-' * len(name)}\n",
            about.replace("`", "``") + "\n",
            *([f"Measured once: {ONCE[name]}.\n"] if name in ONCE else []),
            f"{image} and the floor; the table has the numbers.\n",
            table(rows),
        ]
    return "\n".join(parts)


def machines(results: Sequence[Result]) -> list[str]:
    """A paragraph for each machine, and one about others who were at work."""
    told: dict[str, list[str]] = {}
    for result in results:
        about = result.machine
        versions = ", ".join(f"{n} {v}" for n, v in about["versions"].items())
        wait = "waits" if about["fsync"] == "on" else "does not wait"
        words = (
            f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB of"
            f" memory, {about['disk']}; PostgreSQL {wait} for the disk. {versions}."
        )
        told.setdefault(words, []).append(result.date[:10])
    found = []
    for words, dates in told.items():
        first, last = min(dates), max(dates)
        when = f"On {first}" if first == last else f"From {first} to {last}"
        found.append(f"{when}: {words}")
    if busy := sum(1 for result in results if result.busy):
        found.append(f"{BUSY} when {busy} of {len(results)} results were measured.")
    return found


def table(rows: dict[str, Growth]) -> str:
    lines = [
        [what, f"{size:,}", amount(row.ours, row.unit), peer(row), ratio(row),
         amount(row.floor, row.unit), target(row)]
        for what, sizes in rows.items()
        for size, row in sorted(sizes.items())
    ]  # fmt: skip
    heads = ["What", "Datasets", "Ours", "Peer", "Ratio", "Floor", "Target"]
    return listed(heads, lines)


def listed(heads: list[str], lines: list[list[str]]) -> str:
    """A table of reStructuredText."""
    text = ".. list-table::\n   :header-rows: 1\n\n"
    for cells in (heads, *lines):
        marks = ("   * - ", *["     - "] * (len(cells) - 1))
        text += "".join(
            f"{mark}{cell}".rstrip() + "\n"
            for mark, cell in zip(marks, cells, strict=True)
        )
    return text


def main(grown: dict[str, dict[str, Growth]]) -> tuple[int, list[tuple[str, str, Row]]]:
    """The size of the README's figures, and these: what it is, the peer, the row."""
    every = {size for rows in grown.values() for each in rows.values() for size in each}
    size, found = middle(every), []
    for figure, name, what, against in MAIN:
        if row := grown.get(figure, {}).get(name, {}).get(size):
            found.append((what, against, row))
    return size, found


def summary(results: Iterable[Result], grown: dict[str, dict[str, Growth]]) -> str:
    """The chart and the table of the README."""
    size, found = main(grown)
    if not found:
        return "\nNone of these figures is measured yet.\n"
    lines = [
        [what, amount(row.ours, row.unit), f"{peer(row)}: {against}", ratio(row)]
        for what, against, row in found
    ]
    busy = f" {BUSY} meanwhile." if any(each.busy for each in results) else ""
    return f"""
A portal of {size:,} datasets; ours and the peer took turns on one machine. All figures, at other
sizes too, and the machine: `Figures <docs/figures.rst>`_.{busy}

.. image:: docs/figures/overview.svg
   :alt: Chart of these figures, ours beside the peer's; the table has the numbers.

{listed(["Figure", "Ours", "Peer", "Ratio"], lines)}
"""


# ------------------------------------------------------------------------ charts


def chart(name: str, rows: dict[str, Growth], path: Path) -> None:
    """A panel for each row: lines over the sizes, bars where that cannot be."""
    columns = min(len(rows), 2)
    deep = -(-len(rows) // columns)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(4 * columns, 0.4 + 2.2 * deep), layout="constrained")
        panels = figure.subplots(deep, columns, squeeze=False).flatten()
        for panel in panels[len(rows) :]:
            panel.remove()
        for panel, (what, sizes) in zip(panels, rows.items(), strict=False):
            unit = next(iter(sizes.values())).unit
            panel.set_title(f"{what} ({unit})" if unit else what, loc="left")
            values = [v for row in sizes.values() for v in (row.ours, row.peer)]
            if len(sizes) > 1 and min(values) > 0:
                lines(panel, sizes)
            else:
                bars(panel, sizes)
        legend(figure, rows.values())
        save(figure, path, f"{name}: ours, the peer's, the floor")


def legend(figure: Figure, rows: Iterable[Growth]) -> None:
    floors = [r for sizes in rows for r in sizes.values() if r.floor is not None]
    figure.legend(
        handles=[
            Line2D([], [], label=key, markersize=5, **style)
            for key, style in SERIES.items()
            if key != "floor" or floors
        ],
        loc="outside upper left", ncols=3, frameon=False,
    )  # fmt: skip


def lines(panel: Axes, sizes: Growth) -> None:
    """Both axes are logarithmic: a straight rise by ten to ten is growth in step."""
    for key, style in SERIES.items():
        points = [
            (size, value)
            for size, row in sorted(sizes.items())
            if (value := getattr(row, key))
        ]
        if not points:
            continue
        panel.plot(*zip(*points, strict=True), markersize=4, linewidth=1.3, **style)
        for size, value in points if key != "floor" else []:
            row = sizes[size]
            above = value > (row.peer if key == "ours" else row.ours)
            panel.annotate(
                number(value), (size, value), (0, 5 if above else -11), fontsize=7,
                textcoords="offset points", ha="center", color=style["color"],
            )  # fmt: skip
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.margins(0.15, 0.3)
    panel.set_xticks(sorted(sizes), [f"{size:,}" for size in sorted(sizes)])
    panel.set_xlabel("datasets")
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda value, _: number(value))
    panel.grid(axis="y", linewidth=0.5)


def bars(panel: Axes, sizes: Growth) -> None:
    drawn = [
        (f"{size:,}", key, value)
        for size, row in sorted(sizes.items())
        for key in SERIES
        if (value := getattr(row, key)) is not None
    ]
    names = [key if len(sizes) == 1 else f"{size}, {key}" for size, key, _ in drawn]
    found = panel.barh(
        range(len(drawn)), [value for *_, value in drawn],
        color=[SERIES[key]["color"] for _, key, _ in drawn],
    )  # fmt: skip
    panel.bar_label(
        found, [number(value) for *_, value in drawn], padding=3, fontsize=7
    )
    panel.set_yticks(range(len(drawn)), names)
    panel.set_xticks([])
    panel.invert_yaxis()
    panel.margins(x=0.2)


def overview(grown: dict[str, dict[str, Growth]], path: Path) -> None:
    """The README's figures that are times: ours and the peer's on one line each."""
    size, found = main(grown)
    shown = [each for each in found if each[2].unit == "s"]
    ours, peers = SERIES["ours"], SERIES["peer"]
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8, 0.8 + 0.36 * len(shown)), layout="constrained")
        panel = figure.subplots()
        for place, (_, _, row) in enumerate(shown):
            panel.plot([row.ours, row.peer], [place] * 2, color=GRID, zorder=1)
            for value, other, style in (
                (row.ours, row.peer, ours), (row.peer, row.ours, peers)
            ):  # fmt: skip
                panel.plot(value, place, markersize=6, **style)
                right = value >= other
                panel.annotate(
                    number(value), (value, place), (7 if right else -7, -3),
                    textcoords="offset points", ha="left" if right else "right",
                    color=style["color"],
                )  # fmt: skip
        panel.set_yticks(
            range(len(shown)),
            [f"{what}\nagainst {against}" for what, against, _ in shown],
        )
        panel.set_xscale("log")
        panel.set_xlabel(
            f"seconds; each line is ten times the one before; {size:,} datasets"
        )
        panel.minorticks_off()
        panel.xaxis.set_major_formatter(lambda value, _: number(value))
        panel.margins(0.12, 0.08)
        panel.grid(axis="x", linewidth=0.5)
        panel.invert_yaxis()
        legend(figure, ())
        save(figure, path, f"Ours and the peer's, {size:,} datasets")


def save(figure: Figure, path: Path, title: str) -> None:
    """Writes a small file, the same one each time."""
    figure.savefig(
        path, format="svg", metadata={"Title": title, "Date": None, "Creator": None}
    )
    text = path.read_text("utf-8")
    text = text[text.index("<svg") :].replace("<svg ", '<svg role="img" ', 1)
    text = re.sub(
        r"(?s) *<metadata>.*</metadata>\n",
        f" <style>@media (prefers-color-scheme: dark){{{STYLE}}}</style>\n",
        text,
        count=1,
    )
    # a hundredth of a point is enough; what is in quotes is no label
    text = re.sub(
        r'"[^"<>]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text
    )
    path.write_text(re.sub(r"(?m) +$", "", text), "utf-8")
