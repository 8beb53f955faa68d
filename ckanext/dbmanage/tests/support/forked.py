"""Commands without the second that each needs to import CKAN: forked, not started.

`python -m ckanext.dbmanage.tests.support.forked` imports what `ckan` and
`python -m ckanext.dbmanage` import, and forks for each command that it is told of.
From there on all is as after a true start: a process with its own arguments,
environment, directory, standard files and session, which reads its configuration and
ends as Python ends. A program in Python that it starts in its turn is forked as well.
`start` falls back to a true start where this would not be the same, and always when
DBMANAGE_TRUE_STARTS is set.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import json
import os
import pkgutil
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

CKAN, CKANAPI = (
    str(Path(sys.executable).parent / name) for name in ("ckan", "ckanapi")
)
#: the scripts that import CKAN
SCRIPTS = [CKAN, CKANAPI]
MODULE = "ckanext.dbmanage"
_ENDED = b"ended "
NAME = f"{MODULE}.tests.support.forked"

# ------------------------------------------------------------------- in the tests


def _finds_plugins(path: str) -> bool:
    """Whether CKAN looks for plugins when it starts, and not when it is imported.

    CKAN 2.10 has pkg_resources look, which reads the path once.
    """
    import ckan

    hidden = [
        Path(directory, name)
        for directory in path.split(os.pathsep)
        for name in ("sitecustomize.py", "ckanext")
    ]
    return not (
        ckan.__version__.startswith("2.10") or any(name.exists() for name in hidden)
    )


class Server:
    """The process that forks; `ini` is of a portal whose plugins it may import."""

    def __init__(self, ini: Path, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self.process = subprocess.Popen(
                [sys.executable, "-m", NAME, str(other.fileno()), str(ini)],
                env=environment, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()],
            )  # fmt: skip

    def stop(self) -> None:
        self.control.close()
        self.process.wait()

    def can(self, command: Sequence[str], options: Mapping[str, Any]) -> bool:
        """Whether a fork is the same as a true start."""
        known = {"stdin", "stdout", "stderr", "text", "env", "cwd", "start_new_session"}
        env = options.get("env") or os.environ
        plugins = env.get("PYTHONPATH")
        differ = {
            name
            for name in {*self.environment, *env}
            if self.environment.get(name) != env.get(name)
        } - ({"PYTHONPATH"} if "PYTHONPATH" not in self.environment else set())
        return (
            (
                command[0] in SCRIPTS
                or [*command[:3]] == [sys.executable, "-m", MODULE]
                or [*command[:2]] == [sys.executable, "-c"]
            )
            and known.issuperset(options)
            # what Python and its libraries read once, at their start
            and not any(n.startswith(("PYTHON", "LD_", "LC_", "LANG")) for n in differ)
            and (not plugins or _finds_plugins(plugins))
            and "DBMANAGE_TRUE_STARTS" not in os.environ
        )


class Beside(Server):
    """Forks the programs of one command, as young as the command is when it is made.

    It is the command's child, in its session and its process group, and ends with it.
    """

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self.control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            if os.fork():
                return
            self.control.close()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nowhere, number)
            os.close(nowhere)
            wanted = _wait_for_a_command(other)
        if not wanted:
            os._exit(0)
        _become(wanted)
        raise _Next(wanted["command"])


class _Next(BaseException):
    """What this process is to become, in the place of the one it was made beside."""


class Forked(subprocess.Popen):
    """What `subprocess.Popen` is, of a process that the server has forked."""

    def __init__(self, server: Server, command: Sequence[str], **options: Any) -> None:
        self._server = server
        super().__init__(command, **options)

    def _execute_child(self, *arguments: Any) -> None:
        names = list(inspect.signature(super()._execute_child).parameters)
        given = dict(zip(names, arguments, strict=True))
        files = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        files = [own if file == -1 else file for own, file in enumerate(files)]
        request = {
            "command": [os.fspath(word) for word in given["args"]],
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "directory": os.fspath(given["cwd"] or os.getcwd()),
            "session": given["start_new_session"],
        }
        self._answer, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            socket.send_fds(
                self._server.control,
                [json.dumps(request).encode()],
                [*files, other.fileno()],
            )
        said = self._answer.recv(100)  # it leads its session by now, as after an exec
        if not said.isdigit():
            raise OSError(f"the command was not forked: {said.decode()}")
        self.pid, self._child_created = int(said), True
        self._close_pipe_fds(*(given[name] for name in (
            "p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite",
        )))  # fmt: skip

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        try:
            self._answer.setblocking(not wait_flags & os.WNOHANG)
            said = self._answer.recv(100)
        except BlockingIOError:
            return 0, 0
        self._answer.close()
        # without an answer somebody has killed the one that waits
        return self.pid, int(said.removeprefix(_ENDED) or -1)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


_servers: list[Server] = []


def serve(ini: Path, environment: Mapping[str, str]) -> None:
    """Lets commands be forked from now on, beside those of other environments."""
    _servers.append(Server(ini, environment))


def stop() -> None:
    """Every command is started truly again that the last `serve` was for."""
    _servers.pop().stop()


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen:
    """`subprocess.Popen`, of a process that has imported CKAN already, if it can."""
    words = [os.fspath(word) for word in command]
    if (found := shutil.which(words[0])) in SCRIPTS:
        words[0] = found
    for server in _servers:
        if server.can(words, options):
            return Forked(server, words, **options)
    return subprocess.Popen(words, **options)


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` that captures what is said, of such a process."""
    with start(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as process:
        try:
            said = process.communicate(timeout=600)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, *said)


