"""What is typed for a backup or a file: what it may be, what the shell completes."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..engine.clock import ago, parse_id
from ..engine.offsite.look import remembered
from ..engine.words import size
from ..operations.context import find_site
from .base import portal_of
from .output import Talk

#: of anything but a database
_ADDRESS = re.compile(r"(?!postgres)[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Id(click.ParamType):
    """The id of a backup, or one of these words; the shell completes it.

    Of those that are `here`, and of those that are only at the other place, `there`.
    """

    name = "id"

    def __init__(self, *words: str, here: bool = True, there: bool = False) -> None:
        self._words, self._here, self._there = words, here, there

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found: dict[str, str] = {}
        with suppress(Exception):  # amid a line nobody wants to read why
            found |= self._known(ctx)
        given = ctx.params.get(str(param.name)) if param.nargs == -1 else ()
        return [
            CompletionItem(name, help=about)
            for name, about in found.items()
            if name.startswith(incomplete) and name not in (given or ())
        ]

    def _known(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        """The backups, the newest first, then the words, with what is said of each."""
        _, repository = find_site(portal_of(ctx, Talk(quiet=True)))
        names = repository.names()
        for name in names if self._here else ():
            yield name, f"{ago(parse_id(name))}, {size(repository.backup(name).bytes)}"
        others = remembered(repository).there if self._there else ()
        for name in others:
            if name not in names:
                yield name, f"{ago(parse_id(name))}, at the other place"
        if names or others:
            yield from ((word, "") for word in self._words)


class File(click.Path):
    """The path of a file on this machine; an address is refused."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        _refuse_address(value)
        return super().convert(value, param, ctx)


class Source(Id):
    """A backup as `Id`, or a directory or a file, which has a slash."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        _refuse_address(value)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if "/" in incomplete:
            return [CompletionItem(incomplete, type="file")]
        return super().shell_complete(ctx, param, incomplete)


def _refuse_address(value: str) -> None:
    if _ADDRESS.match(value):  # it is not repeated: there may be a password in it
        raise click.BadParameter(
            "this is an address. Bring the file to this machine, as with "
            "`curl -fLO ADDRESS`, and give its path"
        )
