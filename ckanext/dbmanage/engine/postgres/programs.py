"""PostgreSQL's client programs: which of those installed, and running them."""

import functools
import glob
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ..errors import Refused, ToolFailed
from ..report import name_of

#: where Debian, Red Hat, Homebrew and postgres.app put the programs of each version
_BIN_DIRECTORIES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)

#: archive version by the major version of the pg_dump that wrote it (facts: measured)
_ARCHIVE_VERSIONS = {(1, 14): 12, (1, 15): 16, (1, 16): 17}


@dataclass(frozen=True)
class Tools:
    """The directory of one installed version of the client programs."""

    directory: str
    major: int

    def path(self, program: str) -> str:
        """The program's full path."""
        return os.path.join(self.directory, program)


@functools.cache
def installed_tools(pg_bin: str = "") -> tuple[Tools, ...]:
    """Every version of pg_dump with its pg_restore, the newest first.

    With `pg_bin` only what is in that directory.
    """
    directories = (
        [pg_bin]
        if pg_bin
        else [
            *(d for pattern in _BIN_DIRECTORIES for d in glob.glob(pattern)),
            *filter(None, [os.path.dirname(shutil.which("pg_dump") or "")]),
        ]
    )
    found = []
    for directory in dict.fromkeys(directories):
        version = _program_version(os.path.join(directory, "pg_dump"))
        if version and os.access(os.path.join(directory, "pg_restore"), os.X_OK):
            found.append((version, directory))
    found.sort(reverse=True)
    return tuple(Tools(directory, version[0]) for version, directory in found)


def _program_version(path: str) -> tuple[int, ...] | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(rb"\(PostgreSQL\) (\d+)\.?(\d*)", done.stdout)
    return match and tuple(int(number or 0) for number in match.groups()) or None


def dump_tools(server: int, pg_bin: str = "") -> Tools:
    """The newest pg_dump whose archive this server (its major version) can take back.

    From 17 on pg_restore sends a setting that servers up to 16 do not know, so for
    these the newest up to 16 is best; a newer one only when there is no other.
    Raises Refused: what to install.
    """
    tools = installed_tools(pg_bin)
    serving = [t for t in tools if t.major >= server]
    matching = [t for t in serving if server > 16 or t.major <= 16]
    if matching or serving:
        return (matching or serving)[0]
    raise Refused(
        _no_tools("pg_dump", tools, f"cannot dump PostgreSQL {server}", server)
    )


def restore_tools(archive: tuple[int, int], server: int, pg_bin: str = "") -> Tools:
    """The newest pg_restore that reads this archive version and suits the server.

    Raises Refused: what to install, or that the archive cannot be restored here.
    """
    tools = installed_tools(pg_bin)
    oldest = oldest_reader(archive)
    if server <= 16 < oldest:
        raise Refused(
            f"the archive was written by pg_dump {oldest} or newer (archive version "
            f"{archive[0]}.{archive[1]}) and cannot be restored into a server of "
            f"PostgreSQL {server}: dump it again with a pg_dump of version 16 or "
            f"older, or restore into a server of PostgreSQL {oldest} or newer"
        )
    fitting = [t for t in tools if t.major >= oldest and (server > 16 or t.major <= 16)]
    if fitting:
        return fitting[0]
    if server <= 16 and any(t.major > 16 for t in tools):
        what = f"cannot restore into PostgreSQL {server}, which lacks its settings"
    else:
        what = f"cannot read an archive of version {archive[0]}.{archive[1]}"
    wanted = max(oldest, min(server, 16) if server <= 16 else oldest)
    raise Refused(_no_tools("pg_restore", tools, what, wanted))


def reading_tools(archive: tuple[int, int], pg_bin: str = "") -> Tools:
    """The newest pg_restore that reads this archive version. Raises Refused."""
    tools = installed_tools(pg_bin)
    oldest = oldest_reader(archive)
    if tools and tools[0].major >= oldest:
        return tools[0]
    what = f"cannot read an archive of version {archive[0]}.{archive[1]}"
    raise Refused(_no_tools("pg_restore", tools, what, oldest))