# ------------------------------------------------------------- in the one that forks


def _import_all(ini: str) -> None:
    """Imports what a command has imported once CKAN has started with this portal."""
    import ckan.cli.cli  # noqa: F401
    import ckanapi.cli.main  # noqa: F401

    package = importlib.import_module(MODULE)
    own = [name for _, name, _ in pkgutil.walk_packages(package.__path__, f"{MODULE}.")]
    skip = ("__main__", "migration", "tests")
    for name in own:
        if not any(part in skip for part in name.split(".")):
            importlib.import_module(name)
    # in a process of its own, for here nothing may be configured
    here, there = os.pipe()
    if not os.fork():
        from ckan.cli import load_config
        from ckan.config.middleware import make_app

        make_app(load_config(ini))
        with open(there, "w") as file:
            file.write("\n".join(sys.modules))
        os._exit(0)
    os.close(there)
    with open(here) as file:
        for name in file.read().splitlines():
            try:
                importlib.import_module(name)
            except Exception:  # noqa: S112 - a name that is no module's
                continue
    os.wait()
    # what is found out once and kept: what the models are
    importlib.import_module("sqlalchemy.orm").configure_mappers()
    # CKAN asks at its start who calls it, reads what options are declared, and compiles
    # for each address what builds it: more than half of a start was spent on lines of
    # sources, on YAML in Python, and on what hardly a command needs
    inspect.stack = _callers
    yaml: Any = importlib.import_module("yaml")
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rule: Any = importlib.import_module("werkzeug.routing").Rule
    rule._compile_builder = _when_needed(rule._compile_builder)


def _when_needed(compile_: Callable[..., Any]) -> Callable[..., Any]:
    """What makes a method, which is made at its first call."""

    def compiled(rule: Any, *arguments: Any, **options: Any) -> Any:
        made: list[Any] = []

        def method(*called: Any, **more: Any) -> Any:
            if not made:
                made.append(compile_(rule, *arguments, **options))
            return made[0](*called, **more)

        return method

    return compiled


