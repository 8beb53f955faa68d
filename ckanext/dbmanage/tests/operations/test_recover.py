"""A portal comes back out of another place, on a machine that has nothing of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from ckanext.dbmanage.cli import recover
from ckanext.dbmanage.engine.clock import id_stamp, parse_id
from ckanext.dbmanage.engine.signature import dumped, sign

from ..support.cluster import SUPERUSER, query
from ..support.offsite import SECRET, restic, set_remote
from ..support.portal import Portal, as_role


def _gone(portal: Portal) -> None:
    """The machine burns down."""
    for name in portal.names.values():
        query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    shutil.rmtree(portal.directory)
    portal.directory.mkdir()


def _pushed(portal: Portal, there: Path) -> str:
    set_remote(portal, str(there))
    name = portal.backup().name
    portal.module("push")
    (there.parent / "password").write_text(SECRET)
    (there.parent / "password").chmod(0o600)
    return name


def _options(there: Path) -> list[str]:
    return ["--from", str(there), "--password-file", str(there.parent / "password")]


def _planted(there: Path, made: Path, name: str, host: str) -> None:
    """A snapshot by hand of a backup that was changed."""
    moment = f"{parse_id(name):%Y-%m-%d %H:%M:%S}"
    restic(
        str(there), "backup", *(path.name for path in made.iterdir()), "--host", host,
        "--tag", "dbmanage", "--tag", name, "--time", moment, cwd=made,
    )  # fmt: skip


def test_from_nothing(portal: Portal, role: Callable[..., str], tmp_path: Path) -> None:
    """The role is missing, and the newest snapshots are bad."""
    there, made, to = tmp_path / "there", tmp_path / "made", tmp_path / "backups"
    name = role("dbm_new", "CREATEDB IN ROLE ckan_default")
    as_role(portal, name)
    portal.write(**{"ckan.plugins": "dbmanage activity"})
    query(f'DROP DATABASE "{portal.names.pop("datastore")}"')
    before, site = portal.state(), portal.options["ckan.site_id"]
    first = _pushed(portal, there)
    for number, of in ((1, site), (2, site), (3, "other")):
        later = id_stamp(parse_id(first) - timedelta(seconds=-number))
        shutil.copytree(portal.repository / first, made / later)
        (made / "site").mkdir(exist_ok=True)
        text = portal.ini.read_text().replace(
            "ckan.site_id = ", f"ckan.site_id = {number}"
        )
        (made / "site" / "ckan.ini").write_text(
            portal.ini.read_text() if number == 1 else text
        )
        _planted(there, made, later, of)
        shutil.rmtree(made / later)
    while id_stamp() <= later:  # those of the future count for nothing
        time.sleep(0.2)
    _gone(portal)
    query(f"DROP ROLE {name}")

    command = ["recover", *_options(there), "--to", str(to)]
    told = portal.module(*command, "--yes", code=1).stderr
    assert f"say --host and one of {site} and other" in told
    command = ["recover", *_options(there), "--to", str(to), "--host", site]
    assert "add --yes" in portal.module(*command, code=2).stderr
    told = portal.module(*command, "--yes", code=1).stderr
    assert "not signed with the secret of its ckan.ini. Another copy" in told
    assert "its ckan.ini is of another site" in told
    assert f"CREATE ROLE {name} LOGIN CREATEDB;\n" in told
    assert f"\\password {name}" in told
    assert portal.ini.exists() and not to.exists()
    admin = f"postgresql://{SUPERUSER.username}@127.0.0.1:{SUPERUSER.port}"
    with_password = ["recover", "--yes", "--admin", "postgresql://a:b@c"]
    refused = portal.module(*with_password, *_options(there), code=2)
    assert "address with a password is refused" in refused.stderr
    own = {"PGPASSWORD": str(SUPERUSER.password)}
    done = portal.module(*command, "--yes", "--admin", admin, env=own)
    assert f"made the role '{name}'" in done.stderr
    assert "could have written both" in done.stderr
    assert done.stdout.endswith(f"recovered portal.test from backup {first}\n")
    assert "start CKAN's web server" in done.stderr
    assert portal.state() == before
    assert f"ckanext.dbmanage.repository = {to}\n" in portal.ini.read_text()
    assert not portal.copies()
    assert json.loads((to / ".remote.json").read_text())["whole"].keys() == {first}

    # once more: what is live stays
    portal.sql("DELETE FROM member")
    after, oids = portal.state(), portal.oids()
    done = portal.module("recover", first, *command[1:], "--yes", "--quiet")
    assert portal.state() == after and portal.oids() == oids
    assert not [each for each in done.stderr.splitlines() if each[:1] not in "W "]


def test_what_is_live_is_not_overwritten(portal: Portal, tmp_path: Path) -> None:
    """Neither databases nor ckan.ini; somebody who is there is asked for the name."""
    there = tmp_path / "there"
    name = _pushed(portal, there)
    shutil.rmtree(portal.repository)
    portal.write(**{"smtp.password": "hidden-4a1b"})
    before, oids, ini = portal.state(), portal.oids(), portal.ini.read_bytes()
    told = portal.module("recover", name, *_options(there), "--yes", code=1).stderr
    assert "--yes writes over nothing that is live" in told
    assert "smtp.password is set here, and was not set there" in told
    assert "hidden-4a1b" not in told
    assert portal.state() == before and portal.oids() == oids
    assert portal.ini.read_bytes() == ini
    # a newer one of somebody who has the password, but not the secret of the file here
    made, later = tmp_path / "made", id_stamp()
    brought = Path(shutil.copytree(portal.repository / name, made / later))
    manifest = json.loads((brought / "manifest.json").read_bytes()) | {"id": later}
    del manifest["hmac"]
    signed = sign(manifest, "evil", "manifest")
    (brought / "manifest.json").write_bytes(dumped(signed))
    (made / "site").mkdir()
    evil = portal.ini.read_text().replace(portal.options["SECRET_KEY"], "evil")
    (made / "site" / "ckan.ini").write_text(evil)
    _planted(there, made, later, portal.options["ckan.site_id"])
    shutil.rmtree(portal.repository)
    told = portal.module("recover", *_options(there), "--yes", code=1).stderr
    assert f"backup {later} from the other place is not this site's" in told
    assert f"or `python3 -m ckanext.dbmanage restore {name}`" in " ".join(told.split())
    portal.write(SECRET_KEY="another", **{"beaker.session.secret": "another"})
    told = portal.module("recover", *_options(there), "--yes", code=1).stderr
    assert "has another SECRET_KEY than the ckan.ini of backup" in told
    assert "portal-secret-5fd1" not in told
    told = portal.module("recover", "--from", "rest:http://a:b@c/", "--yes", code=2)
    assert "RESTIC_REPOSITORY_FILE" in told.stderr


def test_a_damaged_one_that_is_here_can_be_brought_anew(
    portal: Portal, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    name = _pushed(portal, there)
    with (portal.repository / name / "database.list").open("ab") as file:
        file.write(b"rotten\n")
    for database in portal.names.values():
        query(f'DROP DATABASE "{database}" WITH (FORCE)')
    shutil.rmtree(portal.storage / "resources")
    shutil.rmtree(portal.storage / "storage")
    told = portal.module("recover", *_options(there), "--yes", code=1).stderr
    assert "is damaged:\n  database.list: " in told
    assert f"forget --newest {name}` takes it away there alone" in told
    portal.module("forget", "--newest", name, "--yes")
    assert not (portal.repository / name).exists()


def test_the_question_names_where_libpq_goes(portal: Portal) -> None:
    """A URL may name its server in its options alone, and the DataStore another."""
    portal.write(
        **{
            "sqlalchemy.url": "postgresql://a:s3cret@/main?host=far.example",
            "ckan.datastore.write_url": "postgresql://a:s3cret@other:5433/store",
        }
    )
    told = recover._targets(portal.settings)
    assert "'main' at far.example, the database 'store' at other:5433" in told
    assert "s3cret" not in told


def test_killed_at_any_moment(portal: Portal, tmp_path: Path) -> None:
    chance, there = random.Random("recover"), tmp_path / "there"
    before, kills = portal.state(), int(os.environ.get("DBMANAGE_KILLS", "1"))
    name = _pushed(portal, there)
    _gone(portal)
    command = ["recover", *_options(there), "--yes"]
    for _ in range(kills):
        with portal.start(*command) as process:
            time.sleep(chance.uniform(0.3, 9))
            process.send_signal(signal.SIGKILL)
    told = portal.module(*command).stdout
    assert told.endswith(f"recovered portal.test from backup {name}\n")
    assert portal.state() == before
    assert not portal.copies()
    assert not list(portal.repository.glob(".*.partial"))
