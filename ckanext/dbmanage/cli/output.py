"""What the commands write, and where: the one place that prints.

What a person is told while a command runs goes to stderr, and only if they want it;
results to stdout. Nothing is printed that is not printable, for names and messages are
what others wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from ..engine import printable
from ..engine.printable import one_line


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
