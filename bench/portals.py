#!/usr/bin/env python3
"""Measures the extension against PostgreSQL's own tools, both in the same run.

    bench/run                   everything: some minutes on two cores
    bench/run --quick           a small portal, one round, no figure of memory
    bench/run dump restore …    single figures: dump backup startup memory restore
                                traffic undo uploads middleware export hooks users
                                serving export_memory page reindex upgrade

Needs `bin/services install`, `start` and `grant-createdb`. Its databases (bench_…) are
dropped at its end, whatever ends it; its files are below .services/bench. Exit code 1
when a target was missed. OURS and PEER take turns, the best of the rounds counts; of
what visitors see our worst and the peer's best. With --quick what costs the same at any
size weighs too much: its targets are not binding.
"""

import argparse
import copy
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
S = ROOT / ".services"
BENCH = S / "bench"
if Path(sys.prefix) != S / "venv":
    if not (S / "env").exists():
        sys.exit("bench: first run bin/services install; bin/services start")
    start = '. "$0/env" && exec "$0/venv/bin/python" "$@"'
    os.execv("/bin/bash", ["bash", "-c", start, str(S), __file__, *sys.argv[1:]])

os.umask(0o077)
E = os.environ
PG_BIN, CKAN = E["DBMANAGE_PG_BIN"], str(S / "venv/bin/ckan")
OLD = str(S / "venv-2.10/bin/ckan")  # of `bin/services versions`
AT = f"127.0.0.1:{E['DBMANAGE_PG_PORT']}"
TABLE = "00000000-0000-4000-8000-000000000001"  # a table of the DataStore
SITE_ID = "dbmanage_bench"  # stands in the comment of each database a restore makes
# the environment would win over the configuration file
ENV = {k: v for k, v in E.items() if not k.startswith("CKAN")}
ENV |= {"PGPASSWORD": E["DBMANAGE_CKAN_PASSWORD"], "PGHOST": "127.0.0.1"}
ENV["PATH"] = f"{S / 'venv/bin'}:{E['PATH']}"  # ckanapi looks for ckan there
ENV |= {"PGPORT": E["DBMANAGE_PG_PORT"], "PGUSER": "ckan_default"}


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)
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


# ------------------------------------------------------------------ programs


