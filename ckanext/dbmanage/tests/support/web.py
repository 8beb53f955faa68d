"""A portal behind a web server."""

from __future__ import annotations

import http.client
import json
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from . import forked
from .cluster import BIN, free_port
from .portal import Portal


class Answer:
    """What a visitor got: status, headers, body; redirects are not followed."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers = answer.status, answer.headers
        self.body = answer.read().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """A CKAN web process of a portal; `under` starts it, as setpriv does.

    `bin` has the CKAN.
    """

    def __init__(
        self,
        portal: Portal,
        *options: str,
        under: tuple[str, ...] = (),
        bin: Path = BIN,
    ) -> None:
        self.log, self.port = portal.directory / "web.log", free_port()
        with open(self.log, "w") as log:
            self.process = forked.start(
                [*under, bin / "ckan", "-c", portal.ini, "run", "-H", "127.0.0.1",
                 "-p", str(self.port), "-r", "-t", *options],
                env=portal.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with closing(connection):
            headers = {k.replace("_", "-"): v for k, v in headers.items()}
            if isinstance(body, dict):
                body = json.dumps(body)
                headers["Content-Type"] = "application/json"
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse())

    def up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.ask("/api/3/action/status_show").status == 200
        except OSError:
            return False
