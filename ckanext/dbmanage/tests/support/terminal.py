"""Commands as somebody sees them: on a terminal of a width, in a pipe, from cron."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import forked
from .portal import Portal

#: what moves the cursor, colours, and hides: none of it may be in a pipe
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

#: how what waits for an answer ends
QUESTIONS = (b"[y/N]: ", b"to go on: ", b"all the same: ")


class Seen:
    """What a command wrote, and how it ended."""

    def __init__(self, written: bytes, code: int) -> None:
        self.written, self.code = written, code

    @property
    def text(self) -> str:
        """All that was written. Raises UnicodeDecodeError for what is no text."""
        return self.written.decode()

    @property
    def plain(self) -> str:
        """The same as lines, without colours."""
        return ESCAPES.sub("", self.text).replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        """What stood on a line of the terminal at any time."""
        return [line.rstrip() for line in re.split(r"[\n\r]", self.plain)]

    @property
    def screen(self) -> list[str]:
        """What stands there in the end: a line drawn anew covers what was there."""
        screen = []
        for line in self.plain.split("\n"):
            shown = ""
            for drawn in line.split("\r"):
                shown = drawn + shown[len(drawn) :]
            screen.append(shown.rstrip())
        return screen


def on_terminal(command: list[str], columns: int, env: dict[str, str]) -> Seen:
    """A command on a terminal of its own, where somebody says no to each question."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with suppress(KeyError):
        del env["COLUMNS"]
    process = forked.start(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env=env | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    written = b""
    with suppress(OSError):  # EIO: nobody has it open any more
        while True:
            if select.select([master], [], [], 1)[0]:
                written += os.read(master, 1 << 16)
            elif written.endswith(QUESTIONS):
                os.write(master, b"n\r")
    os.close(master)
    return Seen(written, process.wait())


def in_a_pipe(command: list[str], env: dict[str, str]) -> Seen:
    """A command whose output goes to another program, with nobody to ask."""
    with forked.start(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=env,
    ) as process:  # fmt: skip
        return Seen(process.communicate()[0], process.returncode)


def environment(portal: Portal, where: str) -> dict[str, str]:
    """What a command finds there; cron hands on next to nothing."""
    if where == "cron":
        known = {"HOME": "/", "LOGNAME": "x", "PATH": "/usr/bin:/bin"}
        return known | {"SHELL": "/bin/sh"}
    return portal.environment | ({"LANG": "C", "LC_ALL": "C"} if where == "C" else {})


@contextmanager
def place(portal: Portal, where: str) -> Iterator[None]:
    """Lets commands be forked in an environment that begins otherwise."""
    if where not in ("C", "cron"):
        yield
        return
    forked.serve(portal.ini, environment(portal, where))
    try:
        yield
    finally:
        forked.stop()


def seen(portal: Portal, where: str, *words: str, ckan: bool = False) -> Seen:
    """A command at `40`, `80` or `200` columns, in a `pipe`, with LANG=`C`, from `cron`.

    As `python -m …`, which starts sooner, or as `ckan db …`.
    """
    command = [sys.executable, "-m", forked.MODULE, "-c", str(portal.ini), *words]
    if ckan:
        command = [forked.CKAN, "-c", str(portal.ini), "db", *words]
    known = environment(portal, where)
    if where.isdigit():
        return on_terminal(command, int(where), known)
    return in_a_pipe(command, known)
