"""Portals to measure: databases, a configuration, uploads."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

from tools import (
    BENCH,
    CKAN,
    PG_BIN,
    ROOT,
    SITE_ID,
    E,
    S,
    anew,
    ckan,
    create,
    pg_dump,
    psql,
    run,
    say,
)

OLD = str(S / "venv-2.10/bin/ckan")  # of `bin/services versions`
AT = f"127.0.0.1:{E['DBMANAGE_PG_PORT']}"
TABLE = "00000000-0000-4000-8000-000000000001"  # a table of the DataStore
SEED = ROOT / "bench/portal.sql"
# CKAN 2.10 and 2.11 do not start without these
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
    """A site of its own with `datasets` datasets and a small DataStore.

    `program` is the `ckan` that makes it, `core` its Solr core.
    """

    def __init__(
        self, name: str, datasets: int, program: str = CKAN, core: str = "ckan"
    ) -> None:
        self.program = program
        self.main, self.datastore = name, f"{name}_datastore"
        self.datasets, self.storage = datasets, BENCH / name
        self.ini = str(BENCH / f"{name}.ini")
        shutil.rmtree(self.storage, ignore_errors=True)
        anew(self.storage / "dbmanage/backups")
        owner = f"postgresql://ckan_default:{E['DBMANAGE_CKAN_PASSWORD']}@{AT}"
        reader = f"postgresql://datastore_default:{E['DBMANAGE_READER_PASSWORD']}@{AT}"
        secret = secrets.token_hex(20)  # CKAN 2.10 knows the one, 2.12 the other
        Path(self.ini).write_text(f"""# Written by bench/run
[app:main]
use = egg:ckan
SECRET_KEY = {secret}
beaker.session.secret = {secret}
ckan.site_id = {SITE_ID}
ckan.site_url = http://127.0.0.1
ckan.plugins = dbmanage datastore activity
ckan.storage_path = {self.storage}
ckanext.dbmanage.pg_bin = {PG_BIN}
sqlalchemy.url = {owner}/{self.main}
ckan.datastore.write_url = {owner}/{self.datastore}
ckan.datastore.read_url = {reader}/{self.datastore}
solr_url = http://127.0.0.1:{E["DBMANAGE_SOLR_PORT"]}/solr/{core}
ckan.redis.url = redis://127.0.0.1:{E["DBMANAGE_REDIS_PORT"]}/3
{LOGGING}""")

    def make(self) -> Portal:
        say(f"making the portal of {self.datasets} datasets")
        for name in (self.main, self.datastore):
            create(name)
        run(self.program, "-c", self.ini, "db", "init")
        seed = SEED if self.program == CKAN else as_in_210(SEED)
        psql(self.main, f"\\set n {self.datasets}", f"\\i '{seed}'")
        psql(
            self.datastore,
            """DO $$ BEGIN FOR i IN 1..10 LOOP
            EXECUTE format('CREATE TABLE "table-%s" AS SELECT n AS _id, NULL::tsvector
              AS _full_text, md5(n::text) AS a, n * 1.5 AS b FROM generate_series(1, 500) n', i);
            END LOOP; END $$""",
        )
        self.set_permissions(self.program, self.ini)
        psql(
            self.main,
            f"""UPDATE resource SET id = '{TABLE}', extras = '{{"datastore_active": true}}'
              WHERE id = (SELECT min(id) FROM resource WHERE package_id =
                (SELECT id FROM package WHERE name = 'dataset-1'))""",
        )
        psql(self.datastore, f'ALTER TABLE "table-1" RENAME TO "{TABLE}"')
        for name in (self.main, self.datastore):
            psql(name, "VACUUM (FREEZE, ANALYZE)")
        return self

    def set_permissions(self, program: str, ini: str) -> None:
        """The DataStore's rights, as core's command writes them."""
        script = run(program, "-c", ini, "datastore", "set-permissions").out
        lines = [line for line in script.splitlines() if line[:8] != "\\connect"]
        psql(self.datastore, "\n".join(lines))

    def upload(self, number: int, size: int) -> None:
        """Makes that many uploads, each of another content, sparse but for its head."""
        for n in range(number):
            name = f"{n:06}"
            path = self.storage / "resources" / name[:3] / name[3:] / "upload"
            path.parent.mkdir(parents=True)
            with path.open("wb") as file:
                file.write(name.encode())
                file.truncate(size)

    def back_up(self, *arguments: str) -> str:
        """The id of a new backup."""
        ckan(self, "db", "backup", "--quiet", *arguments)
        return run(CKAN, "-c", self.ini, "db", "backups", "latest").out.split()[1]

    def dump_file(self) -> tuple[float, str]:
        """Seconds of `pg_dump`, and its file."""
        file = str(BENCH / "peer.dump")
        return pg_dump(self.main, file), file


def as_in_210(seed: Path) -> Path:
    """The seed for CKAN 2.10, whose extras are rows of their own."""
    text = seed.read_text()
    text = text.replace("image_url,extras)", "image_url)").replace(
        ",'','{}' from", ",'' from"
    )
    text = text.replace("plugin_data,extras)", "plugin_data)")
    text = re.sub(r",null,\n +jsonb_build_object\(.*\)\n", ",null\n", text)
    keys = "('spatial'), ('frequency'), ('temporal_start'), ('contact'), ('source_id')"
    extras = f"""insert into package_extra (id, package_id, key, value, state)
      select md5(p.id || key)::uuid::text, p.id, key, md5(p.id), 'active'
      from package p, (values {keys}) k (key);"""
    older = BENCH / "portal-2.10.sql"
    older.write_text(text.replace("commit;", f"{extras}\ncommit;"))
    return older


def random_file(path: Path, megabytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))
