"""restic, the program that carries backups elsewhere: how it runs, and what it says.

It knows every kind of place, encrypts, checks and resumes. Its exit codes say little
before version 0.17, so its words are looked at too. What it says may hold an address
with a password: no word of it is told unmasked. Must not know what a backup is.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ..disk import create_file, own_directory
from ..errors import ACCOUNT, DbmanageError, Refused, ToolFailed
from ..postgres.programs import running
from ..printable import one_line
from ..words import size

OLDEST = (0, 14)
#: seconds within which a place must answer its first question: restic itself waits for
#: a quarter of an hour, or for ever
ANSWER = 25
#: seconds without a new byte after which it is ended, and then until it is killed
SILENCE, END = 300, 75
#: bytes through the process that are more than its own talk within that time
_MOVED = 1 << 18
#: letters of restic's words that are told, bytes of a line of them
_WORDS, _MAX_LINE = 400, 1 << 20
#: variables of the process that restic and what it calls read, and those of them that
#: are no secrets
_PLAIN = r"HOME|PATH|SSH_AUTH_SOCK|XDG_CONFIG_HOME|SSL_CERT_(FILE|DIR)"
_OWN = re.compile(
    rf"(RESTIC|AWS|B2|AZURE|GOOGLE|OS|ST|RCLONE)_\w+|{_PLAIN}|(HTTPS?|NO)_PROXY"
    r"|(https?|no)_proxy"
)
#: what a place says that lets nobody delete
_KEPT = re.compile(r"Remove\(<snapshot/[^\n]*(?:\b40[135]\b|Access ?Denied)")
#: what no second try mends, of which restic makes many
_HOPELESS = re.compile(
    r"retrying after[^\n]*(?:read-only file system|permission denied|no space left"
    r"|no such file|\b40[34]\b|Access ?Denied)",
    re.IGNORECASE,
)
#: what the place has lost of its data
_LOST = re.compile(
    r"<data/[^\n]*(?:no such file|\b404\b|NotFound|NoSuchKey)", re.IGNORECASE
)
_ABSENT = re.compile(
    r"does not exist|no such file|not found|NotFound|NoSuchKey|\b404\b", re.IGNORECASE
)


class NoRepository(Refused):
    """There is no repository of restic's at the address."""


class Locked(Refused):
    """Somebody, or a dead host, holds a lock there."""


class Kept(DbmanageError):
    """The place lets nobody delete: it appends only."""


class Broken(ToolFailed):
    """restic's own check found what is wrong there."""


class Incomplete(ToolFailed):
    """Something could not be read, and restic has made a snapshot without it."""


@dataclass(frozen=True)
class Place:
    """Where restic keeps a repository, and how it is opened.

    `address` is restic's own way to write it; where it is empty, `environment` has
    restic's variables, which `env_file` holds for a shell. `limit_upload` are KiB a
    second, 0 for no limit.
    """

    address: str = field(repr=False, default="")
    password_file: str = ""
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)
    env_file: str = ""
    limit_upload: int = 0

    @property
    def shown(self) -> str:
        """The address for people, without a password."""
        said = self.address or self.environment.get("RESTIC_REPOSITORY", "")
        file = self.environment.get("RESTIC_REPOSITORY_FILE", "")
        return one_line(ACCOUNT.sub("…@", said)) or f"what {one_line(file)} names"

    def by_hand(self, *arguments: str) -> str:
        """The command that a person can paste for the same place, without a secret."""
        words = ["restic"]
        if self.address and not ACCOUNT.search(self.address):
            words += ["-r", self.address]
        if self.password_file:
            words += ["--password-file", self.password_file]
        command = shlex.join([*words, *arguments])
        if not self.env_file:
            return command
        return f"(set -a; . {shlex.quote(self.env_file)}; {command})"