def run(*command, ok=(0,)):
    """Wall seconds, peak memory in MB and stdout of a program."""
    with open(BENCH / "out", "wb+") as out, open(BENCH / "err", "wb+") as err:
        begun = time.monotonic()
        process = subprocess.Popen(
            command, env=ENV, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in ok:
            err.seek(0)
            sys.exit(f"bench: {command} failed:\n{err.read().decode()[-3000:]}")
        out.seek(0)
        return seconds, usage.ru_maxrss / 1024, out.read().decode()


def psql(database, *arguments):
    command = [f"{PG_BIN}/psql", "-qXAt", "-v", "ON_ERROR_STOP=1", "-d", database]
    return run(*command, *arguments)[2].strip()


def pg_dump(database, file):
    return run(f"{PG_BIN}/pg_dump", "-Fc", "-f", file, "-d", database)[0]


def pg_restore(file, database, ok=(0,)):
    manual = ("--clean", "--if-exists", "-d", database, file)
    return run(f"{PG_BIN}/pg_restore", *manual, ok=ok)[0]


def ckan(portal, *arguments):
    return run(CKAN, "-c", portal.ini, *arguments)[0]


def child(portal, what, *arguments):
    """What a Python process with our engine and nothing else measured, see `inside`."""
    _, memory, out = run(
        sys.executable, __file__, "--inside", what, portal.ini, *arguments
    )
    return json.loads(out) | {"memory": memory}


def quiet():
    """Waits, at most one minute, until others leave the processors to us."""

    def ticks():
        return [
            int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        ]

    end = time.monotonic() + 60
    while time.monotonic() < end:
        before = ticks()
        time.sleep(1)
        spent = [b - a for a, b in zip(before, ticks(), strict=True)]
        if spent[3] + spent[4] > 0.85 * sum(spent):
            return
    say(f"the machine is busy (load {os.getloadavg()[0]:.1f}): measuring all the same")


# ------------------------------------------------------------------- portals


class Portal:
    """A site of its own with `datasets` datasets and a small DataStore.

    `program` is the `ckan` that makes it, `core` its Solr core.
    """

    def __init__(self, name, datasets, program=CKAN, core="ckan"):
        self.program = program
        self.main, self.datastore = name, f"{name}_datastore"
        self.datasets, self.storage = datasets, BENCH / name
        self.ini = str(BENCH / f"{name}.ini")
        shutil.rmtree(self.storage, ignore_errors=True)
        self.storage.mkdir()
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

    def make(self):
        say(f"making the portal of {self.datasets} datasets")
        for name in (self.main, self.datastore):
            create(name)
        run(self.program, "-c", self.ini, "db", "init")
        seed = str(ROOT / "bench/portal.sql")
        if self.program != CKAN:
            seed = as_in_210(seed)
        psql(self.main, "-v", f"n={self.datasets}", "-f", seed)
        psql(
            self.datastore,
            "-c",
            """DO $$ BEGIN FOR i IN 1..10 LOOP
            EXECUTE format('CREATE TABLE "table-%s" AS SELECT n AS _id, NULL::tsvector
              AS _full_text, md5(n::text) AS a, n * 1.5 AS b FROM generate_series(1, 500) n', i);
            END LOOP; END $$""",
        )
        script = run(self.program, "-c", self.ini, "datastore", "set-permissions")[2]
        lines = [line for line in script.splitlines() if line[:8] != "\\connect"]
        psql(self.datastore, "-c", "\n".join(lines))
        psql(
            self.main,
            "-c",
            f"""UPDATE resource SET id = '{TABLE}', extras = '{{"datastore_active": true}}'
              WHERE id = (SELECT min(id) FROM resource WHERE package_id =
                (SELECT id FROM package WHERE name = 'dataset-1'))""",
        )
        psql(self.datastore, "-c", f'ALTER TABLE "table-1" RENAME TO "{TABLE}"')
        for name in (self.main, self.datastore):
            psql(name, "-c", "VACUUM (FREEZE, ANALYZE)")
        return self

    def upload(self, number, size):
        """Makes that many uploads, each of another content, sparse but for its head."""
        for n in range(number):
            name = f"{n:06}"
            path = self.storage / "resources" / name[:3] / name[3:] / "upload"
            path.parent.mkdir(parents=True)
            with path.open("wb") as file:
                file.write(name.encode())
                file.truncate(size)

    def back_up(self, *arguments):
        """The id of a new backup."""
        ckan(self, "db", "backup", "--quiet", *arguments)
        return run(CKAN, "-c", self.ini, "db", "backups", "latest")[2].split()[1]

    def dump_file(self):
        file = str(BENCH / "peer.dump")
        return pg_dump(self.main, file), file


def as_in_210(seed):
    """The seed for CKAN 2.10, whose extras are rows of their own."""
    text = Path(seed).read_text()
    text = text.replace("image_url,extras)", "image_url)").replace(",'','{}' from", ",'' from")
    text = text.replace("plugin_data,extras)", "plugin_data)")
    text = re.sub(r",null,\n +jsonb_build_object\(.*\)\n", ",null\n", text)
    keys = "('spatial'), ('frequency'), ('temporal_start'), ('contact'), ('source_id')"
    extras = f"""insert into package_extra (id, package_id, key, value, state)
      select md5(p.id || key)::uuid::text, p.id, key, md5(p.id), 'active'
      from package p, (values {keys}) k (key);"""
    older = BENCH / "portal-2.10.sql"
    older.write_text(text.replace("commit;", f"{extras}\ncommit;"))
    return str(older)


def create(name, template="template0"):
    drop(name)
    psql(
        "postgres", "-c", f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'"
    )


def drop(*names):
    for name in names:
        # FORCE is refused while autovacuum is in there; without it autovacuum is ended
        ends = f"""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = '{name}' AND usename IN (SELECT current_user)"""
        psql("postgres", "-c", ends, "-c", f"DROP DATABASE IF EXISTS {name}")


def drop_all():
    ours = f"""SELECT datname FROM pg_database WHERE datdba = 'ckan_default'::regrole AND
      (datname ~ '^bench_' OR datname ~ '^dbm_.*(scratch|undo)$' AND
       shobj_description(oid, 'pg_database') LIKE '%site ''{SITE_ID}''%')"""
    drop(*psql("postgres", "-c", ours).split())


# ------------------------------------------------------------------- figures

ROWS = []


def figure(name, ours, peer, target, unit="s", of=None):
    """Prints a row; `of` is what is judged if it is not the ratio."""
    ratio = ours / peer if peer else 0.0
    judged = ratio if of is None else of
    limit = f"{target:g}" if of is None else f"{target:g} {unit}"
    good = judged <= target
    ROWS.append(good)
    if len(ROWS) == 1:
        print(f"{'':38}{'OURS':>12}{'PEER':>12}{'RATIO':>9}{'TARGET':>10}", flush=True)
    print(
        f"{name:38}{ours:>9.2f} {unit:2}{peer:>9.2f} {unit:2}{ratio:>9.2f}"
        f"{'≤ ' + limit:>10}  {'met' if good else 'MISSED'}",
        flush=True,
    )


def turns(rounds, *works):
    """The best result of each, taken in turns at quiet moments."""
    results = []
    for _ in range(rounds):
        row = []
        for work in works:
            quiet()
            row.append(work())
        say(" ".join(f"{seconds:.2f}" for seconds in row))
        results.append(row)
    return [min(column) for column in zip(*results, strict=True)]


def dump(portal, rounds):
    sizes = []

    def ours():
        done = child(portal, "dump")
        sizes.append(done["bytes"])
        return done["seconds"]

    best, peer = turns(rounds, ours, lambda: portal.dump_file()[0])
    figure("dump, against pg_dump -Fc", best, peer, 0.35)
    file = (BENCH / "peer.dump").stat().st_size
    figure("its file", sizes[-1] / 1e6, file / 1e6, 1.0, "MB")


def backup(portal, rounds):
    whole, start, peer = turns(
        rounds,
        lambda: ckan(portal, "db", "backup", "--only", "database", "--quiet"),
        lambda: ckan(portal, "db", "version"),
        lambda: portal.dump_file()[0],
    )
    figure("ckan db backup less CKAN's start", whole - start, peer, 0.6)


def startup(portal, rounds):
    ours, peer = turns(
        7 if rounds > 1 else 1,
        lambda: ckan(portal, "db", "backups"),
        lambda: ckan(portal, "db", "version"),
    )
    figure("ckan db backups, against db version", ours, peer, 1.05)


def memory(portal, rounds):
    big = Portal("bench_big", 10 * portal.datasets).make()
    ours, peer = [], []
    for site, peaks in ((portal, peer), (big, ours)):
        command = (sys.executable, "-m", "ckanext.dbmanage", "-c", site.ini, "backup")
        _, peak, out = run(*command, "--quiet")
        peaks.append(peak)
        restored = child(site, "restore", out.strip())
        peaks.append(restored["memory"])
        drop(*restored["replaced"])
        say(f"{site.datasets} datasets: restored in {restored['seconds']:.0f} s")
    drop(big.main, big.datastore)
    times = f"{big.datasets} : {portal.datasets}"
    figure(f"memory of backup, {times}", ours[0], peer[0], 1.1, "MB")
    figure(f"memory of restore, {times}", ours[1], peer[1], 1.1, "MB")


def restore(portal, rounds):
    backup_id, (_, file) = portal.back_up("--only", "database"), portal.dump_file()
    create("bench_copy", portal.main)

    def ours():
        done = child(portal, "restore", backup_id)
        drop(*done["replaced"])
        say("phases: " + ", ".join(f"{n} {s:.2f}" for n, s in done["phases"].items()))
        return done["seconds"]

    best, peer = turns(rounds, ours, lambda: pg_restore(file, "bench_copy"))
    drop("bench_copy")
    figure("restore, against pg_restore --clean", best, peer, 0.95)


def traffic(portal, rounds):
    """A restore with 2,000 uploads while 20 requests a second are asked."""
    portal.upload(2_000, 20_000)
    backup_id, (_, file) = portal.back_up(), portal.dump_file()
    create("bench_copy", portal.main)
    ours, peer = [], []
    for _ in range(rounds):
        quiet()
        with Visitors(portal) as visitors:
            done = child(portal, "restore", backup_id)
        drop(*done["replaced"])
        ours.append(visitors.seen())
        quiet()
        with Visitors(portal) as visitors:
            # it may lose tables to its readers: that is the manual's way too
            pg_restore(file, portal.main, ok=(0, 1))
        peer.append(visitors.seen())
        create(portal.main, "bench_copy")  # whatever it left
    drop("bench_copy")
    shutil.rmtree(portal.storage / "resources")
    worst = max(gap for gap, _ in ours)
    figure(
        "no good answer during a restore", worst, min(p[0] for p in peer), 1, of=worst
    )
    errors, theirs = sum(bad for _, bad in ours), min(bad for _, bad in peer)
    figure("error pages and wrong pages then", errors, theirs, 0, "", of=errors)


def undo(portal, rounds):
    """`ckan db undo` until the site is back, against the way that CKAN's manual gives."""
    _, file = portal.dump_file()
    backup_id = portal.back_up()
    ckan(portal, "db", "restore", backup_id, "--yes", "--no-backup", "--quiet")

    def ours():
        command = (CKAN, "-c", portal.ini, "db", "undo", "--yes", "--quiet")
        begun = time.monotonic()
        with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE) as process:
            told = process.stdout.readline()
            back = time.monotonic() - begun
            process.stdout.read()
        if not told.startswith(b"undone"):
            sys.exit("bench: the undo failed")
        say(f"back after {back:.2f} s, the index looked through after "
            f"{time.monotonic() - begun:.2f} s, CKAN's start included")  # fmt: skip
        return back

    best, start = turns(rounds, ours, lambda: ckan(portal, "db", "version"))
    seconds = ckan(portal, "db", "clean", "--yes", "--no-backup")
    seconds += pg_restore(file, portal.main, ok=(0, 1))
    seconds += ckan(portal, "search-index", "rebuild")
    figure(
        "undo less CKAN's start, the manual's way",
        best - start,
        seconds,
        1,
        of=best - start,
    )


