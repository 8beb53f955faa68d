"""Real portals for the tests: own databases, real commands."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy.engine import URL

from ckanext.dbmanage.engine.postgres.database import quoted
from ckanext.dbmanage.engine.repository.events import unknown
from ckanext.dbmanage.engine.repository.journal import parse_entry
from ckanext.dbmanage.engine.repository.repository import Repository
from ckanext.dbmanage.engine.signature import dumped
from ckanext.dbmanage.engine.site import Site
from ckanext.dbmanage.portal.config import Options
from ckanext.dbmanage.portal.site import build_site

from . import forked
from .cluster import (
    _IS_DEBIAN_S,
    BIN,
    PASSWORD,
    PG_BIN,
    READER,
    SUPERUSER,
    clone,
    query,
)
from .rows import DATASETS as DATASETS
from .rows import DATASTORE_TABLES as DATASTORE_TABLES
from .rows import UPLOADS

#: the revision that CKAN's own tables are at
HEAD = "SELECT version_num FROM alembic_version"

#: CKAN 2.10 and 2.11 do not start without these
LOGGING = """
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""


class Portal:
    """A CKAN portal of its own; `options` are lines of its configuration."""

    def __init__(
        self, directory: Path, name: str, options: dict[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.names = {"database": f"ckan_{name}", "datastore": f"datastore_{name}"}
        self.ini = directory / "ckan.ini"
        self.storage = directory / "storage"
        self.repository = self.storage / "dbmanage" / "backups"
        self.options = {
            "use": "egg:ckan",
            "SECRET_KEY": "portal-secret-5fd1",
            "beaker.session.secret": "portal-secret-5fd1",
            "ckan.site_id": name,
            "ckan.site_url": "http://portal.test",
            "ckan.storage_path": str(self.storage),
            "ckan.plugins": "dbmanage datastore activity",
            "sqlalchemy.url": self.url("database"),
            "ckan.datastore.write_url": self.url("datastore"),
            "ckan.datastore.read_url": self.url(
                "datastore", "datastore_default", READER
            ),
            "ckan.redis.url": f"redis://127.0.0.1:{os.environ['DBMANAGE_REDIS_PORT']}/2",
            "solr_url": os.environ["CKAN_SOLR_URL"],
            # Debian's own programs are found
            **({} if _IS_DEBIAN_S else {"ckanext.dbmanage.pg_bin": str(PG_BIN)}),
            **(options or {}),
        }
        self.storage.mkdir(exist_ok=True)
        self.write()

    def url(
        self, part: str, user: str = "ckan_default", password: str = PASSWORD
    ) -> str:
        url = URL.create(
            "postgresql", user, password, "127.0.0.1", SUPERUSER.port, self.names[part]
        )
        return url.render_as_string(hide_password=False)

    def write(self, **options: str) -> None:
        """Writes the configuration file; an underscore in a name here is a dot."""
        self.options |= options
        lines = [f"{k} = {v.replace('%', '%%')}" for k, v in self.options.items()]
        self.ini.write_text("[app:main]\n" + "\n".join(lines) + LOGGING)

    # -- commands

    @property
    def environment(self) -> dict[str, str]:
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("CKAN_", "PG"))
        }
        # as who has activated the environment, and named the site: `ckan db …` is all
        own = {"CKAN_INI": str(self.ini), "PATH": f"{BIN}:{os.environ['PATH']}"}
        return clean | own | {"PYTHONWARNINGS": "ignore", "TZ": "UTC"}

    def ckan(self, *arguments: str, code: int = 0, **options: Any) -> Any:
        """`ckan -c ini …`; fails the test when it ends with another code."""
        return self._run(
            [str(BIN / "ckan"), "-c", str(self.ini), *arguments], code, options
        )

    def db(self, *arguments: str, code: int = 0, **options: Any) -> Any:
        """`ckan db …`"""
        return self.ckan("db", *arguments, code=code, **options)

    def module(self, *arguments: str, code: int | None = 0, **options: Any) -> Any:
        """`python -m ckanext.dbmanage …`"""
        return self._run([*self.module_command, *arguments], code, options)

    @property
    def module_command(self) -> list[str]:
        return [sys.executable, "-m", "ckanext.dbmanage", "-c", str(self.ini)]

    def _run(
        self, command: list[str], code: int | None, options: dict[str, Any]
    ) -> Any:
        options = {"stdin": subprocess.DEVNULL, "text": True} | options
        environment = self.environment | options.pop("env", {})
        done = forked.run(command, env=environment, **options)
        assert code in (done.returncode, None), (
            f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen:
        """A `python -m` command left running, leader of its own process group."""
        return forked.start(
            [*self.module_command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment | options.pop("env", {}),
            text=True,
            start_new_session=True,
            **options,
        )

    def backup(self, *arguments: str) -> Path:
        """Takes a backup; its directory."""
        name = self.module("backup", *arguments).stdout.strip()
        return self.repository / name

    def backups(self) -> list[dict[str, Any]]:
        return json.loads(self.module("backups", "--json").stdout)

    # -- what is in the databases

    def sql(self, statement: str, part: str = "database") -> list[tuple]:
        return query(statement, self.names[part])

    def state(self) -> dict[str, Any]:
        """All there is: a hash of each table's rows, order-free, and the uploads."""
        found: dict[str, Any] = {"uploads": self.uploads()}
        for part in self.names:
            tables = self.sql(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'", part
            )
            # many in one statement: to connect costs more than to count; not all, for
            # a server has no locks for thousands
            rows = [
                f"SELECT '{table}', count(*),"
                " coalesce(sum(('x' || substr(md5(t::text), 1, 8))"
                f"::bit(32)::bigint), 0)::text FROM public.{quoted(table)} t"
                for (table,) in tables
            ]
            for start in range(0, len(rows), 500):
                statement = " UNION ALL ".join(rows[start : start + 500])
                for table, *rest in self.sql(statement, part):
                    found[f"{part}:{table}"] = tuple(rest)
        return found

    def uploads(self) -> dict[str, str]:
        """The uploads on the disk: a checksum by path."""
        return {
            str(path.relative_to(self.storage)): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in sorted(self.storage.rglob("*"))
            if path.is_file()
            and not path.relative_to(self.storage).parts[0].startswith(".dbm_")
            and path.relative_to(self.storage).parts[0]
            not in ("dbmanage", "webassets", "i18n")
        }

    def become(self, other: Portal) -> None:
        """Gets the databases of another portal, and the uploads that belong to them."""
        for part, own in self.names.items():
            clone(other.names[part], own)
        store = quoted(self.names["datastore"])
        query(f"GRANT CONNECT ON DATABASE {store} TO datastore_default")
        # the user that CKAN makes for itself when it starts
        own, its = self.options["ckan.site_id"], other.options["ckan.site_id"]
        self.sql(f"UPDATE \"user\" SET name = '{own}' WHERE name = '{its}'")
        self.fill_uploads()

    def fill_uploads(self) -> None:
        """What CKAN has written for the rows of the template."""
        for number in range(1, UPLOADS + 1):
            path = self.storage / "resources" / "upl" / "oad" / f"-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"a,b\n1,2\n" * number)
        path = self.storage / "storage" / "uploads" / "group" / "logo 東.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\x89PNG")

    def damage(self) -> None:
        """What an operator does by mistake."""
        upload = self.storage / "resources" / "upl" / "oad"
        (upload / "-1").unlink(missing_ok=True)
        if upload.exists():
            (upload / "-2").write_bytes(b"overwritten")
            (upload / "new").write_bytes(b"new")
        self.sql("DELETE FROM resource; DELETE FROM package_tag; DELETE FROM member")
        self.sql("DELETE FROM package WHERE name LIKE 'dataset-1%'")
        (name,) = self.sql(
            "SELECT tablename FROM pg_tables WHERE tablename LIKE '0000%' LIMIT 1",
            "datastore",
        )
        self.sql(f'DROP TABLE "{name[0]}" CASCADE', "datastore")

    def oids(self) -> list[int]:
        return [
            r[0]
            for r in query(
                "SELECT oid::bigint FROM pg_database WHERE datname = ANY(%s) ORDER BY 1",
                "postgres",
                list(self.names.values()),
            )
        ]

    def copies(self) -> set[str]:
        """The scratch and undo databases that are this portal's, by what they say.

        Others run beside it: one of a moment ago, which says nothing yet, is its own
        when its journal names it.
        """
        path = self.repository / "journal.jsonl"
        journal = path.read_text() if path.exists() else ""
        rows = query(
            "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"
            " WHERE datname LIKE 'dbm\\_%'"
        )
        site = f"site {self.options['ckan.site_id']!r}"
        return {
            name
            for name, said in rows
            if site in (said or "") or name.rsplit("_", 1)[0] + "_" in journal
        }

    # -- the engine in this process

    @property
    def settings(self) -> Options:
        return Options(self.options)

    def site(self) -> Site:
        return build_site(self.settings, migrations=True)

    def engine(self) -> tuple[Site, Repository]:
        site = self.site()
        return site, Repository(site.repository, site.secrets)

    def drop(self) -> None:
        """Ends it. What its commands wrote into the journal is declared."""
        for name in {*self.names.values(), *self.copies()}:
            query(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
        entries = filter(None, map(parse_entry, self._signed()))
        odd = [(each, found) for each in entries if (found := unknown(each.fields))]
        assert not odd, f"not in engine/repository/events.py: {odd}"

    def _signed(self) -> Iterator[bytes]:
        """The journal's lines, but for what a test put in there."""
        for file in self.repository.glob("journal*.jsonl"):
            if file.is_file():
                yield from re.findall(
                    rb'(?m)^\{.*"pid": .*"hmac": "\w{64}"\}$', file.read_bytes()
                )


def install_plugin(
    directory: Path, name: str, files: dict[str, str], plugin: str
) -> dict[str, str]:
    """Writes a plugin as pip would install it; the environment that finds it.

    `files` of its package, `plugin` what implements it: `module:Class` in there.
    """
    for file, text in files.items():
        path = directory / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    about = directory / f"{name}-1.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
    )
    (about / "entry_points.txt").write_text(
        f"[ckan.plugins]\n{name} = {name}.{plugin}\n"
    )
    return {"PYTHONPATH": str(directory)}


def fill(portal: Portal, rows: int = 60_000) -> None:
    """Makes dumping and loading take long enough to be interrupted."""
    portal.sql(
        "CREATE TABLE filler AS SELECT i, md5(i::text) || repeat(md5(i::text), 4) AS t"
        f" FROM generate_series(1, {rows}) i; ALTER TABLE filler OWNER TO ckan_default"
    )


def slowed(portal: Portal, *names: str) -> None:
    """PostgreSQL's own programs, a while later: what is cancelled must be under way.

    `names` of those that dump or load all, by default both.
    """
    directory = portal.directory / "slow"
    directory.mkdir()
    for name, when in (("pg_dump", "--no-password"), ("pg_restore", " -j ")):
        wait = "sleep 90 >&- 2>&- <&-" if name in (names or (name,)) else "true"
        (directory / name).write_text(
            f'#!/bin/sh\ncase " $* " in *" -s "*) ;; *"{when}"*) {wait};; esac\n'
            f'exec "{PG_BIN / name}" "$@"\n'
        )
        (directory / name).chmod(0o755)
    portal.write(**{"ckanext.dbmanage.pg_bin": str(directory)})


def as_role(portal: Portal, name: str) -> None:
    portal.write(
        **{
            "sqlalchemy.url": portal.url("database", name, "other"),
            "ckan.datastore.write_url": portal.url("datastore", name, "other"),
        }
    )


def own(portal: Portal, *statements: str) -> None:
    """Runs statements as CKAN's role, in one transaction."""
    with closing(psycopg2.connect(portal.url("database"))) as connection, connection:
        for statement in statements:
            connection.cursor().execute(statement)


def refused(portal: Portal, *arguments: str) -> str:
    """The message of a restore that fails and leaves everything as it was."""
    before, oids, left = portal.state(), portal.oids(), portal.copies()
    done = portal.module("restore", *arguments, "--yes", code=1)
    assert portal.state() == before
    assert portal.oids() == oids
    assert portal.copies() == left
    assert done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    return done.stderr


def forge(path: Path, **changes: object) -> None:
    """Writes a manifest with other facts and all checksums right, but no key."""
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    for name, about in manifest["contents"].items():
        content = (path / name).read_bytes()
        about |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    written = dumped(manifest)
    (path / "manifest.json").write_bytes(written)
    sums = {n: a["sha256"] for n, a in manifest["contents"].items()}
    sums["manifest.json"] = hashlib.sha256(written).hexdigest()
    (path / "SHA256SUMS").write_text("".join(f"{sums[n]}  {n}\n" for n in sorted(sums)))