def oldest_reader(archive: tuple[int, int]) -> int:
    """The oldest major version that reads an archive version. Raises Refused."""
    if archive > max(_ARCHIVE_VERSIONS):
        raise Refused(
            f"the archive has version {archive[0]}.{archive[1]}, newer than this "
            "program knows: upgrade it"
        )
    return max((m for v, m in _ARCHIVE_VERSIONS.items() if v <= archive), default=12)


def _no_tools(program: str, tools: Sequence[Tools], what: str, wanted: int) -> str:
    hint = f"install postgresql-client-{wanted} or set {name_of('pg_bin')}"
    if not tools:
        return f"no {program} was found: {hint}"
    return f"{program} {tools[0].major} {what}: {hint}"


_running: set[subprocess.Popen[bytes]] = set()


def end_programs() -> None:
    """Ends all client programs of this process, and so the threads that wait."""
    for process in list(_running):
        process.kill()


@contextmanager
def running(
    arguments: Sequence[str],
    environment: dict[str, str] | None = None,
    *,
    listen: bool = True,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A client program that does not outlive the block, whatever ends it.

    Its stderr is read beside, so that one with much to say does not wait for ever, and
    told by `finish`; without `listen` the caller reads it. Raises ToolFailed when it
    cannot be started.
    """
    try:
        process: Any = subprocess.Popen(
            arguments, env=environment, stderr=subprocess.PIPE, **options
        )
    except OSError as error:
        raise ToolFailed(f"cannot run {arguments[0]}: {error.strerror}") from error
    _running.add(process)
    if listen:
        heard = bytearray()
        listener = threading.Thread(
            target=_hear, args=(process.stderr, heard), daemon=True
        )
        process.heard, process.listener, process.stderr = heard, listener, None
        listener.start()
    try:
        yield process
    finally:
        _running.discard(process)
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


#: bytes of a program's words that are kept, of their begin and of their end
_HEARD = 1 << 20


def _hear(stream: Any, heard: bytearray) -> None:
    with stream:
        while chunk := stream.read1(1 << 16):
            heard += chunk
            if len(heard) > 2 * _HEARD:
                del heard[_HEARD:-_HEARD]


#: of a program's words: lines at their begin and end, letters of a line
_FIRST, _LAST, _WIDE = 8, 4, 400


def finish(process: Any, doing: str) -> str:
    """Waits for a client program; what it said on stderr all the same.

    Raises ToolFailed with what it said of the error.
    """
    process.listener.join()  # it ends with the last of the program's own children
    words, code = bytes(process.heard), process.wait()
    if code == 0:
        return words.decode("utf-8", "replace").strip()
    why = "\n  ".join(_gist(words.decode("utf-8", "replace").splitlines()))
    if code < 0:
        program = os.path.basename(str(process.args[0]))
        why = "\n  ".join(filter(None, [f"{program} was ended by signal {-code}", why]))
    raise ToolFailed(f"{doing} failed: {why or f'exit code {code}'}")


def _gist(lines: list[str]) -> list[str]:
    """The lines from the first error on, cut in the middle.

    What comes first is the reason, what comes after it often only follows from it.
    """
    lines = [line for line in lines if line.strip()]
    # a client program speaks English here, whatever the server speaks: `program`
    begins = re.compile(r"\w+: (?:error|fatal): ")
    first = next((n for n, line in enumerate(lines) if begins.match(line)), 0)
    lines = lines[first:]
    left = len(lines) - _FIRST - _LAST
    if left > 1:
        lines[_FIRST:-_LAST] = [f"… ({left} lines more)"]
    half = _WIDE // 2
    return [
        line if len(line) <= _WIDE else f"{line[:half]} … {line[-half:]}"
        for line in lines
    ]
