"""What people are told by: a mail server, a webhook and a ping URL, all real ones."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller

from .cluster import free_port


class Mails(list):
    """The mails that a server took, parsed; `address` is where it listens.

    With `refuses` it takes none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuses, self.address = "", ""

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if self.refuses:
            return self.refuses
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    @property
    def subjects(self) -> list[str]:
        return [mail["Subject"] for mail in self]


@contextmanager
def mail_server() -> Iterator[Mails]:
    mails, port = Mails(), free_port()
    server = Controller(mails, hostname="127.0.0.1", port=port, ready_timeout=300)
    server.start()
    mails.address = f"127.0.0.1:{port}"
    try:
        yield mails
    finally:
        server.stop()


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections, and never says a word; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


class Asked(NamedTuple):
    """A request: its path and its body."""

    path: str
    body: str


class Hook(list):
    """The requests that a web server had; `address` is its URL, without a path.

    It answers with `status`; one that `hangs` begins an answer, and never ends it.
    """

    status, hangs, address = 200, False, ""


@contextmanager
def web_server() -> Iterator[Hook]:
    hook, over = Hook(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            hook.append(Asked(self.path, self.rfile.read(size).decode()))
            self.send_response(hook.status)
            self.end_headers()
            while hook.hangs and not over.wait(0.2):
                self.wfile.write(b".")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    hook.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hook
    finally:
        over.set()
        server.shutdown()
        server.server_close()
