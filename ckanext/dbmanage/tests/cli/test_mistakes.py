"""What a person may do wrong: each ends in a sentence that says what to do.

No other is here whose test stands where it belongs: a disk that is full, a role without
CREATEDB (`engine/restore/test_preflight`), files of another user (`operations/
test_unreadable`, `engine/test_owner`), one thing that is not in a backup (`operations/
test_then`), what is no archive (`engine/archive/test_contents`), a backup of another
site, a line of JSON that is wrong, times for `arm` (`operations/test_allowed`), the name
of the site (`cli/test_questions`), an old pg_dump (`engine/archive/test_contents`).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..support.offsite import set_remote
from ..support.portal import Portal

#: the id of a backup that is forgotten
GONE = "20260101T000000Z"
OPTION = "ckanext.dbmanage."


@pytest.fixture(scope="module")
def shared(
    template: Portal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Portal]:
    """A portal with two backups, and one that was forgotten; none of it changes."""
    portal = Portal(tmp_path_factory.mktemp("mistakes"), f"mis{os.getpid()}")
    portal.write(**{"ckan.site_title": "Open Data"})
    portal.become(template)
    portal.backup()
    portal.backup("--only", "files")
    portal.repository.joinpath(portal.backup("--only", "files").name).rename(
        portal.repository / GONE
    )
    portal.module("forget", GONE, "--yes")
    before = portal.state()
    yield portal
    assert portal.state() == before
    portal.drop()


@pytest.fixture(scope="module")
def desk(shared: Portal) -> Path:
    """A directory in which somebody works, with files of every wrong kind."""
    path = shared.directory / "desk"
    path.mkdir()
    for name, content in {
        "table.csv": b"name,title\nparks,Parks\n",
        "table.jsonl.gz": gzip.compress(b"name,title\n"),
        "list.json": b'[{"name": "parks"}]\n',
        "portal.sql": b"-- PostgreSQL database dump\nSELECT 1;\n",
        "empty.dump": b"",
        "users.jsonl": b'{"name": "user-1", "id": "u1"}\n',
        "ckan.txt": b"no section\n",
    }.items():
        (path / name).write_bytes(content)
    (path / "folder").mkdir()
    return path


@contextmanager
def having(portal: Portal, options: dict[str, str]) -> Iterator[None]:
    """The portal while its configuration file has these options, or lacks the empty."""
    before = portal.options
    portal.options = {k: v for k, v in (before | options).items() if v}
    portal.write()
    try:
        yield
    finally:
        portal.options = before
        portal.write()


def there(portal: Portal) -> set[object]:
    """What a mistake leaves as it was; rows are compared at the end of them all."""
    files = {
        (str(path.relative_to(portal.directory)), path.stat().st_mtime_ns)
        for path in portal.directory.rglob("*")
        if path.is_file()
        and path != portal.ini
        # that somebody has tried is noted
        and path.name not in (".lock", "journal.jsonl", ".sending", ".telling")
        and "webassets" not in path.parts
    }
    return {*portal.oids(), *portal.copies(), *files}


def named(portal: Portal, desk: Path, text: str) -> str:
    """A text with the names of this portal in the place of those in braces."""
    names = {
        "{id}": min(each.name for each in portal.repository.glob("2*Z")),
        "{repository}": str(portal.repository),
        "{storage}": str(portal.storage),
        "{desk}": str(desk),
        "{server}": portal.url("database").rpartition("/")[0],
        "{solr}": os.environ["CKAN_SOLR_URL"],
    }
    return re.sub(r"\{\w+\}", lambda found: names[found[0]], text)


def said(
    portal: Portal, desk: Path, line: str, env: dict[str, str] | None = None
) -> str:
    """What a line ends in that is typed there; nothing may have changed."""
    before, run = there(portal), portal.module
    if line.startswith("ckan "):
        line, run = line.removeprefix("ckan "), portal.ckan
    words = shlex.split(named(portal, desk, line))
    done = run(*words, code=None, cwd=desk, env=env or {})
    told = " ".join(done.stderr.split())
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in told and "wr0ng" not in told, told
    assert [*(there(portal) ^ before)] == []
    return told


def expect(portal: Portal, desk: Path, told: str, found: str) -> None:
    """What stands between … is said, in this order."""
    parts = [re.escape(part.strip()) for part in named(portal, desk, told).split("…")]
    assert re.search(".*".join(parts), found), found


#: what is typed after `python -m ckanext.dbmanage -c ckan.ini`, or as `ckan …`; and
#: what is said then
TYPED = """
bakcup                                       | No such command 'bakcup' … Did you mean … backup
ckan db bakcup                               | No such command 'bakcup' … Did you mean … backup
ckan dbmanage backup --keep                  | in `ckan db`: `ckan db backup --keep`
export datasets                              | runs CKAN's own code: `… db export`
backup --quite                               | No such option … --quiet
backup --only database,files                 | is not one of 'database', 'datastore', 'files'
backups 20991231T000000Z                     | no backup '20991231T000000Z' … backups` lists
backups lastest                              | Did you mean latest? `
backups {repository}/{id}                    | Did you mean {id}?
backups https://portal.test/x/{id}           | Did you mean {id}?
backups --fetch x                            | --fetch needs the ID of a backup
backups {id} --fetch resources/x -O y        | holds no upload 'resources/x': files.jsonl.zst lists
verify 20260101T000000Z                      | It was deleted 2… backups` lists
verify {id} --all                            | give either an ID or --all
verify --sample 5%                           | --sample is for --remote
keep ./table.csv                             | no backup './table.csv' … backups` lists
keep                                         | Missing argument 'ID'
forget latest --yes                          | name the backup by its id, 2
forget {id}                                  | no terminal to ask on: add --yes
restore latest                               | no terminal to ask on: add --yes
restore latest --only databse --yes          | is not one of 'database', 'datastore', 'files'
restore latest --datset x --yes              | No such option … --dataset
restore https://u:wr0ng@h/p.dump             | this is an address … `curl -fLO ADDRESS`
restore postgresql://u:wr0ng@h/p             | is brought in by `… load`
restore portal.sql --yes                     | For the file portal.sql in this directory write ./portal.sql
restore ./portl.sql --yes                    | no file or directory './portl.sql'. Did you mean ./portal.sql?
restore ./portal.sql --trust --yes           | is plain SQL … pg_dump -Fc
restore ./empty.dump --trust --yes           | not an archive … make one with
restore ./table.csv --trust --yes            | not an archive … make one with
restore folder/ --yes                        | folder/ is no backup: give the directory of one
restore . --yes                              | . is no backup: give the directory of one
restore {repository} --yes                   | is no backup … such as {repository}/2
restore {id} --preview --json --as x         | --as is for one dataset
load {id} --yes                              | a backup comes back by `… restore {id}`
load table.csv --yes                         | not an archive … make one with
load mysql://u:wr0ng@h/x --yes               | this is an address
load postgresql://u:wr0ng@h/x --yes          | an address with a password is refused … ~/.pgpass
load postgresql://u@127.0.0.1:1/x --yes      | Connection refused … is the server up
dump nowhere/x.dump                          | there is no directory
dump .                                       | File '.' is a directory
dump x.dump --from folder                    | no backup 'folder' … backups` lists
dump s3://bucket/x.dump                      | this is an address
history dataset datset-12                    | Did you mean dataset-12 or
history datset x                             | is not one of 'dataset', 'organization'
arm 2026                                     | no backup '2026' … backups` lists
arm latest --for soon                        | is not a time such as 90s, 30m, 2h or 1d
arm undo --to delete                         | there is no --to for undo
maintenance onn                              | is not one of 'on', 'off', 'status'
maintenance on --until 25:00                 | is not a time of the day such as 15:40
push                                         | no other place is set: ckanext.dbmanage.remote.repository
pull latest                                  | no other place is set: ckanext.dbmanage.remote.repository
undo --yes                                   | there is nothing to undo
notify --test                                | there is no door to try: set ckanext.dbmanage.notify.email
recover --yes                                | no other place is named: `--from` names one
nightly --instal                             | No such option … --install
upgrade --version nonsense --rehearse        | no way from … to the version 'nonsense'
ckan db import datasets table.csv            | table.csv holds no record: line 1 is not JSON … export datasets -O FILE`
ckan db import datasets table.jsonl.gz       | holds no record: line 1 is not JSON
ckan db import datasets list.json            | holds no record: line 1 is JSON, but no object
ckan db import users nothing.jsonl           | File 'nothing.jsonl' does not exist
ckan db import users https://h/x.gz          | this is an address
ckan db import users users.jsonl --update --resume | exclude each other: give one
ckan db export datasets --secrets            | --secrets is for KIND users only
ckan db export datasets -O folder            | File 'folder' is a directory
ckan db export datasets -O no/x.jsonl        | there is no directory
ckan db export users -O ../storage/resources/x | choose another place
ckan db reindex --changed --deep             | exclude each other: give one
ckan db reindex --jobs 0                     | is not in the range 1<=x<=64
"""
CASES = [tuple(map(str.strip, row.split(" | "))) for row in TYPED.strip().splitlines()]


@pytest.mark.parametrize(("line", "told"), CASES, ids=[line for line, _ in CASES])
def test_what_is_typed_wrong(shared: Portal, desk: Path, line: str, told: str) -> None:
    expect(shared, desk, told, said(shared, desk, line))


#: what an option is, what is typed, and what is said
SET = """
ckanext.dbmanage.jobs = many                 | backup               | ckanext.dbmanage.jobs is 'many', not a number from 1
ckanext.dbmanage.jobs = 0                    | backup               | ckanext.dbmanage.jobs is '0', not a number from 1
ckanext.dbmanage.undo_days = -1              | prune                | undo_days is '-1', not a number from 0
ckanext.dbmanage.keep_daily = seven          | prune                | keep_daily is 'seven', not a number from 0
ckanext.dbmanage.keep_within = soon          | prune                | keep_within: 'soon' is not a time such as
ckanext.dbmanage.parts = databse             | backup               | 'databse' … database, datastore
ckanext.dbmanage.web_restore = yes           | arm latest           | is 'yes': choose from armed, always, never
ckanext.dbmanage.admin_url = nowhere         | restore latest --yes | is not a URL
ckanext.dbmanage.pg_bin = /nowhere           | backup               | no pg_dump was found: install postgresql-client-… or set ckanext.dbmanage.pg_bin
ckanext.dbmanage.repository = /proc/x        | backup               | cannot write to the repository /proc/x
ckanext.dbmanage.repository = {storage}/storage | backup               | set ckanext.dbmanage.repository to another place
ckanext.dbmanage.repository = {desk}/table.csv | backup               | cannot write to the repository {desk}/table.csv … Not a directory
ckanext.dbmanage.repository = {desk}/table.csv | backups              | cannot read {desk}/table.csv: Not a directory
ckanext.dbmanage.notify.apprise_file = /nowhere | notify --test        | apprise_file: /nowhere: No such file
ckanext.dbmanage.remote.repository = /x      | push                 | remote.repository is set, but no password
ckanext.dbmanage.public_path = dump          | ckan db publish      | is 'dump', not a path such as /dump
sqlalchemy.url =                             | backup               | sqlalchemy.url is not set
sqlalchemy.url = ckan@localhost              | backup               | sqlalchemy.url is not a URL that SQLAlchemy
sqlalchemy.url = {server}/nowhere            | backup               | database "nowhere" does not exist … is … sqlalchemy.url
sqlalchemy.url = postgresql://ckan_default:wr0ng@127.0.0.1:1/x | backup               | Connection refused … is the server up
SECRET_KEY =                                 | backup               | neither SECRET_KEY nor beaker.session.secret is set
ckan.storage_path =                          | backup               | no place for backups: set ckanext.dbmanage.repository
ckan.redis.url = redis://127.0.0.1:1/0       | maintenance on       | Redis does not answer
solr_url = http://127.0.0.1:1/solr/ckan      | ckan db reindex      | Solr
solr_url = {solr}_none                       | ckan db reindex      | Solr
ckan.plugins = datastore                     | ckan db backup       | the plugin is not enabled. Add dbmanage to ckan.plugins in
"""
SETTINGS = [tuple(map(str.strip, row.split(" | "))) for row in SET.strip().splitlines()]


@pytest.mark.parametrize(("option", "line", "told"), SETTINGS)
def test_what_is_set_wrong(
    shared: Portal, desk: Path, option: str, line: str, told: str
) -> None:
    name, _, value = map(str.strip, named(shared, desk, option).partition("="))
    options = {name: value}
    if name == "SECRET_KEY":
        options["beaker.session.secret"] = ""
    with having(shared, options):
        expect(shared, desk, told, said(shared, desk, line))


def test_the_wrong_configuration_file(shared: Portal, desk: Path) -> None:
    for file, told in {
        "nowhere.ini": f"Config file not found: {desk}/nowhere.ini",
        "ckan.txt": f"{desk}/ckan.txt cannot be read … `-c FILE` names another one",
        "folder": f"{desk}/folder cannot be read … `-c FILE` names another one",
    }.items():
        expect(shared, desk, told, said(shared, desk, f"-c {file} backup"))
    expect(
        shared,
        desk,
        "Config file not found",
        said(shared, desk, "ckan -c nowhere.ini db"),
    )


def test_an_option_is_named_that_is_none(shared: Portal) -> None:
    wrong = {
        "ckanext.dbmanage.repositry": "ckanext.dbmanage.repository",
        "ckanext.dbmange.undo_days": "ckanext.dbmanage.undo_days",
        "ckan.dbmanage.keep_daily": "ckanext.dbmanage.keep_daily",
        "dbmanage.jobs": "ckanext.dbmanage.jobs",
    }
    before = {f"{OPTION}keep_days": "7"}  # what it was called once
    with having(shared, dict.fromkeys(wrong, "1") | before):
        found = json.loads(shared.module("doctor", "--json", code=1).stdout)
    told = [each["text"] for each in found if each["name"] == "configuration"]
    assert sorted(told) == sorted(
        f"{option} is no option, and does nothing. Did you mean {meant}?"
        for option, meant in wrong.items()
    )


def test_a_program_that_is_not_there(
    shared: Portal, desk: Path, tmp_path: Path
) -> None:
    before = dict(shared.options)
    set_remote(shared, str(tmp_path / "there"))
    shared.options, remote = before, shared.options
    with having(shared, remote):
        told = said(shared, desk, "push", {"PATH": str(tmp_path)})
    expect(shared, desk, "apt-get install restic", told)
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n")
    old.chmod(0o755)
    (tmp_path / "pg_restore").symlink_to(old)
    with having(shared, {f"{OPTION}pg_bin": str(tmp_path)}):
        told = said(shared, desk, "backup")
    expect(
        shared,
        desk,
        "pg_dump 9 cannot dump PostgreSQL … install postgresql-client-",
        told,
    )