def own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Those that restic and its back ends read."""
    return {k: v for k, v in environment.items() if _OWN.fullmatch(k)}


@contextmanager
def at(place: Place, cache: Path | None = None) -> Iterator["Restic"]:
    """restic with a private directory, gone afterwards; the `cache` stays.

    Raises Refused where restic is missing or too old.
    """
    with tempfile.TemporaryDirectory(prefix="dbmanage-") as directory:
        if cache is not None:
            own_directory(cache)
        yield Restic(place, Path(directory), cache)


class Restic:
    """restic at work with one repository; `directory` is a private one."""

    def __init__(self, place: Place, directory: Path, cache: Path | None) -> None:
        self.place = place
        own = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            **place.environment,
            "TZ": "UTC",
            "LC_ALL": "C",
            "TMPDIR": str(directory),
            "RESTIC_CACHE_DIR": str(cache or directory / "cache"),
            "RESTIC_PROGRESS_FPS": "1",
        }
        if place.address:
            with create_file(directory / "address") as file:
                file.write(place.address.encode() + b"\n")
            own["RESTIC_REPOSITORY_FILE"] = str(directory / "address")
            own.pop("RESTIC_REPOSITORY", None)
        if place.password_file:
            own["RESTIC_PASSWORD_FILE"] = place.password_file
            own.pop("RESTIC_PASSWORD", None)
            own.pop("RESTIC_PASSWORD_COMMAND", None)
        self._environment = own
        self._program = shutil.which("restic", path=own["PATH"]) or ""
        if not self._program:
            raise Refused("restic is not installed here: `apt-get install restic`")
        self.version = self._version()

    def _version(self) -> tuple[int, ...]:
        said: list[str] = []
        self._run(["version"], said.append, ANSWER)
        found = re.match(r"restic (\d+)\.(\d+)", "".join(said))
        version = tuple(map(int, found.groups())) if found else ()
        if version < OLDEST:
            known = ".".join(map(str, version)) or "of no known version"
            raise Refused(
                f"{self._program} is restic {known}: "
                f"install restic {'.'.join(map(str, OLDEST))} or newer"
            )
        return version

    def opened(self) -> str:
        """The id of the repository, once the place has answered and let us in.

        Raises Refused, NoRepository, ToolFailed: within half a minute.
        """
        said: list[str] = []
        self._run(["--no-lock", "cat", "config"], said.append, ANSWER)
        about = _message("".join(said))
        return str(about.get("id", "")) if isinstance(about, dict) else ""

    def read(self, snapshot: str, name: str, most: int = 1 << 26) -> bytes:
        """A file of a snapshot, of at most so many bytes. Raises as `run`."""
        found = bytearray()

        def line(text: str) -> None:
            found.extend(text.encode())
            if len(found) > most:
                raise ToolFailed(f"{name} of a snapshot is larger than {size(most)}")

        self._run(["--no-lock", "dump", snapshot, f"/{name}"], line)
        return bytes(found)

    def run(
        self,
        *arguments: str,
        cwd: Path | None = None,
        told: Callable[[dict[str, Any]], None] = lambda _: None,
        each: Callable[[dict[str, Any]], None] | None = None,
        stop: Callable[[], str] = str,
    ) -> list[dict[str, Any]]:
        """Runs a command; its messages, but for those of progress, which `told` hears.

        With `each` they are handed to it and not kept: there may be millions. `stop`
        says why it is to be ended, once it is. A lock of a dead process of this host is
        taken away. Raises Refused, Locked, Kept, ToolFailed.
        """
        found: list[dict[str, Any]] = []
        take = each or found.append

        def line(text: str) -> None:
            message = _message(text)
            for one in message if isinstance(message, list) else [message]:
                if isinstance(one, dict):
                    status = one.get("message_type") == "status"
                    (told if status else take)(one)

        # what prints no progress as JSON shows by its lines that it lives
        plain = arguments[0] in ("check", "prune", "unlock")
        command = [*([] if plain else ["--json"]), *arguments]
        try:
            self._run(command, line, cwd=cwd, stop=stop)
        except Locked:
            self._run(["unlock"], lambda _: None)
            self._run(command, line, cwd=cwd, stop=stop)
        return found

    def _run(
        self,
        arguments: Sequence[str],
        line: Callable[[str], None],
        answer: int = 0,
        cwd: Path | None = None,
        stop: Callable[[], str] = str,
    ) -> None:
        """Ends it after `answer` seconds, or without these when nothing moves."""
        limit, options = self.place.limit_upload, []
        if limit:
            options = ["--limit-upload", str(limit)]
        command = [self._program, *options, *arguments]
        verb = next(word for word in arguments if word[0] != "-")
        with running(
            command, self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, cwd=cwd, start_new_session=True,
        ) as started:  # fmt: skip
            process: Any = started
            watch = _Watch(process, answer, stop)
            try:
                with watch:
                    while raw := process.stdout.readline(_MAX_LINE):
                        if not raw.endswith(b"\n") and len(raw) == _MAX_LINE:
                            raise ToolFailed(f"restic {verb} wrote an endless line")
                        text = raw.decode("utf-8", "replace")
                        watch.heard(text)
                        line(text)
                    code = process.wait()
            finally:
                _end(process, 10)
            process.listener.join()
            words = bytes(process.heard).decode("utf-8", "replace")
        if watch.stopped:
            raise Refused(watch.stopped)
        if watch.gave_up:
            raise ToolFailed(
                f"the other place does not answer: restic {verb} got nowhere for "
                f"{watch.gave_up} seconds and was ended. Is {self.place.shown} to be "
                f"reached from this machine? {self.masked(words)}".strip()
            )
        # 0.18 takes what may not be deleted for done
        if code or watch.hopeless or _KEPT.search(words):
            raise self._failure(verb, code, words)

    def _failure(self, verb: str, code: int, words: str) -> DbmanageError:
        said = self.masked(words)
        if "wrong password or no key found" in words:
            where = self.place.password_file or "RESTIC_PASSWORD"
            return Refused(
                "the password does not open the repository at the other place: "
                f"{where} holds another one"
            )
        absent = "Is there a repository at the following" in words
        if code == 10 or (absent and _ABSENT.search(words.split("Is there")[0])):
            return NoRepository(
                f"there is no repository of restic's at {self.place.shown}"
            )
        if found := re.search(r"already locked[^\n]*? by (PID [^\n]+)", words):
            holder = self.masked(found[1]).split(" (UID")[0]
            free = self.place.by_hand("unlock", "--remove-all")
            return Locked(
                f"the repository at the other place is locked by {holder}. Wait for "
                f"its end; if that process is gone, this frees it: `{free}`"
            )
        if _KEPT.search(words):
            return Kept(f"the other place lets nobody delete: {said}")
        # the first is told last, after all that is wrong; on the second it tries on
        if verb == "check" and ("contains errors" in words or _LOST.search(words)):
            return Broken(f"restic {verb} failed: {said}")
        if verb == "backup" and code == 3:
            return Incomplete(f"restic could not read all: {said}")
        return ToolFailed(f"restic {verb} failed: {said or f'exit code {code}'}")

    def masked(self, words: str) -> str:
        """Words of restic's without what is secret, on one line."""
        environment = self.place.environment.items()
        hidden = [v for k, v in environment if not re.fullmatch(_PLAIN, k)]
        for secret in sorted((s for s in hidden if len(s) > 3), key=len, reverse=True):
            words = words.replace(secret, "…")
        words = ACCOUNT.sub("…@", words.replace(self.place.address or "\0", "…"))
        lines = dict.fromkeys(filter(None, map(_told, words.splitlines())))
        return one_line("; ".join(lines))[:_WORDS]


def _told(line: str) -> str:
    """What a line of stderr tells people: no part of a stack, no JSON."""
    if line.startswith("{"):
        message = _message(line)
        return str(message.get("message", "")) if isinstance(message, dict) else ""
    if line.startswith(("\t", "goroutine ")) or re.match(r"(\w+\.)?[\w./*()]+$", line):
        return ""
    return re.sub(r", retrying after [\d.µm]+s", "", line.strip())


def _message(line: str) -> Any:
    try:
        return orjson.loads(line)
    except ValueError:  # some commands mix text in
        with suppress(ValueError, RecursionError):
            return json.loads(line)
    return None


def _end(process: Any, seconds: float) -> None:
    """Ends a program and what it has started, rclone or ssh, which hold its pipes.

    Asked before it is killed, it takes its locks away; 0.14 hears SIGINT alone.
    """
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


class _Watch:
    """Ends a program that says nothing, or nothing new, for too long."""

    def __init__(self, process: Any, answer: int, stop: Callable[[], str]) -> None:
        self._process, self._answer, self._stop = process, answer, stop
        self._begun = self._moved = time.monotonic()
        self._done = threading.Event()
        self._last: Any = None
        self._bytes = 0
        #: the seconds after which it was ended; 0 when it was not
        self.gave_up = 0
        #: why the caller wanted it to end; empty when not
        self.stopped = ""
        #: whether it was ended because it went on trying what cannot be done
        self.hopeless = False

    def heard(self, line: str) -> None:
        """To be told of each line; one of progress counts when it tells of some."""
        said: Any = re.sub(r"\[[\d:]+\]", "", line)
        if line.startswith("{") and '"status"' in line[:40]:
            message = _message(line) or {}
            said = message.get("bytes_done"), message.get("files_done")
        if said != self._last:
            self._last, self._moved = said, time.monotonic()

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        most = self._answer or SILENCE
        while not self._done.wait(0.5):
            if (moved := self._through()) > self._bytes + _MOVED:
                self._bytes, self._moved = moved, time.monotonic()
            since = self._begun if self._answer else self._moved
            if _HOPELESS.search(bytes(self._process.heard[-4096:]).decode("latin-1")):
                self.hopeless = True
            elif stopped := self._stop():
                self.stopped = stopped
            elif time.monotonic() - since > most:
                self.gave_up = most
            else:
                continue
            _end(self._process, 2 if self._answer else END)
            return

    def _through(self) -> int:
        """The bytes that went through the process, 0 where the system does not tell."""
        with suppress(OSError, ValueError):
            text = Path(f"/proc/{self._process.pid}/io").read_text()
            return sum(map(int, re.findall(r"[rw]char: (\d+)", text)))
        return 0