def uploads(portal, rounds):
    number = 100_000 if rounds > 1 else 5_000
    say(f"making {number} uploads of 100 kB")
    portal.upload(number, 100_000)
    command = (sys.executable, "-m", "ckanext.dbmanage", "-c", portal.ini, "backup")
    first = run(*command, "--only", "files", "--quiet")[0]
    again = min(run(*command, "--only", "files", "--quiet")[0] for _ in range(rounds))
    shutil.rmtree(portal.storage)
    portal.storage.mkdir()
    figure(f"a backup of {number} uploads again", again, first, 0.05)


def middleware(portal, rounds):
    """What the look at the key costs, against a page and against an API's answer."""
    done = child(portal, "middleware")
    with Visitors(portal) as visitors:
        time.sleep(20)
    page = visitors.median("/dataset/")
    figure(
        "a look at the key, against a page",
        done["seconds"] * 1e3,
        page * 1e3,
        0.01,
        "ms",
    )


# what three plugins with a hook each add to every dataset
HOOKS = """
import ckan.plugins as p
class Hooks(p.SingletonPlugin):
    p.implements(p.IPackageController, inherit=True)
    p.implements(p.IResourceController, inherit=True)
    def read(self, entity): self.seen = entity.name
    def before_resource_show(self, resource): resource["shown"] = True; return resource
    def after_dataset_show(self, context, dataset): dataset["seen"] = self.seen
"""


def exported(portal, *options, kind="datasets"):
    """Seconds of an export by two processes, CKAN's start included."""
    file = str(BENCH / "ours.jsonl")
    return ckan(portal, "db", "export", kind, "--jobs", "2", "-O", file, *options)


def dumped(portal, kind="datasets", user=("-u", ""), which="--all"):
    """Seconds of `ckanapi dump` by two processes."""
    command = (str(S / "venv/bin/ckanapi"), "dump", kind, which, "-q", "-p", "2")
    return run(*command, "-c", portal.ini, *user, "-O", str(BENCH / "peer.jsonl"))[0]


def same(sort=False):
    """Stops when the two files differ."""
    files = [
        (BENCH / name).read_bytes().splitlines()
        for name in ("ours.jsonl", "peer.jsonl")
    ]
    if (sorted(files[0]) != sorted(files[1])) if sort else (files[0] != files[1]):
        sys.exit("bench: the export is not what ckanapi dumps")
    say(f"{len(files[0])} lines, equal")


def rows_as_they_are(portal):
    """Seconds of COPY of the same rows: no exporter can be faster."""
    public = "SELECT id FROM package WHERE state = 'active' AND NOT private"
    begun = time.monotonic()
    for table, key in (
        ("package", "id"),
        ("resource", "package_id"),
        ("package_tag", "package_id"),
    ):
        psql(
            portal.main,
            "-c",
            f"COPY (SELECT * FROM {table} WHERE {key} IN ({public})) TO STDOUT",
        )
    return time.monotonic() - begun


def from_index():
    """Lines of the last export from the search index, and from the database, as it said."""
    said = (BENCH / "err").read_text()
    found = re.search(r"(\d+) from the search index, (\d+) from the database", said)
    if found is None:
        sys.exit(f"bench: the export does not say where its lines are from: {said}")
    return int(found[1]), int(found[2])


def index_by_core(portal):
    """Core's documents, by two processes."""
    say("making the search index, some minutes")
    # core's own rebuild-fast indexes nothing with SQLAlchemy 2, and ends with 0
    command = (sys.executable, __file__, "--inside", "index", portal.ini)
    indexing = [subprocess.Popen([*command, part], env=ENV) for part in ("0", "1")]
    if any(process.wait() for process in indexing):
        sys.exit("bench: the search index could not be made")


def export(portal, rounds):
    """End to end, CKAN's start included, first without and then with a search index."""
    ckan(portal, "search-index", "clear")
    ours, theirs, floor = turns(
        rounds,
        lambda: exported(portal, "--fresh"),
        lambda: dumped(portal),
        lambda: rows_as_they_are(portal),
    )
    same()
    figure("export --fresh, ckanapi without index", ours, theirs, 1 / 15)
    # nothing to be met: it says how far the lines are from the rows they are made of
    figure("export --fresh, COPY of its rows", ours, floor, float("inf"))
    index_by_core(portal)

    def warm():
        seconds = exported(portal)
        indexed, read = from_index()
        # the few whose time is in whole milliseconds core itself reads from the database
        if indexed < 0.99 * (indexed + read):
            sys.exit(f"bench: {read} of the lines came from the database")
        return seconds

    ours, theirs = turns(rounds, warm, lambda: dumped(portal))
    same()
    figure("export, ckanapi with a warm index", ours, theirs, 1 / 20)
    ckan(portal, "search-index", "clear")


def reindex(portal, rounds):
    """The whole index, beside core's two ways and Solr taking ready documents."""
    say("core's rebuild, some minutes")
    ckan(portal, "search-index", "clear")
    core = ckan(portal, "search-index", "rebuild")
    documents = child(portal, "documents")["documents"]
    ckan(portal, "search-index", "clear")
    seconds = ckan(portal, "search-index", "rebuild-fast")
    number = child(portal, "documents")["number"]
    say(f"core's rebuild-fast: {number} documents in {seconds:.0f} s")
    if number < portal.datasets / 2:
        say("which is none of a peer: core's rebuild in two processes instead")
    ckan(portal, "search-index", "clear")
    command = (sys.executable, __file__, "--inside", "index", portal.ini)
    begun = time.monotonic()
    fast = [subprocess.Popen([*command, part], env=ENV) for part in ("0", "1")]
    if any(process.wait() for process in fast):
        sys.exit("bench: the search index could not be made")
    peer = time.monotonic() - begun

    def ours():
        ckan(portal, "search-index", "clear")
        return ckan(portal, "db", "reindex", "-q", "--jobs", "2")

    def replayed():
        ckan(portal, "search-index", "clear")
        return child(portal, "replay")["seconds"]

    whole, solr = turns(rounds, ours, replayed)
    ckan(portal, "db", "reindex", "-q", "--jobs", "2")
    made = child(portal, "documents")["documents"]
    if made != documents:
        sys.exit("bench: the documents are not core's")
    say("the documents are core's, all of them")
    figure("reindex, core's rebuild", whole, core, 1 / 8)
    figure("reindex, core's rebuild by two", whole, peer, 1)
    figure("reindex, Solr takes ready documents", whole, solr, 1 / 0.6)
    deep = min(ckan(portal, "db", "reindex", "--deep", "-q") for _ in range(rounds))
    figure("reindex --deep, core's rebuild", deep, core, 1 / 20)
    seconds = []
    for _ in range(rounds):
        psql(
            portal.main,
            "-c",
            """UPDATE package SET metadata_modified = now(), notes = notes || '.'
               WHERE id IN (SELECT id FROM package ORDER BY md5(id || random()::text)
                            LIMIT (SELECT count(*) / 100 FROM package))""",
        )
        seconds.append(ckan(portal, "db", "reindex", "--changed", "-q"))
    figure("reindex --changed, 1 %, core's", min(seconds), core, 5, of=min(seconds))
    ckan(portal, "search-index", "clear")


@contextmanager
def before_two(old, new):
    """nginx before an old CKAN, and a new one that answers when the old one fails."""
    nginx = shutil.which("nginx", path="/usr/sbin:" + E["PATH"])
    if nginx is None:
        sys.exit("bench: install nginx-light first")
    ports = {name: free_port() for name in ("old", "new", "site")}
    configuration = BENCH / "nginx.conf"
    configuration.write_text(f"""daemon off; pid {BENCH}/nginx.pid; error_log {BENCH}/nginx.log;
    {"user root;" if os.getuid() == 0 else ""}
    events {{}} http {{ access_log off; client_body_temp_path {BENCH}/tmp;
      proxy_temp_path {BENCH}/tmp;
      upstream ckan {{ server 127.0.0.1:{ports["old"]} max_fails=0;
                       server 127.0.0.1:{ports["new"]} max_fails=0 backup; }}
      server {{ listen 127.0.0.1:{ports["site"]}; location / {{ proxy_pass http://ckan;
        proxy_next_upstream error timeout http_500 http_502 http_503; }} }} }}""")
    processes = {
        "old": web(old, ports["old"]),
        "new": web(new, ports["new"]),
        "nginx": subprocess.Popen(
            [nginx, "-c", str(configuration)], stderr=subprocess.DEVNULL
        ),
    }
    try:
        yield ports, processes
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()


def upgrade(portal, rounds):
    """From 2.10 to 2.12 while 20 requests a second are asked, and the manual's way."""
    old = Portal("bench_old", portal.datasets, OLD, "ckan_test_210").make()
    new = copy.copy(old)  # the same databases, the new code
    new.program, new.ini = CKAN, str(BENCH / "bench_new.ini")
    Path(new.ini).write_text(Path(old.ini).read_text().replace("ckan_test_210", "ckan"))
    bare = str(BENCH / "bench_bare.ini")  # other plugins commented out
    text = Path(new.ini).read_text()
    Path(bare).write_text(text.replace("= dbmanage datastore", "= datastore"))
    say(run(CKAN, "-c", new.ini, "db", "upgrade", "--rehearse", "-q")[2].strip())
    for name in (old.main, old.datastore):
        create(f"{name}_copy", name)
    with before_two(old, new) as (ports, _), Visitors(old, ports["site"]) as visitors:
        ckan(new, "db", "upgrade", "-q")
    gap, _ = visitors.seen()
    for name in (old.main, old.datastore):
        create(name, f"{name}_copy")
    with before_two(old, new) as (ports, processes):
        processes["new"].terminate()
        processes["new"].wait()
        with Visitors(old, ports["site"]) as visitors:
            processes["old"].terminate()
            processes["old"].wait()
            pg_dump(old.main, str(BENCH / "peer.dump"))
            run(CKAN, "-c", bare, "db", "upgrade")
            script = run(CKAN, "-c", bare, "datastore", "set-permissions")[2]
            lines = [line for line in script.splitlines() if line[:8] != "\\connect"]
            psql(old.datastore, "-c", "\n".join(lines))
            processes["new"] = web(new, ports["new"])
    theirs, _ = visitors.seen()
    figure("no good answer, 2.10 to 2.12", gap, theirs, 1, of=gap)
    for name in (old.main, old.datastore):
        drop(name, f"{name}_copy")


def hooks(portal, rounds):
    """With hooks and with ckanext-scheming: seconds a dataset, against the action."""
    path = BENCH / "plugins"
    about = path / "hooks-1.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (path / "hooks.py").write_text(HOOKS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hooks\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ckan.plugins]\nhooks = hooks:Hooks\n")
    before = Path(portal.ini).read_text()
    ENV["PYTHONPATH"] = str(path)
    try:
        for name in ("hooks", "scheming_datasets"):
            Path(portal.ini).write_text(
                before.replace(
                    "ckan.plugins = dbmanage datastore activity",
                    "scheming.dataset_schemas = ckanext.scheming:ckan_dataset.yaml\n"
                    f"ckan.plugins = dbmanage {name}",
                )
            )
            whole, start, action = turns(
                rounds,
                lambda: exported(portal, "--fresh"),
                lambda: ckan(portal, "db", "version"),
                lambda: child(portal, "action")["seconds"],
            )
            number = (BENCH / "ours.jsonl").read_bytes().count(b"\n")
            steady = (whole - start) / number * 1e3
            figure(
                f"export with {name}, the action", steady, action * 1e3, 1 / 15, "ms"
            )
    finally:
        Path(portal.ini).write_text(before)
        del ENV["PYTHONPATH"]


