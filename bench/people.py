"""People who save to a portal by CKAN's own API, and what must be there after that."""

from __future__ import annotations

import random
import secrets
import time
from contextlib import suppress
from hashlib import sha256
from typing import Any

import requests
from portals import Portal
from tools import CKAN, psql, run
from visitors import free_port
from world import World


class Lost(Exception):
    """Something is not there that must be, or the reverse; one a line."""


class People:
    """They save to `portal`, which is served; `world` is what must be there now."""

    def __init__(self, portal: Portal, chance: random.Random) -> None:
        self._portal, self._chance = portal, chance
        self.world = World()
        self.port = free_port()
        self._base = f"http://127.0.0.1:{self.port}"
        self._token = ""
        self._number = 0

    def sign_in(self) -> None:
        name = "soak"
        password, email = secrets.token_hex(8), f"{name}@example.com"
        words = ("user", "add", name, f"password={password}", f"email={email}")
        run(CKAN, "-c", self._portal.ini, *words)
        psql(
            self._portal.main,
            f"UPDATE \"user\" SET sysadmin = true WHERE name = '{name}'",
        )
        made = run(CKAN, "-c", self._portal.ini, "user", "token", "add", name, "soak")
        self._token = made.out.split()[-1]
        self.served()

    def act(self, action: str, file: bytes | None = None, **data: Any) -> Any:
        """What an action of the site gives."""
        sent: dict[str, Any] = {"json": data}
        if file is not None:
            sent = {"data": data, "files": {"upload": ("data.bin", file)}}
        answer = requests.post(
            f"{self._base}/api/3/action/{action}", timeout=60,
            headers={"Authorization": self._token}, **sent,
        )  # fmt: skip
        if answer.status_code != 200:
            raise Lost(
                f"{action} of {str(data)[:200]} answers {answer.status_code}: {answer.text[:500]}"
            )
        return answer.json()["result"]

    def save(self) -> None:
        """A few changes, as people make them."""
        saves = [
            self._new_dataset, self._retitle, self._upload, self._upload, self._replace,
            self._table, self._rows, self._user, self._delete, self._purge,
        ]  # fmt: skip
        for save in self._chance.choices(saves, k=self._chance.randint(2, 5)):
            save()

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number}"

    def some(self, among: Any) -> Any:
        found = sorted(among)
        return self._chance.choice(found) if found else None

    def mine(self) -> list[str]:
        """The datasets that may be saved to."""
        return [
            id for id, (name, _, state) in self.world.datasets.items()
            if name.startswith("soaked-") and state == "active"
        ]  # fmt: skip

    def _dataset(self) -> str:
        return self._touched(self.some(self.mine()) or self._new_dataset())

    def _touched(self, id: str) -> str:
        """Hears which dataset is saved to, and gives it back."""
        return id

    def _new_dataset(self) -> str:
        name = self._name("soaked")
        title = f"Dataset {self._chance.random()} é"
        made = self.act(
            "package_create", name=name, title=title, owner_org="org-1", private=False
        )
        self.world.datasets[made["id"]] = [name, title, "active"]
        return made["id"]

    def _retitle(self) -> None:
        id, title = self._dataset(), f"Another {self._chance.random()}"
        self.act("package_patch", id=id, title=title)
        self.world.datasets[id][1] = title

    def _content(self) -> bytes:
        return self._chance.randbytes(self._chance.choice((1, 100, 70_000, 300_000)))

    def _upload(self) -> None:
        id, content = self._dataset(), self._content()
        made = self.act("resource_create", content, package_id=id, name="a file")
        self.world.resources[made["id"]] = id
        self.world.files[made["id"]] = sha256(content).hexdigest()

    def _replace(self) -> None:
        mine = self.mine()
        id = self.some(r for r, d in self.world.resources.items()
                        if d in mine and r in self.world.files)  # fmt: skip
        if id is None:
            return
        self._touched(self.world.resources[id])
        content = self._content()
        self.act("resource_patch", content, id=id)
        self.world.files[id] = sha256(content).hexdigest()

    def _new_rows(self) -> list[dict[str, Any]]:
        return [
            {"k": self._chance.randrange(10**6), "v": f"välue\t{self._chance.random()}"}
            for _ in range(self._chance.choice((1, 20, 400)))
        ]

    def _table(self) -> None:
        id, rows = self._dataset(), self._new_rows()
        fields = [{"id": "k", "type": "int"}, {"id": "v", "type": "text"}]
        made = self.act(
            "resource_create", package_id=id, name="a table", url="http://x.test"
        )
        self.act("datastore_create", resource_id=made["id"], force=True, fields=fields,
                  records=rows)  # fmt: skip
        self.world.resources[made["id"]] = id
        self.world.tables[made["id"]] = rows

    def _rows(self) -> None:
        mine = self.mine()
        id = self.some(r for r, d in self.world.resources.items()
                        if d in mine and r in self.world.tables)  # fmt: skip
        if id is None:
            return
        self._touched(self.world.resources[id])
        rows = self._new_rows()
        self.act(
            "datastore_upsert",
            resource_id=id,
            method="insert",
            force=True,
            records=rows,
        )
        self.world.tables[id] += rows

    def _user(self) -> None:
        name, full = self._name("person"), f"Person {self._chance.random()}"
        self.act(
            "user_create", name=name, email=f"{name}@example.com", fullname=full,
            password=secrets.token_hex(8),
        )  # fmt: skip
        self.world.users[name] = [full, "active"]

    def _delete(self) -> None:
        id = self._dataset()
        self.act("package_delete", id=id)
        self.world.datasets[id][2] = "deleted"

    def _purge(self) -> None:
        id = self._dataset()
        self.act("dataset_purge", id=id)
        del self.world.datasets[id]
        for each in self.world.of(id):
            del self.world.resources[each]

    def served(self) -> None:
        """Maintenance ends: by itself twelve seconds after a kill."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(OSError):
                url = f"{self._base}/api/3/action/status_show"
                if requests.get(url, timeout=60).status_code == 200:
                    return
            time.sleep(0.1)
        raise Lost("visitors are not served")