def _callers(context: int = 1) -> list[inspect.FrameInfo]:
    """What `inspect.stack` tells, without the lines of the sources."""
    found, frame = [], sys._getframe(1)
    while frame:
        code = frame.f_code
        found.append(
            inspect.FrameInfo(
                frame, code.co_filename, frame.f_lineno, code.co_name, None, None
            )
        )
        frame = frame.f_back  # type: ignore[assignment]
    return found


def _wait_for_a_command(control: socket.socket) -> dict[str, Any] | None:
    """Returns in each process that is to become a command; None when all is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        request, files, _, _ = socket.recv_fds(control, 1 << 20, 4)
        with suppress(ChildProcessError):  # those that have ended meanwhile
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            return None
        # one process waits for the command and tells of its end
        if not os.fork():
            control.close()
            *own, answer = files
            command = os.fork()
            if not command:
                return json.loads(request) | {"files": own, "answer": answer}
            for file in own:
                os.close(file)
            with socket.socket(fileno=answer) as said:
                said.send(_ENDED + str(os.waitpid(command, 0)[1]).encode())
            os._exit(0)
        for file in files:
            os.close(file)


def _become(request: dict[str, Any]) -> None:
    """Makes this process what it were if its command had been started."""
    if request["session"]:
        os.setsid()
    for number, file in enumerate(request["files"]):
        os.dup2(file, number)
    for file in request["files"]:
        os.close(file)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        line = name == "stderr" or os.isatty(number)
        new = open(  # noqa: SIM115 - it stays open
            number, old.mode, buffering=1 if line else -1, encoding=old.encoding,
            errors=old.errors, closefd=False,
        )  # fmt: skip
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["directory"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with socket.socket(fileno=request["answer"]) as answer:
        answer.send(str(os.getpid()).encode())


def _run(command: list[str]) -> None:
    while True:
        try:
            _servers[:] = [Beside()]
            break
        except _Next as instead:
            (command,) = instead.args
    for name in (f"{MODULE}.engine.postgres.programs", "ckanapi.cli.workers"):
        starts: Any = importlib.import_module(name)
        starts.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": start})
    api: Any = importlib.import_module("ckanapi.cli.main")
    api.os = SimpleNamespace(**vars(os) | {"execvp": _go_on_as})
    if "PYTHONPATH" in os.environ:
        sys.path[1:1] = os.environ["PYTHONPATH"].split(os.pathsep)
    is_script = command[0] in SCRIPTS
    sys.orig_argv[1:] = command if is_script else command[1:]
    if is_script:
        sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")
    elif command[1] == "-c":
        sys.argv, sys.path[0] = command[1:2] + command[3:], ""
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(command[2], "<string>", "exec"), vars(main))  # noqa: S102
    else:
        sys.argv, sys.path[0] = [MODULE, *command[3:]], os.getcwd()
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)


def _go_on_as(program: str, command: list[str]) -> None:
    """What `os.execvp` does: ckanapi becomes `ckan api`, which is known here too."""
    if shutil.which(program) != CKAN:  # one that a test has put before it
        os.execvp(program, command)  # noqa: S606
    sys.argv = [CKAN, *command[1:]]
    runpy.run_path(CKAN, run_name="__main__")


def _run_and_end(command: list[str]) -> None:
    """Ends as Python does, but that it leaves its memory to the system.

    To take apart what was imported writes to each page that is shared with the one that
    forks, and so copies it: that takes longer than most commands.
    """
    code: Any = 0
    try:
        _run(command)
    except SystemExit as ended:
        code = ended.code
        if not isinstance(code, int | None):
            sys.stderr.write(f"{code}\n")
            code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for file in (sys.stdout, sys.stderr):
            if file and not file.closed:
                file.flush()
    except OSError:  # nobody reads it any more, which Python has words for
        sys.exit(code)
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        _import_all(sys.argv[2])
        gc.collect()
        gc.freeze()  # forks share what is not looked at
        wanted = _wait_for_a_command(channel)
    if wanted:
        _become(wanted)
        _run_and_end(wanted["command"])
