"""A portal with its sysadmin page: people with passwords, sessions, a worker."""

from __future__ import annotations

import json
import re
import secrets
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ckan
import jwt
import requests
from passlib.hash import pbkdf2_sha512

from ckanext.dbmanage.engine.redis.arming import Arming
from ckanext.dbmanage.jobs.queue import Jobs
from ckanext.dbmanage.portal.site import build_site

from . import forked
from .cluster import BIN, PG_BIN, clone, query
from .portal import Portal
from .waiting import wait_until
from .web import Web

PASSWORD = "correct horse"
_HASH = pbkdf2_sha512.using(rounds=1000).hash(PASSWORD)
#: who the portal's people are
SYSADMIN, ORG_ADMIN, USER = "user-1", "user-2", "user-3"
TITLE = "Riverland Open Data"


class Session(requests.Session):
    """A browser without JavaScript: cookies, and the token that forms carry."""

    def __init__(self, web: Web) -> None:
        super().__init__()
        self.web = web
        self.base = f"http://127.0.0.1:{web.port}"

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        options = {"allow_redirects": False, "timeout": 60} | options
        return self.request(method, self.base + path, **options)

    def sign_in(self, name: str, password: str = PASSWORD) -> Session:
        data = {"login": name, "password": password} | self.token("/user/login")
        answer = self.ask("POST", "/user/login", data=data)
        assert answer.status_code == 302, answer.text
        return self

    def token(self, path: str = "/user/login") -> dict[str, str]:
        page = self.ask("GET", path, allow_redirects=True).text
        found = re.search(r'name="_csrf_token"\s+(?:content|value)="([^"]+)"', page)
        assert found, page[:2000]
        return {"_csrf_token": found[1]}

    def post(self, path: str, **fields: Any) -> requests.Response:  # type: ignore[override]
        """A form, sent as a browser sends it."""
        return self.ask("POST", path, data=fields | self.token("/ckan-admin/backups/"))


