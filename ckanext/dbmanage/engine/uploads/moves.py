"""The switch of uploads: folders are renamed in, and back."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..disk import create_directory, is_partial, sync_directory, write_file
from ..errors import Refused
from .folders import OURS, TOKEN, Folder
from .listing import safe


@dataclass(frozen=True)
class Move:
    """One folder's change of place: `old` entries go away, `new` ones come.

    `scratch` and `undo` are names of directories in `path`, which carry the token of
    the journal while they are there.
    """

    path: str
    prefix: str
    scratch: str
    undo: str
    token: str
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


def sound(move: Move, among: Mapping[str, Folder]) -> bool:
    """Whether a move of the journal is one of these folders, by plain names only."""
    return (
        move.path in among
        and bool(OURS.fullmatch(move.scratch) and OURS.fullmatch(move.undo))
        and all(safe(name) and "/" not in name for name in (*move.old, *move.new))
    )


def moves_of(among: list[Folder], name: str, token: str) -> list[Move]:
    """What a restore makes in each folder; `name` is the operation's 8 hex digits."""
    names = f".dbm_{name}_scratch", f".dbm_{name}_undo"
    return [Move(str(f.path), f.prefix, *names, token) for f in among]


def make_folder(path: Path, token: str) -> Path:
    """A directory of ours, which carries the token. Raises Refused."""
    with suppress(FileExistsError):
        create_directory(path)
    # one that a kill left without its token is empty, or has a part of the token
    if not path.is_symlink() and all(
        name == TOKEN or is_partial(name, TOKEN) for name in os.listdir(path)
    ):
        write_file(path / TOKEN, token.encode())
    if not is_ours(path, token):
        raise Refused(f"{path} is not ours: somebody else has made it; remove it")
    return path


def is_ours(path: Path, token: str) -> bool:
    """Whether a directory was made by us and carries the journal's token."""
    if not OURS.fullmatch(path.name) or path.is_symlink():
        return False
    with suppress(OSError):
        return (path / TOKEN).read_text() == token
    return False


def discard(path: Path, token: str) -> bool:
    """Removes a directory that is provably ours; says whether it is gone.

    The token goes last, so that a removal that was cut short can go on.
    """
    if not path.exists():
        return True
    if not is_ours(path, token):
        # what a kill left before its token was written
        with suppress(OSError):
            if OURS.fullmatch(path.name) and not path.is_symlink():
                path.rmdir()
                return True
        return False
    for entry in path.iterdir():
        if entry.name != TOKEN:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    (path / TOKEN).unlink()
    path.rmdir()
    return True


def planned_move(move: Move, folder: Folder) -> Move:
    """The move with the names that are there now."""
    live = Path(move.path)
    new = [n for n in os.listdir(live / move.scratch) if n != TOKEN]
    # a link that is in the way goes with the rest, for an undo to bring it back
    links = [name for name in new if (live / name).is_symlink()]
    return replace(move, old=sorted([*folder.names(), *links]), new=sorted(new))


def began(move: Move) -> bool:
    """Whether anything of the move was done."""
    return (Path(move.path) / move.undo).exists()


def forward(move: Move) -> None:
    """Puts the new entries in the old ones' place; what is done already stays done."""
    live = Path(move.path)
    scratch = live / move.scratch
    undo = make_folder(live / move.undo, move.token)
    new = set(move.new)
    for name in move.old:
        if not _exists(undo / name) and (name not in new or _exists(scratch / name)):
            (live / name).rename(undo / name)
    for name in move.new:
        if _exists(scratch / name):
            _aside(live / name)
            (scratch / name).rename(live / name)
    _synced(live, scratch, undo)
    discard(scratch, move.token)


def back(move: Move) -> None:
    """The reverse of `forward`, from wherever it had come to."""
    live = Path(move.path)
    scratch = make_folder(live / move.scratch, move.token)
    undo = live / move.undo
    for name in move.new:
        if not _exists(scratch / name) and _exists(live / name):
            (live / name).rename(scratch / name)
    for name in move.old:
        if _exists(undo / name):
            _aside(live / name)
            (undo / name).rename(live / name)
    _synced(live, scratch, undo)
    if undo.exists():
        discard(undo, move.token)


def _aside(path: Path) -> None:
    """Makes room for a rename, where the site has made an entry anew after a kill."""
    number = 1
    while _exists(path):
        other = path.with_name(f"{path.name}.aside-{number}")
        if not _exists(other):
            path.rename(other)
        number += 1


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _synced(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            sync_directory(path)
