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
from contextlib import suppress
from typing import Any

from . import forked
from .portal import Portal

#: what moves the cursor, colours, and hides: none of it may be in a pipe
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Seen:
    """What a command wrote, and how it ended."""

    def __init__(self, written: bytes, code: int) -> None:
        self.written, self.code = written, code

    @property
    def text(self) -> str:
        """All that was written. Raises UnicodeDecodeError for what is no text."""
        return self.written.decode()

    @property
    def lines(self) -> list[str]:
        """What stood on a line of the terminal at any time, without colours."""
        plain = ESCAPES.sub("", self.text).replace("\r\n", "\n")
        return [line.rstrip() for line in re.split(r"[\n\r]", plain)]


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
            elif written and not written.endswith(b"\n"):
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


def seen(portal: Portal, where: str, *words: str) -> Seen:
    """`ckan db …` at `80` columns; `python -m …`, which starts sooner, at `40` or `200`
    columns, in a `pipe`, with LANG=`C`, or from `cron`, which hands on next to nothing.
    """
    known: dict[str, Any] = dict(portal.environment)
    module = [sys.executable, "-m", forked.MODULE, "-c", str(portal.ini), *words]
    if where.isdigit():
        ckan = [forked.CKAN, "-c", str(portal.ini), "db", *words]
        return on_terminal(ckan if where == "80" else module, int(where), known)
    if where == "pipe":
        return in_a_pipe(module, known)
    if where == "C":
        return in_a_pipe(module, known | {"LANG": "C", "LC_ALL": "C"})
    bare = {"HOME": "/", "LOGNAME": "x", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    return in_a_pipe(module, bare)