class Site:
    """A running portal, its worker when one was started."""

    def __init__(self, portal: Portal, serve: Callable[[Portal], Web]) -> None:
        self.portal = portal
        portal.write(**{"ckan.site_title": TITLE})
        portal.sql(f"UPDATE \"user\" SET password = '{_HASH}' WHERE name LIKE 'user-%'")
        portal.sql(
            "INSERT INTO member (id, group_id, table_id, state, table_name, capacity)"
            f" VALUES ('m-admin', 'org-1', '{ORG_ADMIN}', 'active', 'user', 'admin')"
        )
        self.web = serve(portal)
        self.base = f"http://127.0.0.1:{self.web.port}"
        self.worker: subprocess.Popen | None = None
        #: of a sysadmin, when it was made
        self.token = ""
        #: one of its own, if it has one
        self.redis: subprocess.Popen | None = None

    def session(self, name: str = "") -> Session:
        made = Session(self.web)
        return made.sign_in(name) if name else made

    # -- the API, as an operator on the server calls it

    def api_token(self, name: str = SYSADMIN) -> str:
        """As `ckan user token add` makes it, which takes seconds."""
        id = secrets.token_urlsafe(16)
        self.portal.sql(
            "INSERT INTO api_token (id, name, user_id, created_at)"
            f" SELECT '{id}', 'test {id}', id, now() FROM \"user\" WHERE name = '{name}'"
        )
        secret = build_site(self.portal.settings).token_secret.partition(":")[2]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the secret of a test is a short one
            return jwt.encode({"jti": id, "iat": int(time.time())}, secret, "HS256")

    def act(self, name: str, token: str = "", **data: Any) -> Any:
        """An action's answer: its result, or the whole when it failed."""
        answer = self.web.ask(
            f"/api/3/action/{name}", "POST", data, Authorization=token or self.token
        )
        found = json.loads(answer.body)
        return found["result"] if found["success"] else found

    def arm(self, name: str, to: str = "restore") -> None:
        """As `ckan db arm NAME --to …` does."""
        Arming(build_site(self.portal.settings)).arm(name, 600, "an operator", to)

    # -- jobs

    def start_worker(
        self, program: Sequence[str | Path] = (BIN / "ckan",)
    ) -> subprocess.Popen:
        with open(self.portal.directory / "worker.log", "ab") as log:
            self.worker = forked.start(
                [*program, "-c", self.portal.ini, "db", "worker"],
                env=self.portal.environment | {"PATH": f"{BIN}:/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.worker

    def ended(self, token: str, id: str, seconds: float = 90) -> dict[str, Any]:
        """A job once it has ended."""
        found: dict[str, Any] = {}

        def over() -> bool:
            found.update(self.act("dbmanage_job_show", token, id=id))
            return found["state"] not in ("queued", "running")

        wait_until(over, seconds)
        return found

    @property
    def queue(self) -> str:
        """The queue of its jobs, as the page names it."""
        return Jobs(self.portal.settings).queue

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The journal's lines."""
        text = (self.portal.repository / "journal.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def paused_worker(self) -> subprocess.Popen:
        """A worker that is there and takes nothing, until SIGCONT."""
        worker, token = self.start_worker(), self.api_token()
        wait_until(lambda: self.act("dbmanage_status", token)["worker"]["count"], 90)
        worker.send_signal(signal.SIGSTOP)
        return worker

    def stop(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()
            self.worker.send_signal(signal.SIGCONT)
            self.worker.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Quiet(Web):
    """A web process without Werkzeug's debugger, which shows all there is.

    `under` is a program that starts it, as setpriv does.
    """

    def __init__(self, portal: Portal, under: Sequence[str] = ()) -> None:
        self.log, self.port = portal.directory / "web.log", free_port()
        # CKAN 2.10 has no debugger to disable
        more = [] if ckan.__version__.startswith("2.10") else ["-D"]
        with open(self.log, "w") as log:
            self.process = forked.start(
                [*under, BIN / "ckan", "-c", portal.ini, "run", "-H", "127.0.0.1",
                 "-p", str(self.port), "-r", "-t", *more],
                env=portal.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip


@contextmanager
def own_redis() -> Iterator[tuple[subprocess.Popen, str]]:
    """A Redis that a test may stop, and its URL."""
    port = free_port()
    server = subprocess.Popen(
        ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield server, f"redis://127.0.0.1:{port}/2"
    finally:
        server.kill()
        server.wait()


@contextmanager
def cloned(template: Portal, directory: Path, **options: str) -> Iterator[Portal]:
    """A portal that the tests of a module share."""
    portal = Portal(directory, secrets.token_hex(4), options)
    for part, own in portal.names.items():
        clone(template.names[part], own)
    query(f'GRANT CONNECT ON DATABASE "{portal.names["datastore"]}"'
          " TO datastore_default")  # fmt: skip
    own, other = portal.options["ckan.site_id"], template.options["ckan.site_id"]
    portal.sql(f"UPDATE \"user\" SET name = '{own}' WHERE name = '{other}'")
    portal.fill_uploads()
    try:
        yield portal
    finally:
        portal.drop()


@contextmanager
def hosted(template: Portal, directory: Path, **options: str) -> Iterator[Site]:
    """A site that the tests of a module share: to start CKAN takes seconds."""
    webs = []

    def serve(portal: Portal) -> Web:
        webs.append(Quiet(portal))
        wait_until(webs[0].up, 90)
        return webs[0]

    made = None
    with cloned(template, directory, **options) as portal:
        try:
            made = Site(portal, serve)
            yield made
        finally:
            if made:
                made.stop()
            for web in webs:
                web.process.terminate()
                web.process.wait()


def slowed(portal: Portal) -> None:
    """PostgreSQL's own programs, a while later: what is cancelled must be under way."""
    directory = portal.directory / "slow"
    directory.mkdir()
    for name, when in (("pg_dump", "--no-password"), ("pg_restore", " -j ")):
        (directory / name).write_text(
            f'#!/bin/sh\ncase " $* " in *"{when}"*) sleep 20 >&- 2>&- <&-;; esac\n'
            f'exec "{PG_BIN / name}" "$@"\n'
        )
        (directory / name).chmod(0o755)
    portal.write(**{"ckanext.dbmanage.pg_bin": str(directory)})
