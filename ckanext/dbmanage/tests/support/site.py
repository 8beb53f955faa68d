"""A portal with its sysadmin page: people with passwords, sessions, a worker."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ckan
import jwt
import redis
import requests
from passlib.hash import pbkdf2_sha512
from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.redis.arming import Arming
from ckanext.dbmanage.engine.redis.client import key_of
from ckanext.dbmanage.jobs.queue import Jobs
from ckanext.dbmanage.portal.site import build_site

from . import forked
from .cluster import BIN, free_port
from .portal import Portal
from .waiting import end_group, wait_until
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
        options = {"allow_redirects": False, "timeout": 300} | options
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
        #: what the browser of each that signed in knows of it
        self.known: dict[str, Any] = {}
        #: the server of a Redis of its own, if it has one
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

    def ended(self, token: str, id: str) -> dict[str, Any]:
        """A job once it has ended."""
        found: dict[str, Any] = {}

        def over() -> bool:
            found.update(self.act("dbmanage_job_show", token, id=id))
            return found["state"] not in ("queued", "running")

        wait_until(over)
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

    @property
    def rows(self) -> dict[str, Any]:
        """All there is, but for when somebody was seen last."""
        seen = ("database:api_token", "database:user")
        return {k: v for k, v in self.portal.state().items() if k not in seen}

    @property
    def keys(self) -> list[bytes]:
        """What Redis holds of it, but for what RQ notes."""
        url = make_url(self.portal.options["sqlalchemy.url"])
        return sorted(self.in_redis.scan_iter(key_of(url, "*")))

    @property
    def in_redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.portal.options["ckan.redis.url"])

    def clear(self) -> None:
        """Leaves nothing in Redis: no job, no maintenance, no wrong password."""
        for key in (*self.keys, *self.in_redis.scan_iter(f"rq:queue:*{self.queue}")):
            self.in_redis.delete(key)

    def paused_worker(self) -> subprocess.Popen:
        """A worker that is there and takes nothing, until SIGCONT."""
        worker = self.start_worker()

        def idle() -> bool:
            """Not one that is paused while it starts: RQ hears no SIGTERM yet."""
            found = [
                self.in_redis.hmget(key, "queues", "state")
                for key in self.in_redis.scan_iter("rq:worker:*", _type="hash")
            ]
            return any(
                self.queue.encode() in (queues or b"") and state == b"idle"
                for queues, state in found
            )

        wait_until(idle)
        worker.send_signal(signal.SIGSTOP)
        return worker

    @contextmanager
    def left_as_it_was(self) -> Iterator[None]:
        """What is added meanwhile goes: backups, what is in Redis, the worker."""
        there = set(self.portal.repository.glob("*"))
        yield
        self.stop()
        self.clear()
        for path in set(self.portal.repository.glob("*")) - there:
            if path.is_dir() and path.name[0] == "2":
                shutil.rmtree(path)

    def stop(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()
            self.worker.send_signal(signal.SIGCONT)
            try:
                self.worker.wait(20)
            except subprocess.TimeoutExpired:  # RQ loses one that comes between jobs
                end_group(self.worker)


#: without Werkzeug's debugger, which shows all there is; CKAN 2.10 has none to disable
QUIET = [] if ckan.__version__.startswith("2.10") else ["-D"]


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
    portal.become(template)
    try:
        yield portal
    finally:
        portal.drop()


@contextmanager
def hosted(template: Portal, directory: Path, **options: str) -> Iterator[Site]:
    """A site that the tests of a module share: to start CKAN takes seconds."""
    webs = []

    def serve(portal: Portal) -> Web:
        webs.append(Web(portal, *QUIET))
        wait_until(webs[0].up)
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


@contextmanager
def hosted_with_redis(
    template: Portal, directory: Path, **options: str
) -> Iterator[Site]:
    """The same, with a Redis of its own that a test may stop."""
    with own_redis() as (server, address):
        options["ckan.redis.url"] = address
        with hosted(template, directory, **options) as made:
            made.redis, made.token = server, made.api_token()
            yield made
