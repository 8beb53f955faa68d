"""The manual's blocks: what they hold, and how they are run."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ckanext.dbmanage

from . import forked
from .cluster import BIN, PG_BIN
from .portal import Portal

ROOT = Path(ckanext.dbmanage.__file__).parent.parent.parent
DOCS = ROOT / "docs"


# ------------------------------------------------------------------- what is shown


_HEAD = re.compile(r"( *)(?:\.\. code-block:: (\w+)|(?!\.\.).*::)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The literal blocks of a page: the language, empty when none is said; the text."""
    lines, found = page.read_text().splitlines(), []
    for number, line in enumerate(lines):
        head = _HEAD.fullmatch(line)
        first = "".join(lines[number + 2 : number + 3])
        inside = len(first) - len(first.lstrip())
        if not head or lines[number + 1] or inside <= len(head[1]):
            continue
        # what stands less far in, as in a list, is no part of it
        text = itertools.takewhile(
            lambda each, inside=inside: not each[:inside].strip(), lines[number + 2 :]
        )
        found.append((head[2] or "", textwrap.dedent("\n".join(text)).strip("\n")))
    return found


def commands(page: str, language: str = "sh") -> list[str]:
    """The blocks of shell commands, or of another language, of a page."""
    found = [text + "\n" for said, text in blocks(DOCS / page) if said == language]
    assert found
    return found


#: what is written out of the code, and shows all that there is
_LISTS = ("commands.rst", "messages.rst")


def pages() -> list[Path]:
    """What people write by hand and others paste from: the manual, the README."""
    return [
        ROOT / "README.rst",
        *(page for page in sorted(DOCS.glob("*.rst")) if page.name not in _LISTS),
    ]


_SHOWN = re.compile(
    r"(?:\bckan(?: -c \S+)? db|python -m ckanext\.dbmanage(?: -c \S+)?) +([^|&;#>\n]+)"
)


def shown_in(text: str) -> list[list[str]]:
    """The commands of this extension in a text, each the words after `ckan db`."""
    found = _SHOWN.findall(text.replace("\\\n", " "))
    # the end of what a shell is given in quotes
    return [shlex.split(s.rstrip("'") if s.count("'") % 2 else s) for s in found]


def shown() -> list[list[str]]:
    """The commands in the blocks of all pages: the words after `ckan db`.

    Or after `python -m ckanext.dbmanage -c …`. The list of all commands with their help
    is no part of it.
    """
    return [
        words
        for page in pages()
        for language, text in blocks(page)
        if language != "python"
        for words in shown_in(text)
    ]


# -------------------------------------------------------------------- how it is run

#: stands in the place of `ckan` and `python`: has the tests fork the command
_ASK = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
    asked.connect({address!r})
    request = [{command!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]
    socket.send_fds(asked, [json.dumps(request).encode()], [0, 1, 2])
    sys.exit(int(asked.recv(10)))
"""


def _serve(listening: socket.socket) -> None:
    def answer(asked: socket.socket) -> None:
        with asked:
            request, files, _, _ = socket.recv_fds(asked, 1 << 20, 3)
            command, directory, environment = json.loads(request)
            with forked.start(
                command, cwd=directory, env=environment,
                stdin=files[0], stdout=files[1], stderr=files[2],
            ) as process:  # fmt: skip
                for file in files:  # or whoever reads from it waits for us
                    os.close(file)
            with suppress(OSError):  # the one that asked was killed
                asked.send(str(process.returncode % 256).encode())

    with suppress(OSError):  # closed: the block has ended
        while True:
            threading.Thread(target=answer, args=(listening.accept()[0],)).start()


@contextmanager
def _programs() -> Iterator[str]:
    """A PATH on which `ckan` and `python` need no second to start."""
    with tempfile.TemporaryDirectory() as place, socket.socket(
        socket.AF_UNIX, socket.SOCK_SEQPACKET
    ) as listening:  # fmt: skip
        address = f"{place}/asked"
        listening.bind(address)
        listening.listen()
        threading.Thread(target=_serve, args=(listening,), daemon=True).start()
        for name, command in (("ckan", forked.CKAN), ("python", sys.executable)):
            path = Path(place, name)
            path.write_text(
                _ASK.format(python=sys.executable, address=address, command=[command])
            )
            path.chmod(0o700)
        yield f"{place}:{BIN}:{PG_BIN}:{os.environ['PATH']}"
        listening.shutdown(socket.SHUT_RDWR)


def run(portal: Portal, script: str, **variables: str) -> str:
    """Runs a block in a shell as the manual says to open it; what it prints."""
    environment = portal.environment | {"CKAN_INI": str(portal.ini)} | variables
    with _programs() as environment["PATH"]:
        done = subprocess.run(
            ["sh", "-eu", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout
