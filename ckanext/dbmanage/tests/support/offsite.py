"""The other place in tests: restic itself, servers of it, and a network that is bad."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .portal import Portal
from .site import free_port
from .waiting import wait_until

SECRET = "off-site password 91c2"


def set_remote(portal: Portal, address: str, **options: str) -> None:
    """The three lines of the manual."""
    password = portal.directory / "restic.password"
    if not password.exists():
        password.write_text(f"{SECRET}\n")
        password.chmod(0o600)
    prefix = "ckanext.dbmanage.remote."
    portal.write(
        **{
            f"{prefix}repository": address,
            f"{prefix}password_file": str(password),
            **{prefix + name: value for name, value in options.items()},
        }
    )


def restic(address: str, *arguments: str, code: int | None = 0, **options: Any) -> Any:
    """restic, as a person runs it; its stdout."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": "/nonexistent", "RESTIC_PASSWORD": SECRET,
        "RESTIC_REPOSITORY": address, "TZ": "UTC",
    }  # fmt: skip
    done = subprocess.run(
        ["restic", "--no-cache", *arguments], env=environment, capture_output=True,
        text=True, **options,
    )  # fmt: skip
    assert code in (done.returncode, None), f"{done.stdout}\n{done.stderr}"
    return done.stdout


def snapshots(address: str) -> list[dict[str, Any]]:
    return json.loads(restic(address, "snapshots", "--json", "--no-lock"))


@contextlib.contextmanager
def served(directory: Path, *options: str) -> Iterator[str]:
    """rclone's server of restic's own protocol; the address of a repository there."""
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory.parent)}
    server = subprocess.Popen(
        ["rclone", "serve", "restic", "--addr", f"127.0.0.1:{port}", *options,
         str(directory)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(port))
        yield f"rest:http://127.0.0.1:{port}/portal"
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Network:
    """A proxy before a server: what it does to a connection is said by `fate`.

    `fate` gets the first line of the request, and says `ok`, `slow`, `cut`,
    `truncate`, `hang` or a status.
    """

    def __init__(self, address: str) -> None:
        host = address.partition("//")[2].partition("/")[0]
        self._target = int(host.rpartition(":")[2])
        self.fate: Callable[[str], str] = lambda _: "ok"
        self.seen: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        port = self._server.getsockname()[1]
        self.address = address.replace(host, f"127.0.0.1:{port}")
        self._ended = False
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._ended = True
        self._server.close()

    def _serve(self) -> None:
        while not self._ended:
            with contextlib.suppress(OSError):
                client = self._server.accept()[0]
                threading.Thread(
                    target=self._handle, args=[client], daemon=True
                ).start()

    def _handle(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = client.recv(1 << 16)
            line = head.partition(b"\r\n")[0].decode("latin-1")
            fate = self.fate(line)
            self.seen.append(f"{fate} {line}")
            if fate == "hang":
                while not self._ended:
                    time.sleep(0.1)
                return
            if fate.isdigit():
                client.sendall(
                    f"HTTP/1.1 {fate} Told\r\nContent-Length: 0\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                return
            # a connection has one request, so that each has its fate
            head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                server.sendall(head)
                self._pass(client, server, fate)

    def _pass(self, client: socket.socket, server: socket.socket, fate: str) -> None:
        most = {"cut": 2000, "truncate": 300}.get(fate, 1 << 60)
        passed = 0
        while passed < most:
            ready, _, _ = select.select([client, server], [], [], 60)
            for side in ready:
                chunk = side.recv(1 << 16)
                if not chunk:
                    return
                if fate == "slow":
                    time.sleep(0.02)
                if side is server or fate == "cut":
                    passed += len(chunk)
                    if passed > most:
                        chunk = chunk[: len(chunk) // 2]
                (client if side is server else server).sendall(chunk)


def newer() -> str:
    """The directory of a newer restic, where one was installed; else empty."""
    directory = Path(os.environ["DBMANAGE_SERVICES"]) / "restic"
    return str(directory) if (directory / "restic").exists() else ""


def packs(directory: Path) -> list[Path]:
    """The files in a repository of restic's that hold data."""
    return sorted(path for path in (directory / "data").rglob("*") if path.is_file())


def flip(path: Path, at: int = 100) -> None:
    """Changes a bit, whatever the file's rights."""
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def leave_out(place: Path, kept: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(kept, place)
