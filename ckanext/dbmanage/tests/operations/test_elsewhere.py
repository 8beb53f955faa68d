"""A database of another cluster is brought in, and its password is seen nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from ...engine.errors import Refused
from ...engine.layout import LENT
from ...operations.elsewhere import address_of, is_address
from ..support.cluster import PG_BIN, Cluster, client
from ..support.portal import Portal
from ..support.small import BINS

SECRET = "only-elsewhere-77"


def moved(portal: Portal, part: str, other: Cluster) -> str:
    """A copy of a part in another cluster, as the role `reader`; its address."""
    other.sql(f"CREATE ROLE reader LOGIN SUPERUSER PASSWORD '{SECRET}'")
    other.sql("CREATE DATABASE kept TEMPLATE template0")
    dump = client(PG_BIN / "pg_dump", portal.url(part), "-Fc", capture_output=True)
    client(
        PG_BIN / "pg_restore", other.url("kept", "postgres"), "-O", input=dump.stdout
    )
    rules = other.data / "pg_hba.conf"
    rules.write_text(f"host all reader all scram-sha-256\n{rules.read_text()}")
    other.sql("SELECT pg_reload_conf()")
    return other.url("kept", "reader")


@pytest.mark.parametrize("part", ["database"])
def test_a_database_of_another_cluster_comes_in(
    portal: Portal, make_cluster: Callable[..., Cluster], part: str
) -> None:
    before = portal.state()
    address = moved(portal, part, make_cluster(bin=BINS[14]))
    portal.damage()
    # libpq's own file: the site has another password, and PGPASSWORD is for one
    file = portal.directory / ".pgpass"
    file.write_text(f"*:*:kept:reader:{SECRET}\n")
    file.chmod(0o600)
    done = portal.db(
        "load", address, "--only", part, "--yes", env={"PGPASSFILE": str(file)}
    )
    after = portal.state()
    assert {k: v for k, v in after.items() if k.startswith(f"{part}:")} == {
        k: v for k, v in before.items() if k.startswith(f"{part}:")
    }
    assert f"from {address}" in done.stdout
    journal = (portal.repository / "journal.jsonl").read_text()
    assert address in journal and "before restore of" in journal
    for text in (done.stdout, done.stderr, journal):
        assert SECRET not in text
    assert not list(portal.repository.glob(f".{LENT}*"))
    portal.module("undo", "--yes")
    assert portal.state() != before


def test_a_server_that_is_not_there_leaves_nothing(portal: Portal) -> None:
    before = portal.state()
    left = portal.repository / f".{LENT}.0123abcd.partial"
    portal.repository.mkdir(parents=True, mode=0o700)
    left.write_bytes(b"of a command that was killed")
    done = portal.module("load", "postgresql://me@127.0.0.1:9/x", "--yes", code=1)
    said = " ".join(done.stderr.split())
    assert "Connection refused" in said and "PGPASSWORD or ~/.pgpass" in said
    assert portal.state() == before and not left.exists()
    left.write_bytes(b"of a command that was killed")
    portal.backup("--only", "files")
    assert not left.exists()


@pytest.mark.parametrize("command", ["load", "restore"])
def test_a_password_in_an_argument_is_refused_and_not_repeated(
    portal: Portal, command: str
) -> None:
    address = f"postgresql://me:{SECRET}@127.0.0.1:9/x"
    done = portal.module(command, address, "--yes", code=2)
    assert SECRET not in done.stdout + done.stderr
    assert ("~/.pgpass" if command == "load" else " load`") in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@host/x",
        f"postgresql://me@host/x?password={SECRET}",
        f"postgresql://me@host/x?sslpassword={SECRET}",
        f"postgres://:{SECRET}@/x",
        f"postgresql://me:{SECRET}@host:no-port/x",
    ],
)
def test_no_refusal_repeats_a_password(text: str) -> None:
    assert is_address(text)
    with pytest.raises(Refused) as refused:
        address_of(text)
    assert SECRET not in str(refused.value)
    assert re.search("password|address", str(refused.value))


def test_a_socket_s_directory_is_an_address_too() -> None:
    url = address_of("postgresql:///portal?host=/run/side&port=5602")
    assert url.query["host"] == "/run/side" and not is_address("./postgresql.dump")
