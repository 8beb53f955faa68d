"""The manual's own commands, run as they stand there; and each option by some test."""

from __future__ import annotations

import filecmp
import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import make_url

from ckanext.dbmanage.engine.backup import by_hand

from .support.cluster import BIN, PASSWORD, PG_BIN, SUPERUSER, client, query
from .support.exports import AS_CKAN_MAKES, WITHOUT_RECORDS
from .support.manual import commands, run
from .support.offsite import set_remote, snapshots
from .support.older import made_by
from .support.portal import Portal
from .support.web import Web


def test_restore(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    portal.damage()
    restore, maintenance = commands("restore.rst")
    assert "lost" in run(portal, restore)
    assert portal.state() == before
    assert "minutes): by hand" in run(portal, maintenance)


def test_undo(portal: Portal) -> None:
    before = portal.state()
    portal.backup()
    portal.damage()
    damaged = portal.state()
    there_and_back, again = commands("undo.rst")
    run(portal, there_and_back)
    assert portal.state() == damaged
    run(portal, again)
    assert portal.state() == before


def test_somebody_deleted_a_dataset(portal: Portal) -> None:
    table = "00000001-0000-4000-8000-000000000000"
    portal.sql(
        "UPDATE package SET name = 'parks' WHERE id = 'id-7';"
        f"UPDATE resource SET id = '{table}' WHERE id = 'r-7'"
    )
    backup = portal.backup("--only", "database", "--only", "datastore").name
    portal.sql("UPDATE package SET state = 'deleted' WHERE id = 'id-7'")
    portal.sql(f'DELETE FROM "{table}"', "datastore")

    def state() -> list[tuple]:
        return [
            *portal.sql("SELECT state FROM package WHERE id = 'id-7'"),
            *portal.sql(f'SELECT count(*) FROM "{table}"', "datastore"),
        ]

    asked, others, look, back, undo = commands("dataset.rst")
    said = run(portal, asked)
    assert backup in said and "deleted" in said
    kinds = ("organization", "group", "user", "resource", '{"kind": "table"')
    said = run(portal, others, RESOURCE=table).splitlines()
    for kind in kinds:
        assert [line for line in said if line.startswith(kind)], kind
    said = run(portal, look, BACKUP=backup)
    assert "dataset parks" in said and "now 0 rows, then 50 rows" in said
    assert state() == [("deleted",), (0,)]
    assert "dataset parks" in run(portal, back, BACKUP=backup)
    assert state() == [("active",), (50,)]
    assert undo.splitlines() == ["ckan db undo --yes"] * 2
    once = undo.splitlines()[0]
    run(portal, once)
    assert state() == [("deleted",), (0,)]
    run(portal, once)
    assert state() == [("active",), (50,)]


def test_prove(portal: Portal) -> None:
    (block,) = commands("prove.rst")
    assert "proven" in run(portal, block)


def test_disaster_recovery(portal: Portal, tmp_path: Path) -> None:
    """Neither databases nor uploads nor an index: only the copy and the configuration."""
    before = portal.state()
    portal.backup()
    copy = tmp_path / "copy"
    shutil.copytree(portal.repository, copy)
    for name in portal.names.values():
        query(f'DROP DATABASE "{name}" WITH (FORCE)')
    shutil.rmtree(portal.storage)
    blocks = commands("disaster.rst")[2:]
    assert len(blocks) == 3
    for block in blocks:
        run(portal, block, COPY=str(copy), STORAGE=str(portal.storage))
    assert portal.state() == before


def test_disaster_recovery_from_another_place(
    portal: Portal, serve: Callable[[Portal], Web], tmp_path: Path
) -> None:
    """Nothing but the address and the password, in an empty directory."""
    before, there = portal.state(), str(tmp_path / "there")
    set_remote(portal, there)
    first = portal.backup().name
    portal.module("push")
    password, empty = tmp_path / "password", tmp_path / "empty"
    shutil.copy2(portal.directory / "restic.password", password)
    for name in portal.names.values():
        query(f'DROP DATABASE "{name}" WITH (FORCE)')
    ini = portal.ini.read_bytes()
    shutil.rmtree(portal.directory)
    empty.mkdir()
    recover, doctor, *_ = commands("disaster.rst")
    line, recover = recover.split("\n", 1)
    assert line.endswith("/activate")
    own = {"REPOSITORY": there, "PASSWORD_FILE": str(password)}
    said = run(portal, f"cd {empty}\n{recover}", **own)
    assert f"from backup {first}\n" in said
    assert portal.state() == before
    assert portal.ini.read_bytes() == ini
    assert portal.ini.stat().st_mode & 0o777 == 0o600
    assert not list(empty.iterdir())
    # what a night costs after that: nothing
    shutil.copy2(password, portal.directory / "restic.password")
    assert "the search index is in step" in run(portal, doctor)
    second = portal.backup()
    for part in ("database.list", "datastore.list"):
        before, after = (
            (path / part).read_text().splitlines()
            for path in (portal.repository / first, second)
        )
        # what is of no table: when it was dumped, and in which order it stands
        assert all(line.endswith(' ""') for line in set(after) - set(before))
    assert portal.backups()[0]["added"]["files"] == 0
    (line,) = portal.module("push").stdout.splitlines()
    assert line.startswith(second.name)
    one, other = sorted(snapshots(there), key=lambda each: each["time"])
    assert other["parent"] == one["id"]
    web = serve(portal)
    page = web.ask("/dataset/dataset-1")
    assert page.status == 200 and "東京 1" in page.body


def test_recovery_by_hand_with_stock_tools(portal: Portal, tmp_path: Path) -> None:
    """Out of another place; all that is on the disk is gone."""
    there, password = str(tmp_path / "there"), portal.directory / "restic.password"
    set_remote(portal, there)
    name = portal.backup().name
    portal.module("push")
    kept = tmp_path / "kept"
    portal.repository.rename(kept)
    block, by_restic = commands("recovery.rst")
    assert block == by_hand.COMMANDS  # what the page of a backup shows
    copy = tmp_path / "copy"
    own = {"REPOSITORY": there, "PASSWORD_FILE": str(password), "COPY": str(copy)}
    path = copy / name
    assert run(portal, by_restic, **own).endswith(f"\n{path}\n")
    for each in (name, "objects"):
        different = filecmp.dircmp(kept / each, copy / each)
        assert not different.diff_files and not different.left_only
    assert (copy / "site" / "ckan.ini").read_bytes() == portal.ini.read_bytes()
    url = portal.site().databases["database"].url
    storage = tmp_path / "storage"
    try:
        run(
            portal,
            block,
            BACKUP=str(path),
            WORK=str(tmp_path),
            STORAGE=str(storage),
            PGHOST=str(url.host),
            PGPORT=str(url.port),
            PGUSER=str(url.username),
            PGPASSWORD=str(url.password),
        )
        state = portal.state()
        portal.names = {"database": "recovered", "datastore": "recovered_datastore"}
        portal.storage = storage
        assert portal.state() == state
    finally:
        for name in ("recovered", "recovered_datastore"):
            query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def test_another_place(portal: Portal, tmp_path: Path) -> None:
    password, copy, _, back, thinned = commands("offsite.rst")
    there, file = tmp_path / "there", tmp_path / "password"
    run(portal, password, PASSWORD_FILE=str(file))
    lines = commands("offsite.rst", "ini")[0].splitlines()
    options = [line.partition(" = ")[0] for line in lines]
    portal.write(**dict(zip(options, (str(there), str(file)), strict=True)))
    before = portal.backup()
    assert "here, there" in run(portal, copy)
    kept = tmp_path / "kept"
    shutil.copytree(portal.repository, kept)
    shutil.rmtree(portal.repository)
    assert before.name in run(portal, back)
    for name in (before.name, "objects"):
        different = filecmp.dircmp(kept / name, portal.repository / name)
        assert not different.diff_files and not different.left_only
    assert "it is here too" in run(portal, thinned)


#: as sudo is on Debian; with passwords in place of the server's trust in its users
_SUDO = """#!/bin/sh
shift
export PGHOST=127.0.0.1 PGPORT={port} PGUSER=postgres PGPASSWORD='{password}'
[ "$1" = postgres ] && shift && exec "$@"
shift
psql -q -c "ALTER ROLE nobody PASSWORD 'nobody'" </dev/null
export PGUSER=nobody PGPASSWORD=nobody
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""


def test_an_archive_is_made_of_plain_sql(portal: Portal, tmp_path: Path) -> None:
    before = portal.state()
    place = SUPERUSER.set(database=portal.names["database"])
    url = place.render_as_string(hide_password=False)
    plain = client(PG_BIN / "pg_dump", url, "-Fp", capture_output=True).stdout
    # of a newer server, with a command amid it
    odd = b"SET transaction_timeout = 0;\n\\! id -u\n"
    file = tmp_path / "portal.sql.gz"
    file.write_bytes(gzip.compress(odd + plain))
    portal.damage()
    (block,) = commands("plain-sql.rst")
    # the page shows what a refusal tells
    told = portal.module("load", file.name, "--yes", cwd=tmp_path, code=1).stderr
    assert "CVE-2025-8714" in told and "Traceback" not in told
    for line in block.replace(file.name, str(file.resolve())).splitlines():
        assert " ".join(line.split()) in " ".join(told.split())
    sudo = tmp_path / "sudo"
    sudo.write_text(_SUDO.format(port=SUPERUSER.port, password=SUPERUSER.password))
    sudo.chmod(0o755)
    # whom a hidden command runs as
    assert run(portal, f"cd {tmp_path}; PATH={tmp_path}:$PATH\n{block}") == "65534\n"
    portal.module("load", "from_sql.dump", "--yes", "--no-backup", cwd=tmp_path)
    after = portal.state()
    main = [key for key in before if key.startswith("database:")]
    assert main and {k: after[k] for k in main} == {k: before[k] for k in main}


def test_export(portal: Portal, tmp_path: Path) -> None:
    for block in commands("export.rst"):
        run(portal, f"cd {tmp_path}\n{block}")
    lines = (tmp_path / "my_datasets.jsonl").read_text().splitlines()
    assert len(lines) == 36
    assert len((tmp_path / "everything.jsonl").read_text().splitlines()) == 40


def test_move(
    portal: Portal, make_portal: Callable[..., Portal], tmp_path: Path
) -> None:
    portal.sql(AS_CKAN_MAKES)
    other = make_portal()
    other.sql(WITHOUT_RECORDS)
    out, into, again, vocabularies = commands("move.rst")
    run(portal, f"cd {tmp_path}\n{out}")
    # a test that runs beside this one looks for passwords in every program's arguments
    urls = {
        name: str(make_url(each.url("database"))._replace(password=None))
        for name, each in (("OLD", portal), ("NEW", other))
    }
    run(other, vocabularies, PGPASSWORD=PASSWORD, **urls)
    assert other.sql("SELECT id, name FROM vocabulary") == [("voc", "genre")]
    run(other, f"cd {tmp_path}\n{into}")
    run(other, f"cd {tmp_path}\n{again}")
    assert other.sql("SELECT count(*) FROM package") == [(39,)]


def test_upgrading(portal: Portal) -> None:
    made_by(portal, "2.10")
    portal.sql(
        "INSERT INTO package_extra (id, package_id, key, value, state)"
        " VALUES ('e', 'id-1', 'k', 'v', 'active')"
    )
    old = portal.sql("SELECT version_num FROM alembic_version")
    *steps, undo = commands("upgrading.rst")
    said = [run(portal, step) for step in steps]
    assert "the upgrade would work" in said[0] and "upgraded by" in said[1]
    assert portal.sql("SELECT extras FROM package WHERE id = 'id-1'") == [({"k": "v"},)]
    before = portal.directory / "before.ini"
    core = os.environ["CKAN_SOLR_URL"]
    before.write_text(portal.ini.read_text().replace(core, f"{core}_210"))
    run(portal, undo, OLD=f"{BIN.parent.parent}/venv-2.10", OLD_INI=str(before))
    assert portal.sql("SELECT version_num FROM alembic_version") == old


def test_search_index(portal: Portal) -> None:
    for block in commands("reindex.rst"):
        run(portal, block)
    done = portal.ckan("search-index", "check")
    assert "Packages not indexed = 0" in done.stdout


def test_publish_and_use_the_dumps(
    portal: Portal,
    make_portal: Callable[..., Portal],
    serve: Callable[[Portal], Web],
    tmp_path: Path,
) -> None:
    # ids as CKAN makes them: it takes back no others
    columns = (
        ("group", "id"), ("member", "group_id"), ("member", "table_id"), ("package", "id"),
        ("package", "owner_org"), ("resource", "id"), ("resource", "package_id"),
        ("package_tag", "package_id"),
    )  # fmt: skip
    changes = [f'UPDATE "{t}" SET {c} = md5({c})::uuid::text' for t, c in columns]
    portal.sql("; ".join(["SET session_replication_role = replica", *changes]))
    publish, fetch, load = commands("publish.rst")
    run(portal, publish)
    url = f"http://127.0.0.1:{serve(portal).port}/dump"
    assert "Dataset" in run(portal, f"cd {tmp_path}\n{fetch}", URL=url)
    for block in commands("publish.rst", "python"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", block],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "An organization" in done.stdout and "36" in done.stdout
    other = make_portal()
    other.sql('TRUNCATE package, "group", tag, member, resource CASCADE')
    run(portal, f"cd {tmp_path}\n{load}", URL=url, OTHER_INI=str(other.ini))
    assert other.sql("SELECT count(*) FROM package WHERE state = 'active'") == [(36,)]
