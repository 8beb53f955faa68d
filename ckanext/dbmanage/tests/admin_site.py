"""A portal with its sysadmin page: people with passwords, sessions, a worker."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import requests
from passlib.hash import pbkdf2_sha512

from .conftest import BIN, Portal, Web, wait_until

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

    def session(self, name: str = "") -> Session:
        made = Session(self.web)
        return made.sign_in(name) if name else made

    # -- the API, as an operator on the server calls it

    def api_token(self, name: str = SYSADMIN) -> str:
        done = self.portal.ckan("user", "token", "add", name, "test", "-q")
        return done.stdout.split()[-1]

    def act(self, name: str, token: str, **data: Any) -> Any:
        """An action's answer: its result, or the whole when it failed."""
        answer = self.web.ask(
            f"/api/3/action/{name}", "POST", data, Authorization=token
        )
        found = json.loads(answer.body)
        return found["result"] if found["success"] else found

    # -- jobs

    def start_worker(self, queue: str) -> subprocess.Popen:
        with open(self.portal.directory / "worker.log", "ab") as log:
            self.worker = subprocess.Popen(
                [BIN / "ckan", "-c", self.portal.ini, "jobs", "worker", queue],
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

    def stop(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()
            self.worker.wait()