def users(portal, rounds):
    number = portal.datasets
    psql(portal.main, "-c", f"""INSERT INTO "user" (id, name, fullname, email, created, state, sysadmin)
      SELECT 'more-' || i, 'more-' || i, 'User', i || '@example.com', now(), 'active', false
      FROM generate_series(1, {number}) i""")  # fmt: skip
    whole, start, begun, theirs = turns(
        rounds,
        lambda: exported(portal, "--secrets", kind="users"),
        lambda: ckan(portal, "db", "version"),
        lambda: dumped(portal, "users", (), "user-1"),
        lambda: dumped(portal, "users", ()),
    )
    same(sort=True)
    theirs -= begun
    psql(portal.main, "-c", "DELETE FROM \"user\" WHERE id LIKE 'more-%'")
    figure(f"{number} users less start, ckanapi", whole - start, theirs, 1 / 20)


def export_memory(portal, rounds):
    """The largest of an export's processes, over a CKAN that does nothing."""
    bare = run(CKAN, "-c", portal.ini, "db", "version")[1]
    big = Portal("bench_big", 5 * portal.datasets).make()

    def measure(site, name, *options):
        command = (CKAN, "-c", site.ini, "db", "export", "datasets", *options)
        peak = run(*command, "-O", str(BENCH / name))[1]
        what = f"memory of {name}, {site.datasets}, bare"
        figure(what, peak, bare, 64, "MB", of=peak - bare)

    for site in (portal, big):
        measure(site, "ours.jsonl", "--fresh")
        # the ids of the two are the same
        ckan(site, "search-index", "clear")
        ckan(site, "db", "reindex", "-q", "--jobs", "2")
        measure(site, "ours.jsonl.gz")
        if not from_index()[0]:
            sys.exit("bench: no line came from the search index")
    ckan(portal, "search-index", "clear")
    drop(big.main, big.datastore)


@contextmanager
def served(portal, files, internal, accelerated):
    """Ports of CKAN alone, nginx alone on a directory, and nginx before CKAN.

    `files` is the path of the directory on nginx alone, `internal` that within.
    """
    path, directory = files
    nginx = shutil.which("nginx", path="/usr/sbin:" + E["PATH"])
    if nginx is None:
        sys.exit("bench: install nginx-light first")
    ports = {name: free_port() for name in ("ckan", "static", "behind", "accel")}
    before = Path(portal.ini).read_text()
    sites = f"""
      server {{ listen 127.0.0.1:{ports["static"]}; location {path} {{ alias {directory}/; }} }}
      server {{ listen 127.0.0.1:{ports["accel"]};
        location / {{ proxy_pass http://127.0.0.1:{ports["behind"]}; }}
        location {internal} {{ internal; alias {directory}/; }} }}"""
    configuration = BENCH / "nginx.conf"
    configuration.write_text(f"""daemon off; pid {BENCH}/nginx.pid; error_log {BENCH}/nginx.log;
    {"user root;" if os.getuid() == 0 else ""}
    events {{}} http {{ access_log off; sendfile on; client_body_temp_path {BENCH}/tmp;
    proxy_temp_path {BENCH}/tmp; {sites} }}""")
    processes = {}
    try:
        for name, more in (("ckan", ""), ("behind", accelerated)):
            ini = BENCH / f"{name}.ini"
            ini.write_text(before.replace("[app:main]", f"[app:main]\n{more}"))
            command = [CKAN, "-c", str(ini), "run", "-r", "-t", "-H", "127.0.0.1"]
            processes[name] = subprocess.Popen(
                [*command, "-p", str(ports[name])],
                env=ENV,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        processes["nginx"] = subprocess.Popen(
            [nginx, "-c", str(configuration)], stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 60
        for name in ("ckan", "static", "accel"):
            while time.monotonic() < end:
                with suppress(OSError):
                    url = f"http://127.0.0.1:{ports[name]}/api/3/action/status_show"
                    urllib.request.urlopen(url, timeout=60)
                    break
                if name == "static":
                    break
                time.sleep(0.2)
        yield ports, processes
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()


def fetched(url, *options):
    """Seconds until the last byte, and bytes, of a download."""
    out = run(
        "curl", "-sf", "-o", "/dev/null", "-w", "%{time_total} %{size_download}",
        *options, url,
    )[2]  # fmt: skip
    seconds, size = out.split()
    return float(seconds), int(size)


def serving(portal, rounds):
    """A file of 100 MB: through CKAN alone, by nginx, and by both."""
    if shutil.which("nginx", path="/usr/sbin:" + E["PATH"]) is None:
        say("serving is not measured: install nginx-light for it")
        ROWS.append(False)
        return
    child(portal, "publish")
    public = portal.storage / "dbmanage/public"
    accelerated = "ckanext.dbmanage.sendfile = X-Accel-Redirect /sent"
    with served(portal, ("/dump/", public), "/sent/", accelerated) as (ports, _):

        def fetch(name):
            url = f"http://127.0.0.1:{ports[name]}/dump/datasets.jsonl.gz"
            seconds, size = fetched(url)
            if size < 100_000_000:
                sys.exit(f"bench: {name} sent {size} bytes")
            return seconds

        alone, accel, peer = turns(
            10, *(lambda n=n: fetch(n) for n in ("ckan", "accel", "static"))
        )
    figure("100 MB through CKAN alone, nginx", alone * 1e3, peer * 1e3, 2, "ms")
    figure("100 MB with X-Accel-Redirect, nginx", accel * 1e3, peer * 1e3, 1.05, "ms")


def page(portal, rounds):
    """The sysadmin page: the list, a download of 2 GB, what a poll asks for."""
    repository = portal.storage / "dbmanage/backups"
    upload = portal.storage / "resources/abc/def/a-gigabyte"
    upload.parent.mkdir(parents=True, exist_ok=True)
    random_file(upload, 1024)
    whole = portal.back_up()
    (large,) = (p for p in repository.glob("objects/*/*") if p.stat().st_size >> 30)
    child(portal, "many", "500")
    psql(portal.main, "-c", "UPDATE \"user\" SET sysadmin = true WHERE name = 'user-1'")
    token = run(CKAN, "-c", portal.ini, "user", "token", "add", "user-1", "b", "-q")
    secret = BENCH / "authorization"  # never in an argument
    secret.write_text(f"Authorization: {token[2].split()[-1]}\n")
    exports = repository / "exports"
    exports.mkdir(mode=0o700, exist_ok=True)
    random_file(exports / "datasets.jsonl.gz", 2048)
    accelerated = "ckanext.dbmanage.sendfile = X-Accel-Redirect /public /sent"
    mine = ("-H", f"@{secret}")
    with served(portal, ("/files/", repository), "/sent/", accelerated) as found:
        ports, processes = found

        def look(path):
            url = f"http://127.0.0.1:{ports['ckan']}{path}"
            return min(fetched(url, *mine)[0] for _ in range(20))

        def cold(path):
            os.utime(repository / "state")  # as after a backup: all is read anew
            return fetched(f"http://127.0.0.1:{ports['ckan']}{path}", *mine)[0]

        def link(name, **of):
            answer = run(
                "curl", "-sf", *mine, "-H", "Content-Type: application/json",
                "-d", json.dumps(of or {"file": "datasets.jsonl.gz"}),
                f"http://127.0.0.1:{ports[name]}/api/3/action/dbmanage_backup_download",
            )[2]  # fmt: skip
            url = json.loads(answer)["result"]["url"]
            return f"http://127.0.0.1:{ports[name]}/{url.split('/', 3)[3]}"

        def download(name, url, expected=2048 << 20):
            seconds, size = fetched(url, *mine)
            if size < expected:
                sys.exit(f"bench: {name} sent {size} bytes")
            return seconds

        trash = "/ckan-admin/trash"
        ours, peer = turns(
            rounds, lambda: look("/ckan-admin/backups/"), lambda: look(trash)
        )
        figure("list of 500, trash page", ours * 1e3, peer * 1e3, 1.3, "ms")
        ours, peer = turns(
            rounds, lambda: cold("/ckan-admin/backups/"), lambda: look(trash)
        )
        figure("list of 500 read anew", ours * 1e3, peer * 1e3, 30, "ms")
        psql(
            portal.main,
            "-c",
            """UPDATE package SET state = 'deleted' WHERE id IN
              (SELECT id FROM package ORDER BY id LIMIT 100)""",
        )
        ours, peer = turns(
            rounds, lambda: look("/ckan-admin/backups/"), lambda: look(trash)
        )
        figure("list of 500, 100 in the trash", ours * 1e3, peer * 1e3, 1.3, "ms")
        # the others have answered nothing yet, CKAN alone many times
        run("curl", "-s", "-o", "/dev/null", *mine, link("accel"))
        before = resident(processes["ckan"].pid)
        alone, accel, static = turns(
            rounds,
            lambda: download("ckan", link("ckan")),
            lambda: download("accel", link("accel")),
            lambda: download(
                "static",
                f"http://127.0.0.1:{ports['static']}/files/exports/datasets.jsonl.gz",
            ),
        )
        grown = resident(processes["ckan"].pid, "VmHWM") - before
        tar, static_tar = turns(
            rounds,
            lambda: download("ckan", link("ckan", id=whole, file="all.tar"), 1 << 30),
            lambda: download(
                "static",
                f"http://127.0.0.1:{ports['static']}/files/{large.relative_to(repository)}",
                1 << 30,
            ),
        )
        tar_grown = resident(processes["ckan"].pid, "VmHWM") - before
    figure("all.tar of 1 GB, nginx a file of 1 GB", tar, static_tar, 2)
    figure("memory grown by all.tar too", tar_grown, before, 32, "MB", of=tar_grown)
    figure("2 GB through CKAN alone, nginx", alone, static, 2)
    figure("2 GB with X-Accel-Redirect, nginx", accel, static, 1.05)
    figure("memory of CKAN's process, grown by", grown, before, 32, "MB", of=grown)
    asked = child(portal, "poll")
    figure(
        "SQL of a poll, of an empty page",
        asked["ours"],
        asked["peer"],
        2,
        "",
        of=asked["ours"],
    )
    secret.unlink()
    upload.unlink()


def random_file(path, megabytes):
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))


def resident(pid, key="VmRSS"):
    """MB of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(e.split()[1]) / 1024 for e in lines if e.startswith(f"{key}:"))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def web(portal, port):
    """A site's web process, in threads."""
    command = [portal.program, "-c", portal.ini, "run", "-H", "127.0.0.1"]
    with open(BENCH / "portal.log", "ab") as log:
        return subprocess.Popen(
            [*command, "-p", str(port), "--disable-reloader", "--threaded"],
            env=ENV, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


class Visitors:
    """A site that runs, and four who ask it for 20 answers a second all the while.

    Pages, `package_show` and `datastore_search`, each looked at: a good answer is 200
    and the right thing, 503 is maintenance, all else is an error.
    """

    RATE, NUMBER = 20, 4

    def __init__(self, portal, port=0):
        self.portal, self.stop, self.site = portal, threading.Event(), None
        self.answers = []  # when, path, seconds, "good", "away" or what went wrong
        self.port = port  # of a site that runs already

    def __enter__(self):
        if not self.port:
            self.port = free_port()
            self.site = web(self.portal, self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        end = time.monotonic() + 90
        while time.monotonic() < end and self.ask(self.paths()[0]) != "good":
            time.sleep(0.2)
        self.answers.clear()
        self.threads = [
            threading.Thread(target=self.work, args=(n,)) for n in range(self.NUMBER)
        ]
        for thread in self.threads:
            thread.start()
        self.wait_for(90, 40)
        self.answers.clear()
        self.wait_for(90, 4)  # an outage is between two good answers
        return self

    @staticmethod
    def paths():
        names = [f"dataset-{n}" for n in range(1, 20)]  # each twentieth is private
        search = (
            "/api/3/action/datastore_search?limit=3&resource_id=" + TABLE,
            '"total": 500',
        )
        found = []
        for name in names:
            found += [(f"/dataset/{name}", name), search]
            found += [(f"/api/3/action/package_show?id={name}", name)]
        return found

    def ask(self, wanted):
        path, words = wanted
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as answer:
                whole = answer.read().decode()
            return "good" if answer.status == 200 and words in whole else "a wrong page"
        except urllib.error.HTTPError as error:
            with error:
                return "away" if error.code == 503 else str(error.code)
        except OSError as error:
            return type(error).__name__

    def work(self, number):
        paths, turn = self.paths(), number
        due = time.monotonic() + number / self.RATE
        while not self.stop.is_set():
            wanted = paths[turn % len(paths)]
            begun = time.monotonic()
            result = self.ask(wanted)
            ended = time.monotonic()
            self.answers.append((ended, wanted[0], ended - begun, result))
            turn += self.NUMBER
            due = max(due + self.NUMBER / self.RATE, time.monotonic())
            time.sleep(max(due - time.monotonic(), 0))

    def wait_for(self, seconds, count):
        """Until that many more good answers have come."""

        def good():
            return sum(answer[3] == "good" for answer in self.answers)

        end, wanted = time.monotonic() + seconds, good() + count
        while good() < wanted and time.monotonic() < end:
            time.sleep(0.05)
        if good() < wanted:
            say(f"the site does not answer, see {BENCH.name}/portal.log")

    def __exit__(self, *_):
        self.wait_for(90, 40)
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.site is not None:
            self.site.terminate()
            self.site.wait()

    def seen(self):
        """The longest time between two good answers, and the number of errors."""
        times = sorted(answer[0] for answer in self.answers if answer[3] == "good")
        longest = max(b - a for a, b in zip(times, times[1:], strict=False))
        results = [answer[3] for answer in self.answers]
        counts = {result: results.count(result) for result in sorted(set(results))}
        say(f"answers: {counts}, longest gap {longest:.2f} s")
        return longest, len(results) - counts.get("good", 0) - counts.get("away", 0)

    def median(self, prefix):
        return sorted(a[2] for a in self.answers if a[1].startswith(prefix))[
            sum(a[1].startswith(prefix) for a in self.answers) // 2
        ]


_ALL = (
    dump, backup, startup, restore, traffic, undo, uploads, middleware, export, hooks, users,
    serving, page, reindex, upgrade, memory, export_memory,
)  # fmt: skip
FIGURES = {f.__name__: f for f in _ALL}

# ------------------------------------------------------------ inside a child


def inside(what, ini, *arguments):
    """Runs in a process of its own: calls the engine, prints what it measured."""
    from ckan.cli import load_config

    from ckanext.dbmanage.portal.directories import public_dir
    from ckanext.dbmanage.portal.site import build_site
    from ckanext.dbmanage.portal.plan import installed_migrations
    from ckanext.dbmanage.portal import config
    from ckanext.dbmanage.engine.repository.repository import Repository
    from ckanext.dbmanage.portal import migrate

    if what == "action":
        print(json.dumps({"seconds": inside_action(ini)}))
        return
    if what == "poll":
        print(json.dumps(inside_poll(ini)))
        return
    if what in ("documents", "replay"):
        print(json.dumps(inside_solr(ini, what)))
        return
    if what == "index":
        inside_index(ini, int(*arguments))
        return
    settings = dict(load_config(ini))
    if what == "publish":
        inside_publish(public_dir(settings))
        print("{}")
        return
    site = build_site(settings, installed_migrations(config.plugins(settings)))
    if what == "middleware":
        print(json.dumps({"seconds": inside_middleware(settings)}))
        return
    repository = Repository(site.repository, site.secrets)
    if what == "many":
        inside_many(repository, site.secrets[0], *map(int, arguments))
        print("{}")
        return
    work = inside_dump if what == "dump" else inside_restore
    with repository.lock("benchmark"):
        done = work(site, repository, migrate.prepare(settings), *arguments)
    print(json.dumps(done))


def inside_action(ini):
    """Seconds of one `package_show` without the search index."""
    from ckan import model
    from ckan.cli import load_config
    from ckan.config.middleware import make_app
    from ckan.logic import get_action

    with make_app(load_config(ini))._wsgi_app.test_request_context():
        names = get_action("package_list")({"user": ""}, {"limit": 600})
        begun = 0
        for number, name in enumerate(names):
            if number == 100:
                begun = time.perf_counter()
            get_action("package_show")({"user": "", "use_cache": False}, {"id": name})
            model.Session.expunge_all()
        return (time.perf_counter() - begun) / (len(names) - 100)


def inside_index(ini, part):
    """Indexes every second dataset by core's own functions."""
    from ckan import model
    from ckan.cli import load_config
    from ckan.config.middleware import make_app
    from ckan.lib import search

    with make_app(load_config(ini))._wsgi_app.test_request_context():
        ids = [row[0] for row in model.Session.query(model.Package.id).order_by("id")]
        search.rebuild(package_ids=ids[part::2], defer_commit=True, quiet=True)
        search.commit()


def inside_solr(ini, what):
    """A hash of all stored documents; or seconds of sending ready ones, made before.

    With every field, stored or not. They go in batches of 250 from two threads, with
    one commit at the end: no rebuild can be faster.
    """
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    from ckan.cli import load_config

    solr = str(load_config(ini)["solr_url"])

    def ask(path, body=None):
        request = urllib.request.Request(
            f"{solr}{path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    if what == "replay":
        batches = list(inside_ready(ini))
        quiet()
        begun = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(ask, "/update", batch) for batch in batches]:
                done.result()
        ask("/update?commit=true", b"[]")
        return {"seconds": time.perf_counter() - begun}
    digest, after, number = hashlib.sha256(), "*", 0
    while True:
        found = ask(
            "/select?q=*:*&rows=500&sort=index_id+asc&wt=json&fl=*&cursorMark="
            + urllib.parse.quote(after)
        )
        for document in found["response"]["docs"]:
            for name in ("_version_", "indexed_ts"):
                document.pop(name, None)
            digest.update(json.dumps(document, sort_keys=True).encode())
            number += 1
        if found["nextCursorMark"] == after:
            return {"documents": digest.hexdigest(), "number": number}
        after = found["nextCursorMark"]


def inside_ready(ini):
    """Bodies of requests with all documents, 250 in each, as they are sent."""
    from ckan import model
    from ckan.cli import load_config
    from ckan.config.middleware import make_app
    from ckan.lib.search.common import make_connection

    from ckanext.dbmanage.records.search_index import Writer

    with make_app(load_config(ini))._wsgi_app.test_request_context():
        write, solr = Writer(False), make_connection()
        rows = model.Session.execute(
            model.package_table.select().with_only_columns(model.package_table.c.id)
        )
        ids = sorted(row[0] for row in rows)
        for n in range(0, len(ids), 250):
            documents, _ = write._made([(each, "") for each in ids[n : n + 250]])
            yield json.dumps([solr._build_json_doc(e) for e in documents]).encode()


def inside_publish(directory):
    """Publishes a file of a little over 100 MB."""
    from ckanext.dbmanage.records import published
    from ckanext.dbmanage.engine import signature

    with published.writing(directory) as upcoming:
        files = []
        for name in published.NAMES:
            size = 101_000_000 if name == "datasets.jsonl.gz" else 1000
            with open(upcoming / name, "wb") as file:
                written = signature.Written(file)
                written.write(os.urandom(size))
            files.append(
                published.File(name, name.partition(".")[0], 1, 0, size, size, written.sha256,
                               "2026-01-01T00:00:00Z")
            )  # fmt: skip
        about = {
            "snapshot": "2026-01-01T00:00:00.000000Z",
            "published": "2026-01-01T00:00:00Z",
        }
        published.commit(directory, files, about)


def inside_many(repository, secret, number):
    """Backups of one's manifest, one a night."""
    from datetime import datetime, timedelta

    from ckanext.dbmanage.engine.signature import dumped as dumped_
    from ckanext.dbmanage.engine.signature import sign

    whole = repository.find("latest")
    night = datetime.strptime(whole.id, "%Y%m%dT%H%M%SZ")
    for n in range(1, number):
        moment = night - timedelta(days=n)
        id = f"{moment:%Y%m%dT%H%M%SZ}"
        directory = repository.path / id
        directory.mkdir(mode=0o700)
        for file in whole.path.iterdir():
            os.link(file, directory / file.name)
        manifest = whole.manifest | {
            "id": id,
            "created": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        }
        (directory / "manifest.json").unlink()
        written = dumped_(sign(manifest, secret, "manifest"))
        (directory / "manifest.json").write_bytes(written)
        repository.find(id).remember(verified={"time": manifest["created"]})


def inside_poll(ini):
    """SQL statements of a look at a running job, and of CKAN's own start page of admins."""
    from ckan import model
    from ckan.cli import load_config
    from ckan.config.middleware import make_app
    from ckan.lib.jobs import job_from_id
    from sqlalchemy import event

    from ckanext.dbmanage.jobs.queue import Jobs

    settings = load_config(ini)
    app = make_app(settings)._wsgi_app
    jobs = Jobs(settings)
    with app.test_request_context():
        job = jobs.enqueue("publish", {}, {"user": "user-1"})
    client, asked = app.test_client(), []
    with app.test_request_context():
        reader = model.User.get("user-1").id
    with client.session_transaction() as session:  # as a browser, signed in
        session["_user_id"] = reader
    event.listen(
        model.meta.engine, "before_cursor_execute", lambda *a: asked.append(a[2])
    )
    found = {}
    with jobs.taken(job) as log:  # as a worker has it
        log.progress("dump", 1 << 20, 1 << 30)
        for name, path in (
            ("peer", "/ckan-admin/config"),
            ("ours", f"/ckan-admin/backups/job/{job['id']}/live"),
        ):
            for _ in range(2):  # the first fills what is cached
                asked.clear()
                answer = client.get(path)
                assert answer.status_code == 200, (path, answer.status)
            found[name] = len(asked)
    assert b"progress" in answer.data
    job_from_id(job["id"]).delete()
    return found


def inside_middleware(settings):
    """Seconds a request that finds no key costs, the best of some."""
    from ckanext.dbmanage.web.maintenance import MaintenanceMiddleware

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/dataset/", "SCRIPT_NAME": ""}
    application = MaintenanceMiddleware(lambda *_: [], settings)
    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(200):
            application(environ, None)
        best = min(best, (time.perf_counter() - begun) / 200)
    return best


def inside_dump(site, repository, _):
    from ckanext.dbmanage.engine.backup.databases import snapshot
    from ckanext.dbmanage.engine.backup.databases import dump_all

    with repository.partial("benchmark") as partial:
        begun = time.monotonic()
        with snapshot(site.databases["database"]) as source:
            sources = {"database": source}
            _, contents = dump_all(site, sources, partial, lambda *_: None)
        seconds = time.monotonic() - begun
    return {"seconds": seconds, "bytes": contents["database.dump.zst"]["bytes"]}


def inside_restore(site, repository, prepare, backup_id):
    from ckanext.dbmanage.engine.restore.source import open_source
    from ckanext.dbmanage.engine.restore.preflight import preflight
    from ckanext.dbmanage.engine.restore.restore import restore_backup

    marks = []

    def progress(phase, *_):
        if not marks or marks[-1][0] != phase:
            marks.append((phase, time.monotonic()))

    source = open_source(site, repository, backup_id)
    preflight(site, repository, source)
    progress("begin")
    done = restore_backup(site, repository, source, prepare=prepare, progress=progress)
    progress("end")
    phases = {}
    for (phase, begun), (_, ended) in zip(marks, marks[1:], strict=False):
        phases[phase] = phases.get(phase, 0) + ended - begun
    return {
        "seconds": sum(s for phase, s in phases.items() if phase != "switch"),
        "phases": phases,
        "replaced": [database.name for database in done.replaced.databases.values()],
    }


# ---------------------------------------------------------------------- main


@contextmanager
def cleaned_up():
    def end(number, _):
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    drop_all()  # of a run that was killed
    try:
        yield
    finally:
        drop_all()
        for name in ("bench_main", "bench_big"):
            shutil.rmtree(BENCH / name, ignore_errors=True)
        (BENCH / "peer.dump").unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("figures", nargs="*", metavar="NAME", help=" ".join(FIGURES))
    parser.add_argument(
        "--quick", action="store_true", help="small, one round, no memory"
    )
    parser.add_argument("--rounds", type=int, default=3, help="3 without it")
    options = parser.parse_args()
    for name in options.figures:
        if name not in FIGURES:
            parser.error(f"no figure {name!r}: choose from {' '.join(FIGURES)}")
    chosen = options.figures or [
        f for f in FIGURES if not (options.quick and "memory" in f)
    ]
    BENCH.mkdir(exist_ok=True)
    may = psql(
        "postgres",
        "-c",
        "SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user",
    )
    if may != "t":
        sys.exit(
            "bench: CKAN's role may not create databases: bin/services grant-createdb"
        )
    with cleaned_up():
        portal = Portal("bench_main", 2_000 if options.quick else 20_000).make()
        for name in chosen:
            say(f"{name} (load {os.getloadavg()[0]:.1f})")
            FIGURES[name](portal, 1 if options.quick else options.rounds)
    sys.exit(0 if all(ROWS) or options.quick else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(*sys.argv[2:])
    else:
        main()
